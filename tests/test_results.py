"""What is read off the study's tables, on tables small enough to work out by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from conftest import sentences, tiny_encoder

from twodmse.data.sets import TextSet
from twodmse.evaluation.grid import sts_grid
from twodmse.plots.palette import BLUE, ORANGE
from twodmse.study import claims, pictures
from twodmse.study.beyond.averages import tries
from twodmse.study.beyond.base_loss import base_loss, base_loss_curves
from twodmse.study.beyond.scoring import scored_both, scoring
from twodmse.study.figures import PICTURES
from twodmse.study.plans import ABLATIONS, PLANS, chosen_rates
from twodmse.study.results import MEAN_DIMS, Study, curve_points, dominated, falls
from twodmse.study.tables import read, stored_tables, table_path

LAYERS, TASKS, RESAMPLES = 6, ("one", "two"), 50
PLAN = PLANS["minilm"]
LEVEL = {"untouched": 10.0, "full": 12.0, "mrl": 13.0, "2dmse": 20.0, "grid": 30.0, "st2d": 25.0, "independent": 21.0}


def level(model, seed, layer, dim):
    """A score that is easy to add up: the model's level, a tenth a seed, the layer, and 1 at full width."""
    base = LEVEL.get(model, LEVEL["independent"] if model.startswith("independent") else 15.0)
    return base + seed / 10 + layer + (dim == 384)


