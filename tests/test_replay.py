import dataclasses
import logging
import shutil

import numpy as np
import pytest
from conftest import DIM, LAYERS, tiny_encoder

from twodmse import Encoder, TrainConfig
from twodmse.data.sets import load_pairs, load_texts
from twodmse.evaluation.grid import pairs_grid
from twodmse.training.replay import models_by_step, replay_grid
from twodmse.training.runs import train_encoder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 5 steps with checkpoints at 2, 4 and 5, and a file of scored pairs."""
    folder = tmp_path_factory.mktemp("replay")
    tiny_encoder().save(folder / "backbone")
    words = ["a man runs", "the dog sees a cat", "two red house", "a woman plays", "small blue park", "never eats"]
    rows = "".join(f"{a},{b},{c}\n" for a in words for b in words for c in words if len({a, b, c}) == 3)
    (folder / "triplets.csv").write_text("anchor,positive,negative\n" + rows)
    scored = "".join(f"{a},{b},{abs(i - j)}\n" for i, a in enumerate(words) for j, b in enumerate(words))
    (folder / "scored.csv").write_text("sentence1,sentence2,score\n" + scored)
    config = TrainConfig(
        data=str(folder / "triplets.csv"), backbone=str(folder / "backbone"), out=str(folder / "run"), steps=5,
        batch_size=2, lr=1e-2, precision="fp32", save_every=2, keep=9,
    )  # fmt: skip
    train_encoder(Encoder.load(folder / "backbone"), load_texts(config.data), config)
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made / "run", tmp_path / "run")


def test_every_step_is_scored_as_its_model_is(made):
    task = str(made / "scored.csv")
    table = replay_grid(made / "run", [task], dims=[4, DIM], layers=[1, LAYERS])
    assert list(table.columns) == ["step", "task", "layer", "dim", "spearman", "low", "high", "n"]
    assert sorted(table["step"].unique()) == [0, 2, 4, 5]
    assert len(table) == 4 * 2 * 2
    folders = {0: made / "backbone", 2: made / "run" / "checkpoint-2", 5: made / "run" / "model"}
    for step, folder in folders.items():
        wanted = pairs_grid(Encoder.load(folder), load_pairs(task), [4, DIM], [1, LAYERS], 0)["spearman"]
        np.testing.assert_allclose(table.loc[table["step"] == step, "spearman"], wanted, atol=1e-6)
    by_step = table.groupby("step")["spearman"].apply(tuple)
    assert len(set(by_step)) == 4  # every step's model differs


def test_the_finished_model_stands_in_for_its_checkpoint(run):
    assert models_by_step(run)[5] == run / "checkpoint-5"
    shutil.rmtree(run / "checkpoint-5")
    found = models_by_step(run)
    assert list(found) == [2, 4, 5]
    assert found[5] == run / "model"


def test_a_damaged_checkpoint_is_left_out_with_a_warning(run, caplog):
    with open(run / "checkpoint-4" / "model.safetensors", "r+b") as file:
        file.write(b"????")
    with caplog.at_level(logging.WARNING):
        assert list(models_by_step(run)) == [2, 5]
    assert "checkpoint-4 is left out: model.safetensors is damaged" in caplog.text


def test_a_folder_without_a_run_is_refused(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        replay_grid(tmp_path)
    for part in ("checkpoint-2", "checkpoint-4", "checkpoint-5", "model"):
        shutil.rmtree(run / part)
    with pytest.raises(FileNotFoundError, match="neither a whole checkpoint nor a finished model"):
        replay_grid(run)


def test_a_run_from_another_encoder_than_its_config_names_is_refused(made, tmp_path):
    tiny_encoder(layers=2).save(tmp_path / "other")
    config = TrainConfig.read(made / "run" / "train_config.json")
    config = dataclasses.replace(config, backbone=str(tmp_path / "other"), out=str(tmp_path / "run"))
    train_encoder(Encoder.load(made / "backbone"), load_texts(config.data), config)
    with pytest.raises(ValueError, match=f"of 2 layers and {DIM} dims, and its models have {LAYERS} and {DIM}: it was"):
        replay_grid(tmp_path / "run", [str(made / "scored.csv")])


def test_wrong_cells_are_refused_before_anything_is_scored(made):
    with pytest.raises(ValueError, match="dim 33 is out of range"):
        replay_grid(made / "run", [str(made / "scored.csv")], dims=[DIM + 1])


def test_step_0_has_the_coordinates_in_the_order_of_the_run(made, tmp_path):
    settings = TrainConfig.read(made / "run" / "train_config.json").to_dict()
    config = TrainConfig(**settings | {"out": str(tmp_path / "run"), "order_dims": True, "lr": 1e-12, "steps": 2})
    train_encoder(Encoder.load(made / "backbone"), load_texts(config.data), config)
    grid = replay_grid(tmp_path / "run", [str(made / "scored.csv")], dims=[4]).set_index(["step", "layer"])["spearman"]
    np.testing.assert_allclose(grid[0], grid[2], atol=0.1)
    plain = replay_grid(made / "run", [str(made / "scored.csv")], dims=[4]).set_index(["step", "layer"])["spearman"]
    assert abs(plain[0] - grid[0]).max() > 1
