"""Every field of TrainConfig reaches what it sets: each is set once, and what shows it is read off the run."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from conftest import sentences, tiny_encoder
from datasets import Dataset
from test_training import weights
from torch import nn
from transformers.integrations import TensorBoardCallback

from twodmse import TrainConfig, train
from twodmse.training.trainer import CellTrainer

NAMES = ("anchor", "positive", "negative")


class Shows(NamedTuple):
    """A value of a field, and what a run shows of it."""

    value: Any
    read: Callable[[CellTrainer], Any]  # of a trainer that is about to start
    expected: Any
    besides: Mapping[str, Any] = MappingProxyType({})  # other settings, without which the field has no effect


def argument(name: str) -> Callable[[CellTrainer], Any]:
    return lambda trainer: getattr(trainer.args, name)


def base(name: str) -> Callable[[CellTrainer], Any]:
    return lambda trainer: getattr(trainer.base, name)


def terms(trainer: CellTrainer) -> list[str]:
    plan = trainer.recipe.plan(0)
    return sorted({one.term for one in (*plan.cells, *plan.alignments)})


def weight(term: str) -> Callable[[CellTrainer], float]:
    def read(trainer: CellTrainer) -> float:
        plan = trainer.recipe.plan(0)
        return next((one.weight for one in (*plan.cells, *plan.alignments) if one.term == term), 0.0)

    return read


def warm_up(trainer: CellTrainer) -> list[float]:
    trainer.create_optimizer_and_scheduler(trainer.args.max_steps)
    return [trainer.lr_scheduler.lr_lambdas[0](step) for step in range(3)]


def rates(trainer: CellTrainer) -> set[float]:
    return {round(group["lr"], 9) for group in trainer.create_optimizer().param_groups}


def chunks(trainer: CellTrainer) -> list[int]:
    rows = [trainer.train_dataset[i] for i in range(4)]  # 12 texts
    return [len(chunk["input_ids"]) for chunk in trainer.data_collator(rows)["chunks"]]


def passes(trainer: CellTrainer) -> int:
    seen = []
    trainer.encoder.backbone.register_forward_hook(lambda *_: seen.append(1))
    trainer.train()
    return len(seen)


def checkpoints(trainer: CellTrainer) -> int:
    trainer.train()
    return len(list(Path(trainer.args.output_dir).glob("checkpoint-*")))


def dropouts(trainer: CellTrainer) -> set[float]:
    return {module.p for module in trainer.encoder.backbone.modules() if isinstance(module, nn.Dropout)}


def log_folders(trainer: CellTrainer) -> list[str]:
    return [one.logging_dir for one in trainer.callback_handler.callbacks if isinstance(one, TensorBoardCallback)]


ALONE = {"steps": 1, "log_every": 1}
TAUGHT = {"recipe": "grid", "teacher": "model"}
EVALUATED = {"eval_every": 2, "eval_data": "pairs.csv"}
FIELDS = {
    "recipe": Shows("mrl", terms, ["last_16", "last_32", "last_8"]),
    "data": Shows("other.csv", lambda t: len(t.train_dataset), 20),
    "data_config": Shows("small", lambda t: t.train_dataset[0]["texts"][0], "small train 0", {"data": "hub:a/b"}),
    "data_split": Shows("dev", lambda t: t.train_dataset[0]["texts"][0], "None dev 0", {"data": "hub:a/b"}),
    "data_columns": Shows(
        ("negative=positive", "positive=negative"), lambda t: t.train_dataset[0]["texts"][1], sentences(96, 1)[64]
    ),
    "backbone": Shows("small", lambda t: t.encoder.num_layers, 3),
    "out": Shows("elsewhere", argument("output_dir"), "elsewhere"),
    "steps": Shows(7, lambda t: (t.args.max_steps, len(t.batches)), (7, 7)),
    "batch_size": Shows(6, lambda t: (t.args.per_device_train_batch_size, len(next(iter(t.batches)))), (6, 6)),
    "lr": Shows(3e-3, argument("learning_rate"), 3e-3),
    "first_lr": Shows(8, rates, {8e-4, 4e-4, 2e-4, 1e-4}, {"lr": 1e-4}),
    "warmup": Shows(0.5, warm_up, [0.0, 0.5, 1.0]),
    "weight_decay": Shows(0.3, lambda t: {g["weight_decay"] for g in t.create_optimizer().param_groups}, {0.3, 0.0}),
    "max_grad_norm": Shows(0.2, argument("max_grad_norm"), 0.2),
    "seed": Shows(5, lambda t: {t.args.seed, t.batches.seed, t.recipe.seed, t.data_collator.seed}, {5}),
    "precision": Shows("bf16", argument("bf16"), True),
    "pooling": Shows("cls", lambda t: t.encoder.layout.pooling, "cls"),
    "max_length": Shows(9, lambda t: t.encoder.layout.max_length, 9),
    "chunks": Shows(3, chunks, [4, 4, 4]),
    "dropout": Shows(0.25, dropouts, {0.25}),
    "order_dims": Shows(True, lambda t: torch.equal(weights(t.encoder), weights(tiny_encoder())), False),
    "noise": Shows(0.5, lambda t: t.data_collator([t.train_dataset[0]])["columns"], 4),
    "loss": Shows("angle", base("angle"), 1.0),
    "mix": Shows((1, 2, 3), lambda t: (t.base.contrastive, t.base.cosent, t.base.angle), (1, 2, 3), {"loss": "mix"}),
    "scale": Shows(30, base("scale"), 30),
    "angle_scale": Shows(3, base("angle_scale"), 3, {"loss": "angle"}),
    "hard_weight": Shows(2, base("hard"), 2, {"loss": "mix"}),
    "dims": Shows((4, 12), lambda t: t.recipe.dims, (4, 12)),
    "last_layer": Shows(False, terms, ["alignment", "shallow_cut", "shallow_full"]),
    "alignment": Shows(False, terms, ["last_cut", "last_full", "shallow_cut", "shallow_full"]),
    "matryoshka": Shows(False, terms, ["alignment", "last_full", "shallow_full"]),
    "shallow_weight": Shows(0.5, weight("shallow_full"), 0.5),
    "two_passes": Shows(True, passes, 2, ALONE),
    "temperature": Shows(2, lambda t: t.recipe.plan(0).alignments[0].temperature, 2),
    "align_weight": Shows(3, weight("alignment"), 3),
    "compress_dim": Shows(8, lambda t: t.recipe.cells(0)[0], (0, 8), {"recipe": "ese"}),
    "teacher": Shows("small", lambda t: t.teacher and t.teacher.num_layers, 3, {"recipe": "grid"}),
    "hold_weight": Shows(2, weight("hold_1"), 0.5, TAUGHT),
    "pair_weight": Shows(2, weight("pairs_1"), 2 / 12, TAUGHT),
    "cache_chunk": Shows(6, chunks, [6, 6]),
    "save_every": Shows(3, argument("save_steps"), 3),
    "keep": Shows(1, checkpoints, 1, {"steps": 3, "save_every": 1}),
    "log_every": Shows(2, argument("logging_steps"), 2),
    "eval_every": Shows(2, lambda t: (t.args.eval_strategy, t.args.eval_steps), ("steps", 2)),
    "eval_data": Shows(
        "pairs.csv",
        lambda t: inspect.getclosurevars(t.evaluator).nonlocals["pairs"].name,
        "pairs.csv",
        {"eval_every": 2},
    ),
    "eval_cells": Shows([[2, 8]], lambda t: list(t.evaluator(t.encoder)), ["spearman", "spearman_2_8"], EVALUATED),
    "eval_metric": Shows("spearman_2_8", argument("metric_for_best_model"), "eval_spearman_2_8", EVALUATED),
    "report_to": Shows(("tensorboard",), argument("report_to"), ["tensorboard"]),
    "logging_dir": Shows("logs", log_folders, ["logs"], {"report_to": ("tensorboard",)}),
}


class AboutToStartError(Exception):
    """Carries the trainer of a run that was stopped before its first step."""


@pytest.fixture
def read_of(triplets, pairs, tmp_path, monkeypatch):
    """What is read of the trainer that a run with these settings builds, as it is about to start."""
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame(dict(zip(NAMES, triplets.columns, strict=True)))
    table.to_csv("rows.csv", index=False)
    table.head(20).to_csv("other.csv", index=False)
    scored = pd.DataFrame({"sentence1": pairs.columns[0], "sentence2": pairs.columns[1], "score": pairs.gold})
    scored.to_csv("pairs.csv", index=False)
    tiny_encoder().save("model")
    tiny_encoder(layers=3).save("small")

    def load_dataset(repo, config, split):
        return Dataset.from_dict(
            {name: [f"{config} {split} {i + 9 * k}" for i in range(9)] for k, name in enumerate(NAMES)}
        )

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    settings = {"data": "rows.csv", "backbone": "model", "batch_size": 8, "steps": 4, "precision": "fp32"}

    def build(read, **changes):
        config = TrainConfig(**settings | changes)
        with monkeypatch.context() as patch:

            def stop(self, **_):
                patch.undo()  # some are read by training
                raise AboutToStartError(read(self))

            patch.setattr(CellTrainer, "train", stop)
            with pytest.raises(AboutToStartError) as stopped:
                train(config)
        return stopped.value.args[0]

    return build


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig)])
def test_every_field_reaches_what_it_sets(name, read_of):
    field = FIELDS[name]
    found = read_of(field.read, **field.besides, **{name: field.value})
    assert found == (pytest.approx(field.expected) if isinstance(field.expected, float) else field.expected)
    assert read_of(field.read, **{"out": "plain"} | field.besides) != found