def write_study(folder, models, seeds=(0, 1)):
    """The tables of a study of these models, whose draws are the scores plus one noise for all models."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).normal(size=RESAMPLES)
    runs, cells, draws, kl = [], [], [], []
    for model in models:
        depth = int(model[-1]) if model.startswith("independent") else None
        layers = [depth] if depth else range(1, LAYERS + 1)
        for seed in seeds:
            facts = {"run": f"{model}-s{seed}", "model": model, "seed": seed}
            runs.append(facts | {"steps": 517, "batch_size": 64, "seconds": 1034.0, "threads": 1, "device": "a device"})
            for n in layers:
                for k, task in enumerate(TASKS):
                    for d in PLAN.dims:
                        cells.append(facts | {"task": task, "layer": n, "dim": d,
                                              "spearman": level(model, seed, n, d) + (-1) ** k})  # fmt: skip
                mean = np.mean([level(model, seed, n, d) for d in MEAN_DIMS])
                for name, value in ((f"layer {n}", mean), (f"cell {n} 384", level(model, seed, n, 384))):
                    draws.append(facts | {"mean": name} | {f"draw_{r}": value + noise[r] for r in range(RESAMPLES)})
                kl.append(facts | {"layer": n, "kl": LAYERS - n, "entropy_last": 5.9, "score_kl": LAYERS - n})
    for name, rows in {"runs": runs, "cells": cells, "draws": draws, "kl": kl}.items():
        pd.DataFrame(rows).to_csv(table_path(folder, f"study_{name}"), index=False)
    summary = [
        {"run": r["run"], "model": model, "seed": seed, "lr": 0.0 if model == "untouched" else 4e-4, "split": split,
         "below": level(model, seed, 3, 16), "last": level(model, seed, 6, 16), "full": level(model, seed, 6, 384)}
        for r in runs for model, seed in [(r["model"], r["seed"])] if "," not in model
        for split in ("test", "validation")
    ]  # fmt: skip
    pd.DataFrame(summary).to_csv(folder / "study_summary.csv", index=False)
    costs = pd.DataFrame({"layer": range(1, LAYERS + 1), "one_text_ms": range(1, LAYERS + 1)})
    ratio, speed = costs["layer"] / LAYERS, 600 / costs["layer"]
    costs = costs.assign(ratio=ratio, texts_per_second=speed, one_text_spread=0.1, machine="a machine")
    costs.to_csv(folder / "costs.csv", index=False)
    sweep = pd.DataFrame({"model": ["full", "full"], "lr": [5e-5, 4e-4], "spearman": [1.5, 2.5]})
    sweep.to_csv(folder / "study_sweep.csv", index=False)
    return folder


@pytest.fixture
def data(tmp_path):
    models = [*LEVEL, *ABLATIONS, *(f"independent {n}" for n in range(1, LAYERS))]
    return write_study(tmp_path / "data", [m for m in models if m != "independent"])


def test_scores_are_means_over_tasks_cells_and_seeds(data):
    study = Study.read(data)
    assert (study.depth, study.width, list(study.below)) == (6, 384, [1, 2, 3, 4, 5])
    assert study.score("2dmse", [3], [16]) == pytest.approx(20 + 0.05 + 3)
    assert study.score("2dmse", [1, 3], [16, 384]) == pytest.approx(20 + 0.05 + 2 + 0.5)
    assert study.score("independent", [2, 4], [16]) == pytest.approx(21 + 0.05 + 3)
    assert study.seeds("2dmse") == study.seeds("independent") == 2
    assert study.has("2dmse", "independent")
    assert not study.has("ese")


def test_a_line_has_the_seeds_as_its_ends(data):
    line = Study.read(data).line("2dmse", "layer", [2, 3], [16]).set_index("layer")
    assert line.loc[3, ["low", "spearman", "high"]].tolist() == pytest.approx([23.0, 23.05, 23.1])
    assert line.index.tolist() == [2, 3]
    over = Study.read(data).line("2dmse", "dim", [3], [16, 384]).set_index("dim")
    assert over["spearman"].tolist() == pytest.approx([23.05, 24.05])


def test_one_seed_gives_no_band(tmp_path):
    study = Study.read(write_study(tmp_path, ["2dmse"], seeds=(0,)))
    assert study.line("2dmse", "layer", [1], [16])[["low", "high"]].isna().all(axis=None)


def test_noise_that_two_models_share_cancels(data):
    found = Study.read(data).difference("full", "2dmse", range(1, 6))
    assert found["difference"] == pytest.approx(8.0)
    assert [found["low"], found["high"]] == pytest.approx([8.0, 8.0])
    assert Study.read(data).difference("full", "2dmse", [6], whole=True)["difference"] == pytest.approx(8.0)
    alone = Study.read(data).resampled("2dmse", [3])
    assert alone.std() > 0.5


def test_seeds_are_compared_one_by_one_where_both_models_have_them(data):
    cells = pd.read_csv(data / "study_cells.csv.gz")
    cells.loc[(cells["model"] == "2dmse") & (cells["seed"] == 1), "spearman"] += 3
    lacking = (cells["model"] == "independent 4") & (cells["seed"] == 1)
    untrained = (cells["model"] == "untouched") & (cells["seed"] == 1)
    cells[~lacking & ~untrained].to_csv(data / "study_cells.csv.gz", index=False)
    study = Study.read(data)

    def gaps(*places, **more):
        return study.seed_pairs(*places, **more).eval("second - first").tolist()

    assert gaps("full", "2dmse", [1, 2]) == pytest.approx([8.0, 11.0])
    assert gaps("independent", "2dmse", [1, 2]) == pytest.approx([-1.0, 2.0])
    assert gaps("independent", "2dmse", range(1, 6)) == pytest.approx([-1.0])  # not of all depths
    assert gaps("untouched", "2dmse", [6], whole=True) == pytest.approx([10.0, 13.1])


def test_a_seed_that_one_model_lacks_does_not_move_a_difference(data):
    runs, draws = pd.read_csv(data / "study_runs.csv"), pd.read_csv(data / "study_draws.csv.gz")
    runs[runs["run"] != "full-s1"].to_csv(data / "study_runs.csv", index=False)
    numbers = [name for name in draws if name.startswith("draw_")]
    draws.loc[draws["run"] == "2dmse-s1", numbers] += 100
    draws.to_csv(data / "study_draws.csv.gz", index=False)
    found = Study.read(data).difference("full", "2dmse", range(1, 6))
    assert [found[name] for name in ("difference", "low", "high")] == pytest.approx([8.0, 8.0, 8.0])


def test_runs_that_did_not_end_do_not_count(data):
    runs = pd.read_csv(data / "study_runs.csv")
    runs[runs["run"] != "2dmse-s1"].to_csv(data / "study_runs.csv", index=False)
    assert Study.read(data).score("2dmse", [3], [16]) == pytest.approx(23.0)


def test_falls_by_hand():
    grid = pd.DataFrame({"layer": [1, 1, 1, 2, 2, 2], "dim": [8, 16, 32] * 2, "spearman": [1.0, 3, 2.5, 1, 2, 3]})
    assert falls(grid).to_dict("records") == [{"layer": 1, "dim": 32, "fall": 0.5}]


def test_verdicts():
    assert claims.verdict(0.1, 0.5) == "holds"
    assert claims.verdict(-0.5, -0.1) == "does not hold"
    assert claims.verdict(-0.1, 0.1) == "open"
    assert claims.verdict(0.1, 0.5, 0.4, -0.1) == "open"  # one seed says otherwise
    assert claims.verdict(-0.5, -0.1, -0.4, 0.1) == "open"
    assert claims.verdict(0.1, 0.5, 0.4, 0.2) == "holds"


def test_every_claim_gets_its_numbers_and_verdict(data):
    rows = {claim.words: claim.row(Study.read(data)) for claim in claims.CLAIMS}
    lifted = rows["2DMSE lifts the layers below the last"]
    assert (lifted["first"], lifted["second"]) == ("`untouched` 13.22", "`2dmse` 23.22")
    assert lifted["difference"] == "+10.00 (+10.00 to +10.00)"
    assert lifted["seed by seed"] == "+9.95, +10.05"  # the untouched's mean counts for every seed
    assert lifted["verdict"] == "holds"
    assert rows["Scaled-down models beat independently trained ones"]["verdict"] == "does not hold"
    assert rows["The weights by depth of the authors' second version help"]["verdict"] == "not tested here"
    table = claims.claims(data)
    assert len(table.splitlines()) == 2 + len(claims.CLAIMS)


def test_the_other_blocks(data):
    assert "`grid` is above `st2d` in 30 of the 30 cells" in claims.every_cell(data)
    assert "lead is 5.00" in claims.every_cell(data)
    assert "- `2dmse`: of 54 steps from one dim to the next, those that fall: none." in claims.rises(data)
    assert "6.00" in claims.speed(data)
    assert "a machine" in claims.speed(data)
    assert "| full | 1.50 | 2.50 |" in claims.sweep(data)
    assert "`ese` 0 of 1" in claims.coverage(data)
    assert "`grid` 2 of 3" in claims.coverage(data)
    assert "| 6 | 17.05 | 19.05 |" in claims.real(data)
    assert "means over seeds (full 2, mrl 2, 2dmse 2, st2d 2, grid 2)" in claims.real(data)
    assert "is 0.15 TFLOP and took 2.0 s (75 GFLOP/s, threads: 1, a device" in claims.paper_plan(data)


def test_the_scores_of_one_model_in_either_precision_are_set_side_by_side(data, tmp_path):
    assert "not tested here" in scoring(data)
    encoder = tiny_encoder()
    column = sentences(40)
    pairs = TextSet("mine", (tuple(column[:20]), tuple(column[20:])), np.arange(20.0))
    table = scored_both(encoder, (pairs,), (8, 32))
    np.testing.assert_allclose(table["float32"], sts_grid(encoder, [pairs], (8, 32), resamples=0)["spearman"])
    assert 0 < (table["bfloat16"] - table["float32"]).abs().max() < 10
    table = table.assign(float32=1.0, bfloat16=[1.25, 1.0, *[1.0] * 5, 0.5], run="a")
    table.to_csv(tmp_path / "study_scoring.csv", index=False)
    assert "in 8 cells the score in bfloat16 is -0.500 to +0.250 from that in float32, -0.031" in scoring(tmp_path)


def test_precisions_are_told_apart_on_one_seed(data, tmp_path):
    assert "not tested here" in claims.precision(data)
    words = claims.precision(write_study(tmp_path / "both", ["2dmse", "2dmse, float32"]))
    assert "cell (6, 384): 22.00 and 27.00." in words
    assert "layers 1 to 5, mean of the dims: 18.17 and 23.17; layer 6" in words


@pytest.mark.parametrize("model", ["st2d", "grid"])
def test_without_both_runs_every_cell_says_so(model, tmp_path):
    assert "not tested here" in claims.every_cell(write_study(tmp_path, [model]))


def test_a_model_looks_the_same_in_every_picture(data):
    looks = {}
    for draw in (pictures.study_layers, pictures.study_dims, pictures.study_independent, pictures.study_kl):
        figure = draw(data)
        for line in (line for ax in figure.axes for line in ax.get_lines()):
            look = (line.get_color(), line.get_marker())
            assert looks.setdefault(line.get_label().split(" (")[0], look) == look
        pictures.plt.close(figure)
    assert len(set(looks.values())) == len(looks) == 8


@pytest.mark.parametrize("models", [["untouched", "grid", "2dmse"], None], ids=["part", "whole"])
def test_every_picture_of_the_study_draws_what_is_there(models, data, tmp_path):
    folder = data if models is None else write_study(tmp_path / "part", models)
    drawn = [p for p in PICTURES if p.draw.__module__ == pictures.__name__]
    assert len(drawn) == 10
    for picture in drawn:
        assert picture.ready(folder) == (picture.name not in ("study_ablation", "published_grids") or models is None)
        if not picture.ready(folder):
            continue
        figure = picture.draw(folder)
        assert all(ax.has_data() or not ax.axison for ax in figure.axes)
        pictures.plt.close(figure)


def test_a_curve_has_one_point_a_rate_and_seed_and_independent_models_are_one(data):
    points = curve_points(data).set_index(["model", "lr", "seed"])
    assert points.loc[("2dmse", 4e-4, 1), "below"] == level("2dmse", 1, 3, 16)
    assert points.loc[("2dmse", 4e-4, 1), "validation_full"] == level("2dmse", 1, 6, 384)
    assert points.loc[("untouched", 0, 0), "full"] == level("untouched", 0, 6, 384)
    assert len(points.loc["independent"]) == 2
    rows = pd.read_csv(data / "study_summary.csv")
    rows[rows["run"] != "independent 4-s1"].to_csv(data / "study_summary.csv", index=False)
    left = curve_points(data).query("model == 'independent'")  # the mean of four depths is that of other layers
    assert left["seed"].tolist() == [0]
    assert not any("," in model for model in points.index.get_level_values("model"))


def test_a_point_is_dominated_only_by_one_that_is_higher_in_both():
    points = pd.DataFrame({"below": [1.0, 3.0, 2.0], "full": [1.0, 1.0, 3.0]})
    assert dominated(points, pd.DataFrame({"below": [2.0], "full": [2.0]})).tolist() == [True, False, False]


def test_validation_picks_a_rate_for_the_top_and_one_for_below():
    rows = [("a", 0, 1e-4, 50, 80), ("a", 0, 2e-4, 60, 79), ("a", 0, 4e-4, 55, 78), ("a", 1, 8e-4, 99, 99)]
    summary = pd.DataFrame(rows, columns=["model", "seed", "lr", "below", "full"]).assign(split="validation")
    better_on_test = summary.assign(split="test", below=summary["below"].iloc[::-1].to_numpy())
    assert chosen_rates(pd.concat([summary, better_on_test]), "a") == {"full": 1e-4, "below": 2e-4}


def test_a_whole_curve_gets_two_more_seeds_at_the_chosen_rates():
    plan = PLANS["curves"]
    curve = [trial for trial in plan.trials if trial.model == "grid"]
    rows = [(t.name, "grid", 0, t.settings["lr"], "validation", i, -i) for i, t in enumerate(curve)]
    summary = pd.DataFrame(rows, columns=["run", "model", "seed", "lr", "split", "below", "full"])
    lowest, highest = curve[0].settings["lr"], curve[-1].settings["lr"]
    wanted = {f"grid-lr{rate:g}-s{seed}" for rate in (lowest, highest) for seed in (1, 2)}
    assert {trial.name for trial in plan.repeats(summary)} == wanted
    assert plan.repeats(summary.iloc[1:]) == []
    stored = summary.iloc[[-1]].assign(run="grid-s1", seed=1, split="test")  # under another name
    left = wanted - {f"grid-lr{highest:g}-s1"}
    assert {trial.name for trial in plan.repeats(pd.concat([summary, stored]))} == left


def add_curves(folder, rises):
    """Points at every rate of the plan for these models: below rises by so much a rate and the full cell falls by 1."""
    parts = {name: [pd.read_csv(table_path(folder, f"study_{name}"))] for name in ("runs", "cells", "draws", "kl")}
    summary = [pd.read_csv(folder / "study_summary.csv")]
    for model, rise in rises.items():
        for i, rate in enumerate(sorted(t.settings["lr"] for t in PLANS["curves"].trials if t.model == model)):
            run = f"{model}-lr{rate:g}-s0"
            for name, tables in parts.items():
                rows = tables[0].query("model == @model and seed == 0").assign(run=run)
                change = np.where(rows["dim"] == 384, -i, rise * i) if name == "cells" else rise * i
                scores = [c for c in rows if c == "spearman" or c.startswith("draw_")]
                rows[scores] = rows[scores].add(change, axis=0)
                tables.append(rows.assign(lr=rate) if name == "runs" else rows)
            rows = summary[0].query("model == @model and seed == 0").assign(run=run, lr=rate)
            summary.append(rows.assign(below=rows["below"] + rise * i, full=rows["full"] - i))
    for name, tables in parts.items():
        pd.concat(tables).to_csv(table_path(folder, f"study_{name}"), index=False)
    summary[0] = summary[0].query("split == 'test'")  # the study's own runs have no validation scores
    pd.concat(summary).to_csv(folder / "study_summary.csv", index=False)


def test_claims_are_compared_at_both_choices_of_the_rate(data):
    assert claims.choices(data) == "No curve is whole yet: no claim is tested here."
    add_curves(data, {"full": 1, "2dmse": 3})
    top, below = Study.at_best(data, "full"), Study.at_best(data, "below")
    assert top.models == below.models == ["untouched", "full", "2dmse"]
    assert list(top.runs["run"]) == ["untouched-s0", "full-lr5e-05-s0", "2dmse-lr5e-05-s0"]
    assert top.score("2dmse", [3], [16]) == 20 + 3
    assert below.score("2dmse", [3], [16]) == 20 + 3 + 3 * 4
    text = claims.choices(data)
    further = next(line for line in text.splitlines() if "further than fine-tuning" in line)
    assert "| +8.00 (+8.00 to +8.00) holds | +" in further
    assert f"{8 + (5 * 2 * 4) / 6:+.2f} (+16.00 to +16.00) holds |" in further  # five of the six dims rise
    costs = next(line for line in text.splitlines() if "Training in two dimensions" in line)
    assert "+8.00 (+8.00 to +8.00) holds | +8.00" in costs
    assert text.count("not tested here | not tested here") == 11
    assert "Whole curves: `full`, `2dmse`. " in text
    picked = "5e-05* (1 seed) and 0.0008* (1 seed)"  # both at an end of the rates
    assert f"for the top and below: `full` {picked}; `2dmse` {picked}. At an end of the rates run (marked *)" in text
    runs = pd.read_csv(data / "study_runs.csv")
    second = runs["run"].eq("2dmse-s1")  # stored before the curve, at the rate that is best for the top
    runs.assign(lr=runs["lr"].mask(second, 5e-5)).to_csv(data / "study_runs.csv", index=False)
    assert list(Study.at_best(data, "full").runs["run"])[1:] == ["2dmse-s1", "full-lr5e-05-s0", "2dmse-lr5e-05-s0"]
    rows = pd.read_csv(data / "study_summary.csv")
    rows[rows["run"] != "full-lr0.0002-s0"].to_csv(data / "study_summary.csv", index=False)
    assert Study.at_best(data, "below").models == ["untouched", "2dmse"]


def test_claims_say_that_every_point_is_run(data, monkeypatch):
    stored = tuple(trial for trial in PLANS["curves"].trials if trial.model == "grid" and trial.settings["lr"] == 4e-4)
    monkeypatch.setitem(PLANS, "curves", dataclasses.replace(PLANS["curves"], trials=stored))
    text = claims.tradeoff(data)
    assert "All 1 points are run." in text
    assert "not run" not in text


def test_claims_say_which_points_are_not_run(data):
    text = claims.tradeoff(data)
    assert "| `grid` | not run | not run | not run | " in text
    assert "39 of the 45 points are not run yet" in text
    row = next(line for line in text.splitlines() if line.startswith("| `full` | 1 |"))
    columns = next(line for line in text.splitlines() if line.startswith("| recipe |")).split(" | ")
    assert row.split(" | ")[columns.index("`grid`")] == "1"  # its one rate has a point of `grid` above it


def test_curves_are_compared_with_grid_only_where_it_was_run(tmp_path):
    text = claims.tradeoff(write_study(tmp_path, ["untouched", "full"]))
    assert "| `grid` | not run | not run | not run | not run | not run |" in text
    assert "Which lies above which" not in text


def test_the_papers_base_loss_stands_beside_the_ranking_loss_seed_by_seed(tmp_path):
    rows = [("2dmse", 0.0002, 0, 60, 80), ("2dmse, AnglE", 0.0002, 0, 61, 79), ("full, AnglE", 0.0002, 1, 50, 81)]
    table = pd.DataFrame(rows, columns=["model", "lr", "seed", "below", "full"])
    table = pd.concat([table.assign(split="test"), table.assign(split="validation", below=1, full=1)])
    table.iloc[:1].to_csv(tmp_path / "study_summary.csv", index=False)
    assert base_loss(tmp_path).startswith("No run with AnglE's mix is stored: not tested here. 30 of the 30 runs")
    table.to_csv(tmp_path / "study_summary.csv", index=False)
    text = base_loss(tmp_path)
    assert "| `2dmse`, 0.0002, seed 0 | 60.00 / 80.00 | 61.00 / 79.00 |" in text
    assert "| `full`, 0.0002, seed 1 | not run | 50.00 / 81.00 |" in text
    assert text.endswith("28 of the 30 runs planned are not run.")


def add_mix(folder, less):
    """The points of curves once more, as runs with AnglE's mix that score so much less."""
    for name in ("runs", "cells", "draws", "kl", "summary"):
        table = pd.read_csv(table_path(folder, f"study_{name}"))
        rows = table[table["run"].str.contains("-lr")]
        rows = rows.assign(model=rows["model"] + ", AnglE", run=rows["run"].str.replace("-lr", "-AnglE-lr"))
        scores = [c for c in rows if c in ("spearman", "below", "full") or c.startswith("draw_")]
        rows[scores] -= less
        pd.concat([table, rows]).to_csv(table_path(folder, f"study_{name}"), index=False)


