"""The study: the order of its runs, what it writes down, and that it goes on where it was stopped."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DIM, LAYERS, run_app, sentences, tiny_encoder
from filelock import FileLock

from twodmse.config import PRESETS, TrainConfig
from twodmse.study import run as study
from twodmse.study.beyond import averages
from twodmse.study.beyond.averages import EVERY, TRIES, Try, run_averages
from twodmse.study.beyond.elsewhere import TOKENS, step_bytes, step_flops
from twodmse.study.plans import ABLATIONS, FLOAT32, PLANS, StudyPlan, Trial, trials
from twodmse.study.run import (
    CELLS,
    DRAWS,
    KEPT_DRAWS,
    KL,
    RUNS,
    SUMMARY,
    SWEEP,
    best_rate,
    in_turn,
    overview,
    run_study,
)  # fmt: skip
from twodmse.study.tables import read, table_path

MINILM = PLANS["minilm"]


def test_the_plan_holds_every_run_of_the_study():
    names = [trial.name for trial in MINILM.trials]
    assert len(set(names)) == len(names)
    seeds = pd.Series([trial.seed for trial in MINILM.trials], [trial.model for trial in MINILM.trials])
    counts = seeds.groupby(level=0).nunique()
    assert (counts[["full", "mrl", "2dmse", "grid"]] == 3).all()
    assert (counts[["untouched", "2dmse-weighted", "ese", "st2d", "starbucks", "st2d-2024"]] == 1).all()
    assert (counts[list(ABLATIONS)] == 2).all()
    assert (counts[[f"independent {n}" for n in range(1, 6)]] == 2).all()
    assert counts[FLOAT32] == 1
    assert len(names) == 12 + 5 + 6 + 10 + 1 + 1
    assert all(t.layers == int(t.model[-1]) for t in MINILM.trials if t.model.startswith("independent"))
    assert {t.name: t.layers for t in MINILM.trials if t.model == "2dmse"} == {f"2dmse-s{s}": None for s in range(3)}


def test_every_sweep_comes_before_the_first_run_that_needs_it_and_is_the_same_for_all():
    queue = [trial.name for trial in MINILM.queue()]
    assert len(set(queue)) == len(queue)
    for trial in MINILM.trials:
        if trial.model == "untouched":
            assert trial.rate_of is None
            continue
        sweep = MINILM.sweep_of(trial.rate_of)
        assert [run.settings["lr"] for run in sweep] == list(MINILM.rates)
        assert all(run.seed == 0 and run.sweep for run in sweep)
        assert max(queue.index(run.name) for run in sweep) < queue.index(trial.name)
    assert {trial.rate_of for trial in MINILM.trials if trial.model in ABLATIONS} == {"2dmse"}


def test_the_paper_plan_takes_its_preset_whole():
    plan, preset = PLANS["paper"], PRESETS["paper"]
    assert not any(trial.sweep or trial.rate_of for trial in plan.queue())
    shared = {"backbone": plan.backbone, "data": plan.data, "steps": plan.steps, "batch_size": plan.batch_size}
    of_2dmse = [trial for trial in plan.trials if trial.settings.get("recipe") == "2dmse"]
    assert {trial.model for trial in of_2dmse} == {"2dmse", *ABLATIONS}
    for trial in plan.trials:
        if trial.settings:
            settings = shared | plan.settings | trial.settings
            config = TrainConfig.from_dict({k: v for k, v in settings.items() if k != "out"})  # nothing without effect
            assert config.two_passes == (trial in of_2dmse)
    for trial in of_2dmse:
        assert (preset | {"seed": trial.seed}).items() <= (
            shared | plan.settings | trial.settings | {"seed": trial.seed}
        ).items()


def test_the_cost_of_a_step_by_hand():
    assert step_flops(1, 10, 2) == pytest.approx(6 * 1200 * 6 * TOKENS)
    assert step_flops(1, 10, 2, passes=2) == pytest.approx(8 * 1200 * 6 * TOKENS)
    assert step_bytes(2, 10, 3, parameters=1000) == pytest.approx(16_000 + 34 * 10 * 2 * 9 * TOKENS)


def test_points_of_a_swept_curve_follow_their_sweep_at_the_rates_best_at_the_top_and_below():
    plan = PLANS["mpnet"]
    assert [trial.name for trial in plan.queue() if not trial.sweep] == ["untouched-s0"]
    sweep = pd.DataFrame({"run": [trial.name for trial in plan.sweep_of("grid")], "model": "grid", "lr": plan.rates})
    sweep = sweep.assign(seed=0, split="validation", below=[1.0, 3.0, 2.0], full=[9.0, 8.0, 7.0])
    names = [trial.name for trial in plan.queue(sweep)]
    after = names.index("sweep-grid-lr0.0002")
    assert names[after + 1 : after + 4] == ["grid-lr5e-05-s0", "grid-lr0.0001-s0", "sweep-full-lr5e-05"]
    assert not any(trial.rate_of for trial in plan.queue(sweep))
    assert [trial.name for trial in plan.queue(sweep.iloc[1:]) if not trial.sweep] == ["untouched-s0"]
    alone = [trial.name for trial in plan.queue(sweep.assign(full=sweep["below"])) if not trial.sweep]
    assert alone == ["untouched-s0", "grid-lr0.0001-s0"]


def test_best_rate_is_that_of_the_best_mean():
    table = pd.DataFrame({"model": ["a", "a", "b"], "lr": [1e-5, 2e-5, 3e-5], "spearman": [2.0, 1.0, 9.0]})
    assert best_rate(table, "a") == 1e-5
    with pytest.raises(ValueError, match="no learning rate for 'c': it has a, b"):
        best_rate(table, "c")


# ---------------------------------------------------------------- a small study for real


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A study of a random model on random sentences: six runs of three steps."""
    monkeypatch.setattr(study, "WAIT", 0.01)
    tiny_encoder().save(tmp_path / "backbone")
    texts = sentences(180)
    triplets = pd.DataFrame(np.reshape(texts, (-1, 3)), columns=["anchor", "positive", "negative"])
    triplets.to_csv(tmp_path / "train.csv", index=False)
    for name in ("one", "two", "validation"):
        pairs = pd.DataFrame(np.reshape(sentences(120, seed=len(name)), (-1, 2)), columns=["sentence1", "sentence2"])
        pairs.assign(score=np.linspace(0, 5, 60)).to_csv(tmp_path / f"{name}.csv", index=False)
    runs = [trial for trial in trials((2, 3), swept=True, seeds=(1, 1)) if trial.model in (
        "untouched", "2dmse", "mrl", "independent 2", "independent 3")]  # fmt: skip
    return StudyPlan(
        backbone=str(tmp_path / "backbone"), data=str(tmp_path / "train.csv"), steps=3, batch_size=8,
        trials=tuple(runs), settings={"precision": "fp32", "save_every": 2}, rates=(1e-4, 1e-3), sweep_steps=2,
        validation=str(tmp_path / "validation.csv"), tasks=(str(tmp_path / "one.csv"), str(tmp_path / "two.csv")),
        dims=(8, 16, DIM), mean_dims=(8, DIM),
    )  # fmt: skip


