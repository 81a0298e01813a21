"""--resume goes on with a run of its own and nothing else, and only from checkpoints that hold what they should."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_encoder

from twodmse import Encoder, TrainConfig
from twodmse.data.sets import TextSet
from twodmse.training.checkpoints import fault, keep_newest, mark_complete
from twodmse.training.folders import held
from twodmse.training.runs import train_encoder

SETTINGS = {"steps": 4, "batch_size": 4, "precision": "fp32", "save_every": 2, "dims": (8,), "recipe": "mrl"}


def config_of(folder, **changes):
    return TrainConfig(**SETTINGS | {"out": folder} | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run and its data."""
    rows = [f"{a} {b}" for a in ("red", "blue", "big", "small") for b in ("man", "dog", "cat", "park")]
    texts = TextSet("rows", (tuple(rows[:8]), tuple(rows[8:])))
    folder = tmp_path_factory.mktemp("made") / "run"
    train_encoder(tiny_encoder(layers=2), texts, config_of(folder))
    return folder, texts


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def resume(folder, texts, **changes):
    return train_encoder(tiny_encoder(layers=2), texts, config_of(folder, **changes), resume=True)


def test_that_there_is_nothing_to_go_on_with_is_said(made, tmp_path, caplog):
    assert len(resume(tmp_path / "new", made[1]).history) == 4
    assert caplog.text.count("holds nothing to go on with: the run begins there") == 1


def test_a_finished_run_resumed_changes_nothing(made, run):
    (run / "model" / "notes.txt").write_text("mine")
    before = contents(run)
    again = resume(run, made[1], keep=5)
    assert contents(run) == before
    assert len(again.history) == 4
    np.testing.assert_array_equal(again.encoder.states(["red dog"]).shape, (3, 1, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: {"lr": 1e-3}, "other settings .lr: "),
        (lambda run: {"steps": 8}, r"steps: 4 -> 8.*--backbone"),
        (lambda run: (run / "train_config.json").write_text("[]") and {}, r"train_config\.json is"),
        (lambda run: (run / "train_config.json").unlink() or {}, "holds no run to resume: there is checkpoint-2"),
        (lambda run: (run / "run.json").write_text("{}") and {}, "other data"),
        (lambda run: (run / "run.json").unlink() or {}, r"has no run\.json.*another --out"),
        (lambda run: (run / "run.json").write_text('{"a": 1}') and {}, r"run\.json"),
        (lambda run: [shutil.rmtree(p) for p in run.glob("checkpoint-*")] and {}, "finished and its checkpoints are"),
    ],
)
def test_what_is_not_this_run_is_refused_untouched(made, run, change, message):
    changes = change(run)
    before = contents(run)
    with pytest.raises((ValueError, FileExistsError), match=message):
        resume(run, made[1], **changes)
    assert contents(run) == before


@pytest.mark.parametrize("name", ["model", "best"])
def test_what_a_user_put_into_a_model_of_an_unfinished_run_is_refused_before_the_work(made, run, name):
    (run / "model").rename(run / name)
    (run / name / "train_config.json").unlink()
    (run / name / "drafts").mkdir()
    (run / name / "drafts" / "notes.txt").write_text("mine")
    before = contents(run)
    with pytest.raises(FileExistsError, match=r"holds drafts/notes\.txt, .*move it, or choose another folder"):
        resume(run, made[1])
    assert contents(run) == before


@pytest.mark.parametrize("left", [["run.json"], ["run.json", "dims_order.json", ".train_config-0a1b2c3d.json"]])
def test_a_run_killed_as_it_began_begins_anew(made, tmp_path, left):
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_text("")
    changes = {"steps": 1, "order_dims": True}
    assert resume(tmp_path / "run", made[1], **changes).folder == tmp_path / "run"


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_user_put_into_a_checkpoint_stays_when_it_goes(run, whole):
    checkpoint = run / "checkpoint-2"
    (checkpoint / "notes.txt").write_text("mine")
    if not whole:
        (checkpoint / "complete.json").unlink()
    keep_newest(run, 1)
    assert list(contents(checkpoint).values()) == [b"mine"]
    keep_newest(run, 1)
    assert [p.parent.name for p in run.glob("checkpoint-*/optimizer.pt")] == ["checkpoint-4"]


def test_what_a_user_put_where_a_checkpoint_is_written_anew_stays_too(made, run):
    shutil.rmtree(run / "model")
    for name in ("complete.json", "model.safetensors"):
        (run / "checkpoint-4" / name).unlink()
    (run / "checkpoint-4" / "notes.txt").write_text("mine")
    resume(run, made[1], keep=1)
    assert (run / "checkpoint-4" / "notes.txt").read_text() == "mine"
    assert fault(run / "checkpoint-4", tiny_encoder(layers=2).backbone) is None
    assert "notes.txt" not in json.loads((run / "checkpoint-4" / "complete.json").read_text())


