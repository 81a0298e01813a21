"""GridEvaluator: the grid of a SentenceTransformer is that of the same model as an Encoder."""

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import tiny_encoder

from twodmse.data.sets import TextSet
from twodmse.evaluation.grid import pairs_grid

pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import SentenceEvaluator, SequentialEvaluator

from twodmse.sentence_transformers import GridEvaluator


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return SentenceTransformer(str(tiny_encoder().save(tmp_path_factory.mktemp("evaluator") / "model")), device="cpu")


def test_the_whole_grid_is_that_of_our_encoder(model, pairs, tmp_path):
    evaluator = GridEvaluator([pairs])
    assert isinstance(evaluator, SentenceEvaluator)
    passes = []
    hook = model.register_forward_pre_hook(lambda _, args: passes.append(len(args[0]["input_ids"])))
    metrics = evaluator(model, str(tmp_path), epoch=0.5, steps=7)
    hook.remove()
    assert sum(passes) == 80  # each text once, for all cells
    wanted = pairs_grid(tiny_encoder(), pairs, [8, 16, 32], [1, 2, 3, 4], resamples=0)
    found = {
        (row.layer, row.dim): metrics[f"grid_tiny-pairs_layer{row.layer}_dim{row.dim}"] for row in wanted.itertuples()
    }
    assert list(found.values()) == pytest.approx(wanted["spearman"].tolist(), abs=1e-3)
    assert evaluator.primary_metric == "grid_mean"
    assert metrics["grid_mean"] == pytest.approx(wanted["spearman"].mean(), abs=1e-3)
    assert len(metrics) == 13

    evaluator(model, str(tmp_path), epoch=1.0, steps=14)
    table = pd.read_csv(tmp_path / "grid_evaluation_results.csv")
    assert table["step"].tolist() == [7] * 12 + [14] * 12
    assert list(table.columns) == ["epoch", "step", *wanted.columns]


def test_some_cells_of_two_tasks(model, pairs):
    evaluator = GridEvaluator([pairs, "mini-sts-validation"], [(2, 8), (0, 5), (4, 32)], name="")
    metrics = evaluator(model)
    cells = ["layer0_dim5", "layer2_dim8", "layer4_dim32"]
    wanted = [f"{task}_{cell}" for task in ("tiny-pairs", "mini-sts-validation") for cell in cells]
    assert list(metrics) == [*wanted, "mean"]
    assert metrics["mean"] == pytest.approx(sum(metrics[name] for name in wanted) / 6)
    assert SequentialEvaluator([evaluator])(model)["mean"] == metrics["mean"]


def test_a_default_prompt_is_put_before_every_text(model, pairs):
    plain = GridEvaluator([pairs], [(4, 32)])(model)
    model.prompts, model.default_prompt_name = {"said": "a red house "}, "said"
    try:
        prompted = GridEvaluator([pairs], [(4, 32)])(model)
    finally:
        model.prompts, model.default_prompt_name = {}, None
    assert prompted != plain


def test_what_cannot_be_scored_is_refused(model, pairs):
    for cell in [(5, 8), (4, 33), (1, 0), (-1, 8)]:
        with pytest.raises(ValueError, match=r"is out of range: this model has layers 0\.\.4 and dims 1\.\.32"):
            GridEvaluator([pairs], [cell])(model)
    with pytest.raises(ValueError, match="same name"):
        GridEvaluator([pairs, pairs])
    with pytest.raises(ValueError, match="no tasks given"):
        GridEvaluator([])
    with pytest.raises(ValueError, match="scores are all 3"):
        GridEvaluator([TextSet("same", pairs.columns, 0 * pairs.gold + 3)])


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[1] / "examples" / "sentence_transformers_trainer.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--steps", "2", "--out", str(tmp_path / "run")])
    runpy.run_path(str(script), run_name="__main__")
    shown = capsys.readouterr().out
    assert "before: mean" in shown
    assert "vectors of shape (2, 64)" in shown
    assert (tmp_path / "run" / "eval" / "grid_evaluation_results.csv").is_file()
    assert "CellsLoss" in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.parametrize("size", [-1, 0, 2.5])
def test_a_batch_that_holds_nothing_is_refused(pairs, size):
    with pytest.raises(ValueError, match=r"batch_size is .*: give a whole number from 1 up"):
        GridEvaluator([pairs], batch_size=size)


def test_tasks_are_those_of_sts_grid(pairs, scored):
    assert list(GridEvaluator(["mini-sts-validation", scored]).sets) == ["mini-sts-validation", scored.stem]
    frame = pd.DataFrame({"sentence1": pairs.columns[0], "sentence2": pairs.columns[1], "score": pairs.gold})
    assert len(GridEvaluator([pairs, frame]).sets) == 2
    assert list(GridEvaluator("mini-sts").sets) == ["mini-sts"]
    assert list(GridEvaluator(pairs).sets) == ["tiny-pairs"]
    with pytest.raises(ValueError, match="score"):
        GridEvaluator([TextSet("unscored", pairs.columns)])


@pytest.mark.parametrize("cells", [[], 5, (1, 8), [(1.9, 8.5)], [(1,)], [("1", "8")]])
def test_what_is_no_list_of_cells_is_refused(pairs, cells):
    with pytest.raises(ValueError, match=r"cells is .*: give a list of layers and dims, such as \[\(2, 64\)"):
        GridEvaluator([pairs], cells)


def test_modules_held_in_evaluation_stay_so(model, pairs):
    model.train()
    model[0].auto_model.embeddings.eval()
    modes = [module.training for module in model.modules()]
    GridEvaluator([pairs], [(1, 8)])(model)
    assert [module.training for module in model.modules()] == modes