def tables(folder, *names):
    return {name: read(folder, name) for name in names or (SWEEP, RUNS, CELLS, DRAWS, KL, SUMMARY)}


@pytest.mark.slow
def test_a_study_writes_every_run_down_and_a_second_call_changes_nothing(plan, tmp_path):
    said = []
    run_study(plan, tmp_path / "out", tmp_path / "work", said.append)
    found = tables(tmp_path / "out")
    assert len(said) == 5 + 3 * 2  # runs, and three sweeps of two rates
    assert sorted(found[RUNS]["run"]) == sorted(trial.name for trial in plan.trials)
    runs = found[RUNS].set_index("run")
    for model in ("2dmse", "mrl"):
        assert runs.loc[f"{model}-s0", "lr"] == best_rate(found[SWEEP], model)
    assert runs.loc["independent-2-s0", "lr"] == best_rate(found[SWEEP], "independent")
    assert list(runs.loc[["untouched-s0", "2dmse-s0"], "steps"]) == [0, 3]
    assert set(runs["precision"]) == {"fp32"}  # as the plan asks, whatever the machine would choose
    sizes = found[CELLS].groupby("run").size()
    assert sizes["2dmse-s0"] == 2 * LAYERS * 3
    assert sizes["independent-3-s0"] == 2 * 3
    assert set(found[CELLS].query("run == 'independent-3-s0'")["layer"]) == {3}
    assert found[KL].query("run == '2dmse-s0'")["layer"].tolist() == list(range(LAYERS + 1))
    summary = found[SUMMARY].set_index(["run", "split"])
    counted = found[CELLS].query("run == '2dmse-s0' and dim in (8, 32)")
    means = [counted.query("layer < 4")["spearman"].mean(), counted.query("layer == 4")["spearman"].mean()]
    np.testing.assert_allclose(summary.loc[("2dmse-s0", "test"), ["below", "last"]].tolist(), means, rtol=1e-4)
    assert summary.loc[("independent-3-s0", "validation")].isna().tolist() == [False, False, False, False, True, True]
    assert not list((tmp_path / "work").glob("*/checkpoint-*"))
    assert not list((tmp_path / "work").glob("sweep-*/model"))
    before = {name: table_path(tmp_path / "out", name).read_bytes() for name in found}
    run_study(plan, tmp_path / "out", tmp_path / "work", said.append)
    assert len(said) == 11
    assert {name: table_path(tmp_path / "out", name).read_bytes() for name in found} == before
    assert (overview(plan, tmp_path / "out")["done"] == "yes").all()