def test_either_base_loss_is_compared_at_the_rates_that_validation_picks_for_it(data):
    add_curves(data, {"full": 1, "2dmse": 3})
    add_mix(data, less=4)
    text = base_loss(data)
    means = {place: Study.at_best(data, place) for place in ("full", "below")}
    for words, place, rate in (("the top", "full", "5e-05"), ("below", "below", "0.0008")):
        study = means[place]
        below, top = study.score("2dmse", study.below, MEAN_DIMS), study.score("2dmse", [6], [384])
        mix = f"{rate}: {below - 4:.2f} / {top - 4:.2f}"
        assert f"| `2dmse`, best for {words} | {rate}: {below:.2f} / {top:.2f} | {mix} |" in text
    assert "| ... further than fine-tuning the last layer does |" in text
    assert "Matryoshka training of the last layer" not in text  # of mrl nothing is run
    assert "`full, AnglE` 5e-05* (1 seed) and 0.0008* (1 seed)" in text
    figure = base_loss_curves(data)
    names = [line.get_label() for line in figure.axes[0].lines]
    assert names.pop() == "mrl, ranking loss"  # at one rate
    assert names == ["2dmse, ranking loss", "2dmse, AnglE's mix", "full, ranking loss", "full, AnglE's mix"]
    looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines[:4]]
    assert looks == [(BLUE, "-"), (BLUE, ":"), (ORANGE, "-"), (ORANGE, ":")]
    pictures.plt.close(figure)
    left = pd.read_csv(data / "study_summary.csv").query("run != 'full-AnglE-lr0.0002-s0'")
    left.to_csv(data / "study_summary.csv", index=False)
    assert "`full`, best for" not in base_loss(data)  # of half a curve nothing is picked


