"""Parts from outside: recipes, losses, data, callbacks and evaluators that this package does not know."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LAYERS, sentences, tiny_encoder
from datasets import Dataset
from test_training import config, interrupted, weights
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import ExportableState
from typer.testing import CliRunner

from twodmse import RECIPES, Alignment, Cell, Encoder, Plan, TrainConfig, register_recipe, train
from twodmse.cli import app
from twodmse.data.sets import TextSet
from twodmse.evaluation.grid import pairs_grid
from twodmse.objectives.objective import BaseLoss, by_cell
from twodmse.training.replay import models_by_step
from twodmse.training.runs import train_encoder

EXAMPLES = Path(__file__).parents[1] / "examples"


def corner(draw):
    """One narrow cell of layer 2, another of the last layer."""
    return Plan([Cell(2, 8, 1.0, "corner"), Cell(draw.N, 16, 0.5, "last")], [], {})


def positives(columns, gold):
    return (1 - torch.cosine_similarity(columns[0], columns[1])).mean()


def test_an_own_plan_and_loss_train_what_they_say(triplets, tmp_path):
    seen = []

    def watched(columns, gold):
        seen.append([tuple(column.shape) for column in columns])
        return positives(columns, gold)

    run = train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", steps=2), recipe=corner, base_loss=watched)
    assert seen == [[(8, 8)] * 3, [(8, 16)] * 3] * 2  # each trained cell, its columns cut to it
    np.testing.assert_allclose(run.history["corner"] + run.history["last"], run.history["loss"], rtol=1e-5)
    stored = TrainConfig.read(run.folder / "model" / "train_config.json")
    assert (stored.recipe, stored.loss) == ("own:corner", "own:watched")


def test_an_own_loss_that_is_ours_gives_our_numbers(triplets, tmp_path):
    def contrastive(columns, gold):
        return BaseLoss()(columns, gold, [columns[0].shape[1]])[0]

    ours = train_encoder(tiny_encoder(), triplets, config(tmp_path / "a", steps=3))
    own = train_encoder(tiny_encoder(), triplets, config(tmp_path / "b", steps=3), base_loss=contrastive)
    np.testing.assert_allclose(own.history["loss"], ours.history["loss"], rtol=1e-3)
    np.testing.assert_allclose(own.history.iloc[0], ours.history.iloc[0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"the base loss gave \(8,\): it must give a scalar tensor"):
        by_cell(lambda columns, gold: columns[0][:, 0])([torch.ones(8, 4)] * 2, None, [2])
    with pytest.raises(ValueError, match="the base loss gave a number without a gradient: work it out"):
        by_cell(lambda columns, gold: columns[0].detach().sum())([torch.ones(8, 4, requires_grad=True)] * 2, None, [2])


def test_scores_are_compared_as_they_are_given(pairs, tmp_path):
    found = {}
    for name, scale, start in (("plain", 1.0, 0.0), ("clock", 1.0, 1.7e9), ("tiny", 1e-300, 0.0), ("huge", 1e300, 0.0)):
        moved = TextSet("moved", pairs.columns, pairs.gold * scale + start)
        run = train_encoder(tiny_encoder(), moved, config(tmp_path / name, steps=2, recipe="mrl", loss="cosent"))
        assert (run.history["loss"] > 0.1).all()
        found[name] = weights(run.encoder)
    for name in ("clock", "tiny", "huge"):
        assert torch.equal(found[name], found["plain"])
    given = []

    def watched(columns, gold):
        given.append(gold.dtype)
        return positives(columns, gold)

    train_encoder(tiny_encoder(), pairs, config(tmp_path / "own", steps=1), base_loss=watched)
    assert set(given) == {torch.float32}  # as every loss of torch expects beside vectors of float32


@pytest.mark.parametrize("kind", ["TextSet", "DataFrame", "Dataset"])
def test_data_in_memory_train_like_a_file(kind, triplets, tmp_path):
    tiny_encoder().save(tmp_path / "model")
    table = pd.DataFrame(dict(zip(("anchor", "positive", "negative"), triplets.columns, strict=True)))
    table.to_csv(tmp_path / "rows.csv", index=False)
    rows = {"TextSet": triplets, "DataFrame": table, "Dataset": Dataset.from_pandas(table)}[kind]
    settings = {"steps": 2, "backbone": str(tmp_path / "model")}
    from_file = train(config(tmp_path / "a", data=str(tmp_path / "rows.csv"), **settings))
    here = train(config(tmp_path / "b", **settings), data=rows)
    assert torch.equal(weights(here.encoder), weights(from_file.encoder))
    assert TrainConfig.read(here.folder / "train_config.json").data == ("own:tiny" if kind == "TextSet" else "own:data")
    with pytest.raises(ValueError, match="data is 'own:data', rows that were in memory: give them again"):
        train(config(tmp_path / "c", data="own:data", **settings))


def test_a_run_with_own_parts_is_resumed_with_them_and_not_without(triplets, tmp_path, monkeypatch):
    own = {"recipe": corner, "base_loss": positives}
    whole = train_encoder(tiny_encoder(), triplets, config(tmp_path / "whole"), **own)
    with monkeypatch.context() as patch:
        patch.setattr("test_training.train_encoder", partial(train_encoder, **own))
        interrupted(triplets, tmp_path / "cut", 5, monkeypatch)
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "cut"), resume=True)
    with pytest.raises(ValueError, match=r"recipe is 'own:corner', your own: give it again, as recipe=\.\.\."):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "cut", recipe="own:corner"), resume=True)
    resumed = train_encoder(tiny_encoder(), triplets, config(tmp_path / "cut"), resume=True, **own)
    assert torch.equal(weights(resumed.encoder), weights(whole.encoder))


def test_a_plan_that_cannot_be_trained_is_refused_before_the_run(triplets, tmp_path):
    def pulled(draw):
        return Plan([], [Alignment(1, 8, -1, 1.0, "scores", 0.05, True, "pull")], {})

    def late(draw):
        return pulled(draw) if draw.step == 3 else corner(draw)

    def raw(draw):
        return Plan([], [Alignment(1, 8, -1, 1.0, kind, 1.0, True, "pull")], {})

    for plan in (pulled, late):
        with pytest.raises(ValueError, match=rf"recipe '{plan.__name__}' aligns to a teacher: name one"):
            train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"), recipe=plan)
    teacher = str(tiny_encoder().save(tmp_path / "teacher"))
    for kind in ("coordinates", "compress"):
        with pytest.raises(ValueError, match=f"by '{kind}', which compares raw vectors, and a teacher's have length 1"):
            train_encoder(
                tiny_encoder(), triplets, config(tmp_path / "run", recipe="own:raw", teacher=teacher), recipe=raw
            )
    nothing = {"teacher": teacher, "last_layer": False, "align_weight": 0.0, "hold_weight": 0.0}
    with pytest.raises(ValueError, match="nothing is trained: 'grid' as set has no loss with a weight above 0"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", recipe="grid", **nothing))
    assert not (tmp_path / "run").exists()


def test_a_plan_may_be_an_object_without_a_name(triplets, tmp_path):
    run = train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", steps=1), recipe=partial(corner))
    assert TrainConfig.read(run.folder / "train_config.json").recipe == "own:partial"


CELL, PULL = Cell(2, 8, 1.0, "x"), Alignment(1, 8, 4, 1.0, "scores", 0.05, True, "pull")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"recipe 'own' gave NoneType: it must give a Plan"),
        ([CELL], r"recipe 'own' gave list"),
        (Plan([(2, 8, 1.0, "x")], [], {}), r"has \(2, 8, 1.0, 'x'\) among its cells: give a list of Cell"),
        (Plan("x", [], {}), r"has 'x' among its cells"),
        (Plan([CELL], None, {}), r"has None among its alignments: give a list of Alignment"),
        (
            Plan([CELL._replace(layer=9)], [], {}),
            r"has Cell\(layer=9, .*\): its layer is out of range, the encoder has",
        ),
        (Plan([CELL._replace(layer=1.0)], [], {}), "its layer is out of range"),
        (Plan([CELL._replace(dim=0)], [], {}), "its dim is out of range, the encoder has layers 0..4 and dims 1..32"),
        (Plan([CELL._replace(weight=float("nan"))], [], {}), "its weight must be a finite number, 0 or more"),
        (Plan([CELL._replace(weight=-1.0)], [], {}), "its weight must be"),
        (Plan([CELL._replace(weight="1")], [], {}), "its weight must be"),
        (Plan([CELL], [PULL._replace(target=5)], {}), r"has Alignment\(.*\): its target is out of range"),
        (Plan([CELL], [PULL._replace(target=-2)], {}), "its target is out of range"),
        (
            Plan([CELL], [PULL._replace(kind="score")], {}),
            "unknown kind of alignment 'score': .*did you mean 'scores'?",
        ),
        (Plan([CELL], [PULL._replace(temperature=0)], {}), "its temperature must be a finite number above 0"),
        (Plan([CELL], [], {"layer": 2.5}), r"says that it drew layer 2.5: a layer or dim is an integer"),
    ],
)
def test_every_part_of_an_own_plan_is_checked_before_training(given, message, triplets, tmp_path):
    def own(draw):
        return given

    with pytest.raises(ValueError, match=message):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"), recipe=own)
    assert not (tmp_path / "run").exists()


def test_parts_of_an_own_plan_may_come_in_any_collection_and_as_numpys_numbers(triplets, tmp_path):
    def same(draw):
        cells = (
            Cell(np.int64(layer), np.int64(dim), np.float32(weight), term)
            for layer, dim, weight, term in corner(draw).cells
        )
        return Plan(cells, (), {})

    runs = [
        train_encoder(tiny_encoder(), triplets, config(tmp_path / plan.__name__, steps=2), recipe=plan)
        for plan in (corner, same)
    ]
    assert torch.equal(weights(runs[0].encoder), weights(runs[1].encoder))


# ---------------------------------------------------------------- validation


def test_evaluation_scores_cells_and_keeps_the_best(triplets, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("twodmse.data.tasks.load_pairs", lambda name: pairs)
    settings = {"eval_every": 2, "eval_data": "anything", "eval_cells": [[2, 8], [4, 32]], "lr": 0.01}
    run = train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", **settings))
    table = run.evaluations
    assert table.columns.tolist() == ["step", "spearman", "spearman_2_8", "spearman_4_32"]
    assert table["step"].tolist() == [2, 4, 6]
    np.testing.assert_allclose(table["spearman"], table[["spearman_2_8", "spearman_4_32"]].mean(axis=1))
    pd.testing.assert_frame_equal(pd.read_csv(run.folder / "evaluations.csv"), table)
    best = Encoder.load(run.folder / "best")
    cells = pairs_grid(best, pairs, [8, 32], [2, 4], resamples=0).set_index(["layer", "dim"])["spearman"]
    assert cells[[(2, 8), (4, 32)]].mean() == pytest.approx(table["spearman"].max(), abs=1e-3)
    assert pd.read_csv(run.folder / "history.csv").filter(like="eval").empty
    plain = train_encoder(tiny_encoder(), triplets, config(tmp_path / "plain", lr=0.01))
    assert torch.equal(weights(plain.encoder), weights(run.encoder))  # looking changes nothing
    pd.testing.assert_frame_equal(plain.history, run.history)


def test_a_resumed_run_that_is_measured_otherwise_begins_its_best_anew(triplets, tmp_path, monkeypatch):
    scores = iter([90.0, 30.0, 40.0])
    settings = {"evaluator": lambda encoder: dict.fromkeys(("a", "b"), next(scores))}
    with monkeypatch.context() as patch:
        patch.setattr("test_training.train_encoder", partial(train_encoder, **settings))
        interrupted(triplets, tmp_path / "cut", 3, monkeypatch, eval_every=2, eval_metric="a")
    before = (tmp_path / "cut" / "best" / "model.safetensors").read_bytes()
    again = config(tmp_path / "cut", eval_every=2, eval_metric="b")
    resumed = train_encoder(tiny_encoder(), triplets, again, resume=True, **settings)
    assert resumed.evaluations["b"].tolist() == [90.0, 30.0, 40.0]
    best = (tmp_path / "cut" / "best" / "model.safetensors").read_bytes()
    assert best != before
    assert best == (tmp_path / "cut" / "model" / "model.safetensors").read_bytes()  # the last was the best by b


class EndAt(TrainerCallback):
    """Ends a run after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self.step