@pytest.mark.slow
def test_a_swept_curve_is_run_at_the_rates_that_validation_picks(plan, tmp_path):
    one, own = ({"recipe": recipe} for recipe in ("full", "mrl"))
    trials = (Trial("full", 0, one, rate_of="full", curve=True), Trial("own", 0, own, 2, rate_of="own", curve=True))
    run_study(dataclasses.replace(plan, trials=trials), tmp_path / "out", tmp_path / "work", lambda _: None)
    found = tables(tmp_path / "out", SWEEP, RUNS, SUMMARY)
    sweep = found[SWEEP].set_index(["model", "lr"])
    for model, places in (("full", ["full", "below"]), ("own", ["below"])):
        wanted = {sweep.loc[model, place].idxmax() for place in places}
        assert set(found[RUNS].query("model == @model")["lr"]) == wanted
    assert sweep.loc["own", "full"].isna().all()


@pytest.mark.slow
def test_a_run_that_was_stopped_while_it_was_scored_is_scored(plan, tmp_path, monkeypatch):
    plan = dataclasses.replace(plan, trials=(Trial("full", 0, {"recipe": "full"}),))
    monkeypatch.setattr(study, "score", None)
    with pytest.raises(TypeError):
        run_study(plan, tmp_path / "out", tmp_path / "work", lambda _: None)
    monkeypatch.undo()
    run_study(plan, tmp_path / "out", tmp_path / "work", lambda _: None)
    run_study(plan, tmp_path / "whole", tmp_path / "work-2", lambda _: None)
    stopped, whole = (tables(tmp_path / out, CELLS, RUNS) for out in ("out", "whole"))
    pd.testing.assert_frame_equal(stopped[CELLS], whole[CELLS])
    assert stopped[RUNS]["steps"].tolist() == [plan.steps]
    assert stopped[RUNS]["seconds"].isna().all()  # not known any more


@pytest.mark.slow
def test_a_run_that_is_taught_by_another_trains_that_one_first(plan, tmp_path):
    teacher = Trial("full", 0, {"recipe": "full", "lr": 1e-3}, curve=True)
    taught = Trial("taught", 0, {"recipe": "grid", "lr": 2e-4, "hold_weight": 1.0}, curve=True, taught_by=teacher)
    plan = dataclasses.replace(plan, trials=(taught,), repeated=())
    run_study(plan, tmp_path / "out", tmp_path / "work", lambda _: None)
    folder = tmp_path / "work" / "full-lr0.001-s0" / "model"
    assert folder.is_dir()
    config = json.loads((tmp_path / "work" / "taught-lr0.0002-s0" / "train_config.json").read_text())
    assert config["teacher"] == str(folder)
    runs = read(tmp_path / "out", RUNS)
    assert runs["run"].tolist() == ["taught-lr0.0002-s0"]  # the teacher is no run of this plan
    assert "teacher=full-lr0.001-s0" in runs["switches"][0]
    run_study(dataclasses.replace(plan, trials=(teacher,)), tmp_path / "out", tmp_path / "work", lambda _: None)
    assert read(tmp_path / "out", RUNS)["seconds"].isna().tolist() == [False, True]  # its model is taken over