def test_the_papers_base_loss_has_the_weights_of_its_preset():
    plan, curves = PLANS["angle"], PLANS["curves"]
    assert {t.settings["lr"] for t in plan.trials} == {t.settings["lr"] for t in curves.trials}
    assert all(
        (t.settings["loss"], t.settings["mix"], t.settings["angle_scale"]) == ("mix", (1, 1, 1), 1) for t in plan.trials
    )
    assert len({trial.name for trial in plan.trials}) == len(plan.trials) == 5 * 2 * 3
    assert (plan.steps, plan.batch_size, plan.data, plan.settings) == (
        curves.steps, curves.batch_size, curves.data, curves.settings
    )  # fmt: skip


def test_further_runs_of_grid_differ_in_one_setting_from_its_preset():
    grid = next(trial for trial in PLANS["curves"].trials if trial.model == "grid" and trial.settings["lr"] == 4e-4)
    trials = [trial for trial in PLANS["further"].trials if trial.settings["lr"] == 4e-4]
    changed = [{k: v for k, v in trial.settings.items() if grid.settings.get(k) != v} for trial in trials]
    assert changed == [{"teacher": "sentence-transformers/all-mpnet-base-v2"}, {}, {"steps": 2 * PLANS["curves"].steps}]
    assert [trial.taught_by in PLANS["curves"].trials for trial in trials] == [False, True, False]