def test_other_data_are_refused(made, run):
    other = TextSet("rows", (made[1].columns[0], made[1].columns[1][::-1]))
    with pytest.raises(ValueError, match="other data than the 8 rows of rows"):
        resume(run, other)


def test_a_folder_that_is_no_run_stays_as_it_is(made, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    (tmp_path / "dims_order.json").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"no run to resume: there is dims_order\.json, model"):
        resume(tmp_path, made[1])
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileExistsError, match=r"no run to resume: there is dims_order\.json, but"):
        resume(tmp_path, made[1])
    assert before.items() >= contents(tmp_path).items() == {Path("dims_order.json"): b"mine"}.items()


@pytest.mark.parametrize("content", ["null", "{}", "[1, 0]", "[NaN]", "[[0]]", "[0.5]", "", "REVERSED", None])
def test_a_wrong_order_of_dims_is_refused(made, tmp_path, content):
    folder, changes = tmp_path / "ordered", {"order_dims": True, "steps": 1}
    train_encoder(tiny_encoder(layers=2), made[1], config_of(folder, **changes, save_every=1))
    shutil.rmtree(folder / "model")  # as if killed before its end
    path = folder / "dims_order.json"
    order = json.loads(path.read_text())
    path.unlink() if content is None else path.write_text(json.dumps(order[::-1]) if content == "REVERSED" else content)
    with pytest.raises(ValueError, match=r"dims_order\.json"):
        resume(folder, made[1], **changes)


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"a": 1}', f'{{"a": "{"0" * 64}"}}'])
def test_a_wrong_list_of_files_is_a_damaged_checkpoint(run, content):
    assert fault(run / "checkpoint-4") is None
    (run / "checkpoint-4" / "complete.json").write_text(content)
    assert "its list of files" in fault(run / "checkpoint-4")


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a file was run')",))


WRONG = [[1, 2], {"state": {}, "param_groups": []}, torch.zeros(3), Hostile(), {}]


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_holds_something_else_is_not_used(run, name):
    for wrong in WRONG:
        torch.save(wrong, run / "checkpoint-4" / name)
        mark_complete(run / "checkpoint-4")
        reason = fault(run / "checkpoint-4", tiny_encoder(layers=2).backbone)
        assert reason == f"{name} holds something else than it should"


def test_the_state_of_another_step_or_the_moments_of_another_model_are_not_used(made, run, caplog):
    backbone = tiny_encoder(layers=2).backbone
    assert fault(run / "checkpoint-4", backbone) is None
    assert "optimizer.pt" in fault(run / "checkpoint-4", tiny_encoder(layers=3).backbone)
    shutil.copy(run / "checkpoint-2" / "trainer_state.json", run / "checkpoint-4")
    mark_complete(run / "checkpoint-4")
    assert "trainer_state.json" in fault(run / "checkpoint-4", backbone)
    shutil.rmtree(run / "model")
    history = resume(run, made[1]).history
    assert caplog.text.count("is not used") == 1
    assert history["step"].tolist() == [1, 2, 3, 4]
    assert fault(run / "checkpoint-4", backbone) is None  # written anew


def test_a_new_checkpoint_does_not_go_to_keep_damaged_ones_of_later_steps(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    keep_newest(tmp_path, 2, newest=2)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_run_that_fails_before_its_first_step_leaves_nothing(made, tmp_path, monkeypatch):
    monkeypatch.setattr("twodmse.training.trainer.CellTrainer.train", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_encoder(tiny_encoder(layers=2), made[1], config_of(tmp_path / "a" / "run"))
    assert list(tmp_path.iterdir()) == []


def test_of_two_runs_with_one_folder_the_second_is_refused(made, tmp_path):
    config = config_of(tmp_path / "run")
    with held(tmp_path / "run", config, made[1], resume=False), pytest.raises(FileExistsError, match="another process"):
        train_encoder(tiny_encoder(layers=2), made[1], config)


def test_nothing_to_train_is_refused(made, tmp_path):
    changes = {"recipe": "2dmse", "last_layer": False, "alignment": False, "shallow_weight": 0}
    with pytest.raises(ValueError, match="no layer is left to train"):
        train_encoder(tiny_encoder(layers=2), made[1], config_of(tmp_path / "run", **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_stored_as_null_is_none(tmp_path):
    folder = tiny_encoder().save(tmp_path / "model")
    path = folder / "config_sentence_transformers.json"
    settings = json.loads(path.read_text()) | {"prompts": {"q": "big house ", "n": None}, "default_prompt_name": "q"}
    path.write_text(json.dumps(settings))
    encoder = Encoder.load(folder)
    np.testing.assert_array_equal(encoder.encode(["a dog"], prompt_name="n"), encoder.encode(["a dog"], prompt=""))
    assert abs(encoder.encode(["a dog"]) - encoder.encode(["a dog"], prompt="")).max() > 1e-3