def test_a_mean_over_seeds_takes_its_runs_in_equal_parts():
    assert Try((8e-4,), 0.4, seeds=3).runs == [(8e-4, 0), (8e-4, 1), (8e-4, 2)]
    assert Try((8e-4,), 0.4, seeds=3).name == "0.0008 x 3 seeds, original 0.4"
    start, *runs = (tiny_encoder() for _ in range(4))
    with torch.no_grad():
        for i, one in enumerate(runs):
            one.backbone.model.get_input_embeddings().weight += 0.001 * i
    made = Try((8e-4,), 0.4, seeds=3).made({(8e-4, i): one for i, one in enumerate(runs)}, start)
    before, after = (one.backbone.model.get_input_embeddings().weight for one in (start, made))
    torch.testing.assert_close(after - before, torch.full_like(before, 0.6 * 0.001), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_means_of_weights_are_chosen_on_the_validation_pairs_and_only_the_chosen_one_sees_the_test_sets(
    plan, tmp_path, monkeypatch
):
    grid = {"recipe": "grid", "order_dims": True}
    points = tuple(Trial("grid", 0, grid | {"lr": rate}, curve=True) for rate in (2e-4, 4e-4, 8e-4))
    plan, out, said = dataclasses.replace(plan, trials=points, repeated=()), tmp_path / "out", []
    run_study(plan, out, tmp_path / "work", lambda _: None)
    run_averages(plan, out, tmp_path / "work", said.append)
    tries, summary = read(out, TRIES), read(out, SUMMARY).set_index(["run", "split"])
    validation = tries[tries["split"] == "validation"].set_index("run")
    assert set(validation.index) == {one.name for one in EVERY}
    for rate in ("0.0002", "0.0004"):  # the run itself, its coordinates in their order
        both = validation.loc[f"{rate}, original 0"], summary.loc[(f"grid-lr{rate}-s0", "validation")]
        np.testing.assert_allclose(*([rows["below"], rows["full"]] for rows in both), atol=1e-3)
    best = (validation["below"] + validation["full"]).idxmax()
    assert list(tries[tries["split"] == "test"]["run"]) == [best]
    assert said[-1] == f"chosen: {best}"
    before = table_path(out, TRIES).read_bytes()
    monkeypatch.setattr(averages, "pairs_grid", None)  # nothing is scored twice
    run_averages(plan, out, tmp_path / "work", said.append)
    assert table_path(out, TRIES).read_bytes() == before
    text = averages.tries(out)
    assert f"Chosen, by the best sum of both: {best}. On the seven test sets it has " in text
    assert [line.split("|")[1].strip() for line in text.splitlines()[2 : 2 + len(EVERY)]] == [one.name for one in EVERY]


@pytest.mark.slow
def test_draws_are_the_means_of_the_cells(plan, tmp_path):
    plan = dataclasses.replace(plan, trials=plan.trials[:1])
    run_study(plan, tmp_path / "out", tmp_path / "work", lambda _: None)
    found = tables(tmp_path / "out", CELLS, DRAWS)
    draws = found[DRAWS].set_index("mean").filter(like="draw_")
    assert draws.shape == (2 * LAYERS, KEPT_DRAWS)
    cells = found[CELLS]
    for layer in (1, LAYERS):
        rows = cells[(cells["layer"] == layer) & cells["dim"].isin(plan.mean_dims)]
        middle = draws.loc[f"layer {layer}"].mean()
        assert middle == pytest.approx(rows["spearman"].mean(), abs=2.0)  # the bootstrap's own mean
        whole = cells[(cells["layer"] == layer) & (cells["dim"] == DIM)]["spearman"].mean()
        assert draws.loc[f"cell {layer} {DIM}"].mean() == pytest.approx(whole, abs=2.0)


@pytest.mark.slow
def test_a_run_that_was_cut_short_goes_on_and_ends_with_the_same_scores(plan, tmp_path, monkeypatch):
    plan = dataclasses.replace(plan, trials=tuple(t for t in plan.trials if t.model == "2dmse"), rates=(1e-3,))
    run_study(plan, tmp_path / "whole", tmp_path / "work-1", lambda _: None)
    train = study.train_encoder

    def stopped(encoder, texts, config, resume):
        if config.steps == plan.steps and not resume:
            train(encoder, texts, config, resume)
            (tmp_path / "work-2" / "2dmse-s0" / "checkpoint-3").rename(tmp_path / "lost")  # only that of step 2 is left
            raise KeyboardInterrupt
        return train(encoder, texts, config, resume)

    monkeypatch.setattr(study, "train_encoder", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_study(plan, tmp_path / "cut", tmp_path / "work-2", lambda _: None)
    assert not (tmp_path / "cut" / f"{RUNS}.csv").exists()
    run_study(plan, tmp_path / "cut", tmp_path / "work-2", lambda _: None)
    for name in (CELLS, DRAWS, KL):
        assert table_path(tmp_path / "cut", name).read_bytes() == table_path(tmp_path / "whole", name).read_bytes()


def test_a_run_that_another_process_holds_is_passed_over(plan, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    work.mkdir()
    plan = dataclasses.replace(plan, trials=(Trial("a"), Trial("b")))
    with FileLock(work / "a-s0.lock"):
        turns = in_turn(plan, out, work, lambda _: None)
        assert next(turns).name == "b-s0"


def test_no_run_starts_before_its_sweep_is_done(plan, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    swept = dataclasses.replace(plan, trials=(Trial("a", settings={"recipe": "full"}, rate_of="a"), Trial("b")))
    with FileLock(work / "sweep-a-lr0.0001.lock"), FileLock(work / "sweep-a-lr0.001.lock"):
        assert next(in_turn(swept, tmp_path / "out", work, lambda _: None)).name == "b-s0"


def test_the_command_lists_the_runs_and_refuses_an_unknown_plan(tmp_path):
    result = run_app("study", "--plan", "minilm", "--dry-run", "--out", tmp_path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + len(MINILM.queue())
    assert all(line.endswith("no") for line in lines[1:])
    assert not list(tmp_path.iterdir())
    result = run_app("study", "--plan", "nothing")
    assert result.exit_code == 1
    assert "unknown plan 'nothing': choose one of minilm, curves, angle, further, mpnet, paper" in result.stderr