def test_the_old_best_does_not_come_back_after_another_stop(triplets, tmp_path, monkeypatch):
    scores = iter([90.0, 30.0, 40.0])
    settings = {"evaluator": lambda encoder: dict.fromkeys(("a", "b"), next(scores))}
    with monkeypatch.context() as patch:
        patch.setattr("test_training.train_encoder", partial(train_encoder, **settings))
        interrupted(triplets, tmp_path / "cut", 4, monkeypatch, eval_every=3, eval_metric="a", save_every=1)
    again = config(tmp_path / "cut", eval_every=3, eval_metric="b", save_every=1)
    stopped = train_encoder(tiny_encoder(), triplets, again, resume=True, callbacks=[EndAt(5)], **settings)
    assert stopped.evaluations["step"].tolist() == [3]  # no evaluation since the change
    train_encoder(tiny_encoder(), triplets, again, resume=True, **settings)
    last = (tmp_path / "cut" / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "cut" / "best" / "model.safetensors").read_bytes() == last


def test_what_an_evaluation_would_not_look_at_or_find_is_refused_before_the_run(triplets, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("twodmse.data.tasks.load_pairs", lambda name: pairs)
    own = {"evaluator": lambda encoder: {"spearman": 1.0}}
    for settings, given, message in (
        ({"eval_cells": [[1, 8]]}, own, "eval_cells is ((1, 8),), and the evaluator given does not look at it"),
        ({"eval_data": "nowhere"}, own, "eval_data is 'nowhere', and the evaluator given does not look at it"),
        (
            {"eval_metric": "spearman_9_9"},
            {},
            "unknown eval_metric 'spearman_9_9': choose one of spearman, spearman_1_8",
        ),
        ({"eval_metric": "spearman_1_8", "eval_cells": [[2, 8]]}, {}, "choose one of spearman, spearman_2_8"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", eval_every=2, **settings), **given)
    same = TextSet("same", pairs.columns, np.full(len(pairs), 3.0))
    monkeypatch.setattr("twodmse.data.tasks.load_pairs", lambda name: same)
    with pytest.raises(ValueError, match="scores are all 3"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", eval_every=2, eval_data="same"))
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_the_best_of_before(triplets, tmp_path, monkeypatch):
    scores = {2: 90.0, 4: 10.0, 6: 20.0}

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            self.step = state.global_step

    clock = Clock()
    settings = {"callbacks": [clock], "evaluator": lambda encoder: {"spearman": scores[clock.step]}}
    with monkeypatch.context() as patch:
        patch.setattr("test_training.train_encoder", partial(train_encoder, **settings))
        interrupted(triplets, tmp_path / "cut", 5, monkeypatch, eval_every=2)
    before = (tmp_path / "cut" / "best" / "model.safetensors").read_bytes()
    resumed = train_encoder(tiny_encoder(), triplets, config(tmp_path / "cut", eval_every=2), resume=True, **settings)
    assert resumed.evaluations["spearman"].tolist() == [90.0, 10.0, 20.0]
    assert (tmp_path / "cut" / "best" / "model.safetensors").read_bytes() == before
    whole = train_encoder(tiny_encoder(), triplets, config(tmp_path / "whole"))
    assert torch.equal(weights(resumed.encoder), weights(whole.encoder))


def test_transformers_own_callback_stops_early(triplets, tmp_path):
    scores = iter([50.0, 40.0, 30.0, 20.0])
    run = train_encoder(
        tiny_encoder(),
        triplets,
        config(tmp_path / "run", eval_every=1, eval_metric="mine"),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        evaluator=lambda encoder: {"mine": next(scores)},
    )
    assert run.evaluations["mine"].tolist() == [50.0, 40.0, 30.0]
    assert run.history["step"].tolist() == [1, 2, 3]
    folder = tmp_path / "run"
    assert models_by_step(folder) == {2: folder / "checkpoint-2", 3: folder / "model"}
    again = train_encoder(tiny_encoder(), triplets, config(folder, eval_every=0), resume=True)  # nothing stops it
    assert again.history["step"].tolist() == pd.read_csv(folder / "history.csv")["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert models_by_step(folder) == {n: folder / f"checkpoint-{n}" for n in (4, 6)}
    assert torch.equal(weights(Encoder.load(folder / "model")), weights(again.encoder))
    (folder / "stopped.json").write_text("{}")
    with pytest.raises(ValueError, match=r"stopped\.json: step is None: it must be an integer"):
        models_by_step(folder)
    (folder / "stopped.json").unlink()
    whole = train_encoder(tiny_encoder(), triplets, config(tmp_path / "whole"))
    assert torch.equal(weights(whole.encoder), weights(again.encoder))
    assert {path.name for path in folder.iterdir()} >= {path.name for path in (tmp_path / "whole").iterdir()}
    assert not (folder / "stopped.json").exists()


def test_a_run_that_early_stopping_ended_is_over_and_goes_on_with_more_patience_alone(triplets, tmp_path):
    def stopping(patience, scores):
        mine = config(tmp_path / "run", eval_every=1, save_every=3)
        own = {"callbacks": [EarlyStoppingCallback(patience)], "evaluator": lambda encoder: {"spearman": next(scores)}}
        return train_encoder(tiny_encoder(), triplets, mine, resume=(tmp_path / "run").is_dir(), **own)

    first = stopping(2, iter([50.0, 40.0, 30.0]))
    again = stopping(2, iter([]))  # an evaluation would find no score
    assert torch.equal(weights(again.encoder), weights(first.encoder))
    assert again.history["step"].tolist() == again.evaluations["step"].tolist() == [1, 2, 3]
    longer = stopping(3, iter([60.0, 50.0, 40.0]))
    assert longer.evaluations["step"].tolist() == [1, 2, 3, 4, 5, 6]


class Odd(TrainerCallback, ExportableState):
    """A callback whose state may be one that no file of JSON can hold."""

    def __init__(self, thing):
        self.thing = thing

    def state(self):
        return {"args": {"thing": self.thing}, "attributes": {}}


circular = []
circular.append(circular)


@pytest.mark.parametrize(
    ("thing", "error", "says"),
    [(object(), TypeError, "not JSON serializable"), (circular, RecursionError, "recursion")],
    ids=["no JSON", "circular"],
)
def test_a_callback_that_cannot_be_stored_is_not_taken_for_a_full_disk(thing, error, says, triplets, tmp_path):
    with pytest.raises(error, match=says):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"), callbacks=[Odd(thing)])
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize("name", ["step", "epoch", 3])
def test_a_score_may_not_hide_a_column_of_the_table(name, triplets, tmp_path):
    run = config(tmp_path / "run", eval_every=1, eval_metric="mine")
    with pytest.raises(ValueError, match=f"the evaluator calls a score {name!r}: give it a text that is neither"):
        train_encoder(tiny_encoder(), triplets, run, evaluator=lambda encoder: {"mine": 1.0, name: 2.0})


def test_evaluations_that_cannot_be_made_are_refused_before_the_run(triplets, tmp_path):
    with pytest.raises(ValueError, match="an evaluator was given and eval_every is 0"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"), evaluator=lambda encoder: {})
    with pytest.raises(ValueError, match="layer 9"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", eval_every=1, eval_cells=[[9, 8]]))
    for callbacks, message in (
        (EarlyStoppingCallback(), "callbacks is a EarlyStoppingCallback: give a list"),
        ([print], "among the callbacks is no transformers.TrainerCallback"),
        ([EarlyStoppingCallback()], "EarlyStoppingCallback looks at evaluations, and eval_every is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"), callbacks=callbacks)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("term", "sampled", "name"),
    [("grad_norm", {}, "grad_norm"), (1, {}, "1"), ("a", {"a": 7}, "'a'"), ("a", {"loss": 7}, "'loss'")],
)
def test_a_plan_whose_names_are_columns_of_the_log_is_refused(triplets, tmp_path, term, sampled, name):
    def mine(draw):
        return Plan([Cell(1, 8, 1.0, term)], [], sampled)

    with pytest.raises(ValueError, match=f"a term or a draw of the plan is called .*{name}"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"), recipe=mine)
    assert not (tmp_path / "run").exists()


def test_draws_of_numpy_are_logged_and_stored(triplets, tmp_path):
    def mine(draw):
        layer = np.random.default_rng(draw.step).integers(1, draw.N)
        return Plan([Cell(layer, 8, 1.0, "a")], [], {"layer": layer})

    run = train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", steps=2, save_every=1), recipe=mine)
    drawn = [int(np.random.default_rng(step).integers(1, LAYERS)) for step in range(2)]
    assert run.history["layer"].tolist() == drawn


@pytest.mark.parametrize(
    ("columns", "gold", "loss", "message"),
    [
        (2, None, "angle", "find nothing to compare"),
        (2, None, "cosent", "find nothing to compare"),
        (2, None, "mix", "find nothing to compare"),  # contrastive alone would be trained
        (2, 1.0, "mix", "the score 1 in every row"),
        (2, 1.0, "auto", "the score 1 in every row"),
        (2, 0.0, "contrastive", "the score 0 in every row"),
        (3, None, "angle", None),
        (2, 1.0, "contrastive", None),
    ],
)
def test_data_that_a_loss_cannot_compare_are_refused(tmp_path, columns, gold, loss, message):
    rows = tuple(tuple(sentences(8, seed)) for seed in range(columns))
    texts = TextSet("rows", rows, None if gold is None else np.full(8, gold, dtype=np.float32))
    settings = config(tmp_path / "run", steps=1, batch_size=4, loss=loss)
    if message is None:
        assert train_encoder(tiny_encoder(), texts, settings).history["grad_norm"].iloc[0] > 0
    else:
        with pytest.raises(ValueError, match=message):
            train_encoder(tiny_encoder(), texts, settings)


def test_a_weight_of_hard_negatives_is_for_triplets(pairs, tmp_path):
    base = BaseLoss(contrastive=0, hard=1.0)
    with pytest.raises(ValueError, match=r"hard is 1\.0, for triplets: .* has pairs, leave it out"):
        train_encoder(tiny_encoder(), pairs, config(tmp_path / "run"), base_loss=base)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"f1": 1.0}, "the evaluator gave f1: eval_metric 'spearman' is none of them"),
        (0.5, "the evaluator gave 0.5: it must give a dictionary of scores, 'spearman' among them"),
        ({"spearman": float("nan")}, "the evaluator gave spearman nan at step 1, by which no best model can be told"),
        ({"spearman": "1"}, "the evaluator gave spearman '1': every score must be a number"),
        ({"spearman": 1.0, "f1": None}, "the evaluator gave f1 None: every score must be a number"),
    ],
)
def test_an_evaluator_that_gives_no_score_to_choose_by_is_refused(triplets, tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", eval_every=1), evaluator=lambda encoder: given)


def test_tensorboard_gets_every_term_and_score(triplets, tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = {"report_to": ["tensorboard"], "logging_dir": str(tmp_path / "logs"), "eval_every": 2, "steps": 2}
    train_encoder(
        tiny_encoder(), triplets, config(tmp_path / "run", **settings), evaluator=lambda encoder: {"spearman": 3.0}
    )
    events = reading.EventAccumulator(str(tmp_path / "logs")).Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/alignment", "train/shallow_cut", "eval/spearman"} <= set(tags)
    assert [event.value for event in events.Scalars("eval/spearman")] == [3.0]


def test_loggers_that_are_not_there_are_refused_before_the_run(triplets, tmp_path):
    with pytest.raises(ValueError, match="report_to names tensorbord, which is not installed"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", report_to=["tensorbord"]))
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- the command line and the example

PLUGIN = """
from twodmse import Cell, Plan, register_recipe

def plan(draw):
    \"\"\"Nothing but the first layer.\"\"\"
    return Plan([Cell(1, draw.D, draw.options.align_weight, "first")], [], {})

register_recipe("first-layer", plan, source="a plugin", options={"align_weight": 1.0}, settings=())
"""


def test_a_plugin_makes_a_recipe_known_to_the_commands(triplets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_plugin.py").write_text(PLUGIN)
    tiny_encoder().save("model")
    table = pd.DataFrame(dict(zip(("premise", "positive", "negative"), triplets.columns, strict=True)))
    table.to_csv("rows.csv", index=False)
    run = CliRunner().invoke
    try:
        listed = run(app, ["recipes", "--plugin", "my_plugin"], terminal_width=200)
        assert "a plugin" in listed.output, listed.output
        command = ["train", "--plugin", "my_plugin.py", "--recipe", "first-layer", "--data", "rows.csv", "--steps", "1"]
        command += [
            "--columns",
            "premise=anchor",
            "--backbone",
            "model",
            "--batch-size",
            "8",
            "--set",
            "align_weight=2",
        ]
        result = run(app, command)
        assert result.exit_code == 0, result.output
        stored = json.loads(Path("runs/train/model/train_config.json").read_text())
        assert (stored["recipe"], stored["data_columns"]) == ("first-layer", ["premise=anchor"])
    finally:
        RECIPES.pop("first-layer", None)
    assert TrainConfig.read("runs/train/train_config.json").recipe == "own:first-layer"  # where no plugin is
    missing = run(app, ["recipes", "--plugin", "no_such_plugin"])
    assert (missing.exit_code, missing.output.count("\n")) == (1, 1)
    assert "there is no plugin 'no_such_plugin'" in missing.output


def test_the_example_runs_outside_the_package(tmp_path):
    model = tiny_encoder().save(tmp_path / "model")
    command = [sys.executable, EXAMPLES / "own_parts.py", tmp_path / "run", "4", model]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean over cells") == 4
    assert {"own:staircase", "own:margin", "own:data"} <= set(
        json.loads((tmp_path / "run" / "train_config.json").read_text())[name] for name in ("recipe", "loss", "data")
    )


def test_a_run_is_described_by_a_config_and_a_loss_by_a_function(triplets, tmp_path):
    with pytest.raises(ValueError, match="config is 'None': give a TrainConfig"):
        train(None)
    with pytest.raises(ValueError, match="base_loss is 'cosent': give a BaseLoss or a function"):
        train_encoder(tiny_encoder(), triplets, config(tmp_path / "run"), base_loss="cosent")
    with pytest.raises(ValueError, match="the plan of recipe 'mine' is 'no function'"):
        register_recipe("mine", "no function")