def test_the_tuned_teacher_is_the_one_that_its_rule_picks_from_the_stored_tables():
    summary = read(stored_tables(), "study_summary").query("split == 'validation'").set_index("run")
    kept = [t.name for t in PLANS["curves"].trials if not t.layers and not t.settings.get("order_dims")]
    taught = {t.taught_by.name for t in PLANS["further"].trials if t.taught_by}
    assert taught == {summary.loc[kept, "full"].idxmax()}


def test_whole_runs_stand_among_the_tries_and_may_be_chosen(tmp_path):
    rows = [
        ("grid-twice-as-long-lr0.0002-s0", "validation", 83.5, 87.25),
        ("grid-twice-as-long-lr0.0002-s0", "test", 74, 81),
    ]
    rows += [("grid-lr0.0002-s0", "validation", 99, 99)]  # no try
    pd.DataFrame(rows, columns=["run", "split", "below", "full"]).to_csv(tmp_path / "study_summary.csv", index=False)
    mean = [("0.0002, original 0", 82.0, 86.0, "validation")]
    pd.DataFrame(mean, columns=["run", "below", "full", "split"]).to_csv(tmp_path / "study_tries.csv", index=False)
    text = tries(tmp_path)
    assert "| grid, twice as long, 0.0002 | 83.50 | 87.25 |" in text
    assert "99" not in text
    others = [f"{trial.model}, {trial.settings['lr']:g}" for trial in PLANS["further"].trials]
    others.remove("grid, twice as long, 0.0002")
    assert f"Not run: {'; '.join(others)}." in text
    assert "Chosen, by the best sum of both: grid, twice as long, 0.0002. On the seven test sets it has 74" in text
