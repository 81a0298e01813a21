"""A cell without a score on one task has no mean: not in a table, a picture, a choice or a card."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from conftest import DIM, LAYERS, run_app, tiny_encoder
from matplotlib import pyplot as plt

from twodmse import plots
from twodmse.data.sets import TextSet
from twodmse.efficiency.costs import best_cell, cell_costs
from twodmse.evaluation.records import check_grid_table, read_grid_json, read_grid_table
from twodmse.export.exporting import export
from twodmse.export.scores import check_grid_fits
from twodmse.plots.grids import by_cell, common_scale, interval
from twodmse.training.validation import cell_evaluator
from twodmse.widgets import Replay

NAN = math.nan
ROWS = [("a", 1, 8, NAN), ("b", 1, 8, 90.0), ("a", 2, 8, 10.0), ("b", 2, 8, 20.0)]
GRID = pd.DataFrame(ROWS, columns=["task", "layer", "dim", "spearman"])
COSTS = pd.DataFrame({"layer": [1, 2], "one_text_ms": [1.0, 2.0], "ratio": [0.5, 1.0]})


def test_pictures_show_no_mean_of_the_other_tasks():
    cells = by_cell(GRID, "spearman")
    assert math.isnan(cells.loc[1, 8])
    assert cells.loc[2, 8] == 15
    assert common_scale({"m": GRID}) == (15, 15)
    assert math.isnan(interval(GRID, "layer")["spearman"][1])
    ax = plots.heatmap(GRID, plt.figure().gca(), "two tasks")
    assert [text.get_text() for text in ax.texts] == ["15.0"]
    plt.close("all")


def test_the_cell_without_a_score_is_never_the_best():
    assert math.isnan(cell_costs(GRID, COSTS).set_index("layer")["spearman"][1])
    assert best_cell(GRID, COSTS)[:2] == (2, 8)
    with pytest.raises(ValueError, match="no cell of the grid has a score on every task"):
        best_cell(GRID.assign(spearman=[NAN, 1, NAN, 1]), COSTS)


@pytest.mark.parametrize("limits", [{"max_ms": "5"}, {"min_spearman": "5"}])
def test_limits_are_numbers(limits):
    with pytest.raises(ValueError, match=r"is '5': it must be a number"):
        best_cell(GRID, COSTS, **limits)


def test_pick_says_that_no_cell_has_a_score(model, tmp_path):
    (tmp_path / "same.csv").write_text(
        "sentence1,sentence2,score\n" + "".join(f"a dog {i},a dog {i},{i}\n" for i in range(9))
    )
    done = run_app("pick", model, "--tasks", tmp_path / "same.csv")
    assert done.exit_code == 1
    assert "no cell of the grid has a score on every task" in done.output


def test_a_replay_of_a_missing_score_is_refused():
    grids = GRID.assign(step=1)
    with pytest.raises(ValueError, match=r"step 1 has no score \(NaN\) at layer 1, dim 8"):
        Replay(grids, pd.DataFrame({"step": [1], "loss": [1.0], "last_full": [1.0]}))


def test_the_best_model_is_not_told_by_the_cells_that_have_a_score(monkeypatch):
    grid = pd.DataFrame({"layer": [1, 2], "dim": [8, 8], "spearman": [NAN, 50.0]})
    monkeypatch.setattr("twodmse.training.validation.pairs_grid", lambda *args, **kwargs: grid)
    pairs = TextSet("t", (("a", "b"), ("c", "d")), np.arange(2.0))
    scores = cell_evaluator(pairs, tiny_encoder(), [(1, 8), (2, 8)])(tiny_encoder())
    assert math.isnan(scores["spearman"])
    assert scores["spearman_2_8"] == 50


def whole_grid():
    rows = [("t", layer, dim, 1.0, 0.0, 2.0, 9) for layer in range(1, LAYERS + 1) for dim in (8, DIM)]
    return pd.DataFrame(rows, columns=["task", "layer", "dim", "spearman", "low", "high", "n"])


def test_a_card_shows_no_mean_of_the_other_tasks(tmp_path):
    grid = pd.concat([whole_grid(), whole_grid().assign(task="u", spearman=[NAN, *[5.0] * 7])])
    export(tiny_encoder(), tmp_path / "cell", 2, 8, grid=grid)
    lines = [line for line in (tmp_path / "cell" / "README.md").read_text().splitlines() if line.startswith("| ")]
    assert "| 1 |  | 3.00 |" in lines
    assert "| 2 | **3.00** | 3.00 |" in lines


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda grid: pd.concat([grid, grid[:1].assign(spearman=99)]), "layer 1, dim 8 of t twice"),
        (lambda grid: grid.assign(spearman=500.0), "the Spearman 500.0: it must be a number from -100 to 100"),
        (lambda grid: grid.assign(spearman="12"), "the Spearman '12'"),
    ],
)
def test_a_grid_that_was_edited_wrongly_makes_no_card(change, says):
    with pytest.raises(ValueError, match=says):
        check_grid_fits(change(whole_grid()), LAYERS, DIM)


@pytest.mark.parametrize(
    ("name", "value"), [("spearman", 900.0), ("spearman", "12"), ("layer", -1), ("dim", 0), ("n", -5)]
)
def test_a_number_that_is_none_is_named(name, value):
    with pytest.raises(ValueError, match=f"this grid has {name} {value!r}, which is no {name} of a cell"):
        check_grid_table(whole_grid()[:1].assign(**{name: value}))


def test_a_stored_grid_that_was_edited_is_damaged(model, scored):
    assert run_app("grid", model, "--tasks", scored, "--save").exit_code == 0
    path = model / "grid.json"
    facts = json.loads(path.read_text())
    facts["cells"][0]["spearman"] = "12"
    path.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="damaged"):
        read_grid_json(model)


def test_a_score_of_exactly_nothing_is_a_score(tmp_path):
    whole_grid().assign(spearman=0.0).to_parquet(tmp_path / "grid.parquet")
    assert (read_grid_table(tmp_path / "grid.parquet")["spearman"] == 0).all()
    whole_grid().assign(spearman=np.nan).to_csv(tmp_path / "grid.csv", index=False)
    assert read_grid_table(tmp_path / "grid.csv")["spearman"].isna().all()
