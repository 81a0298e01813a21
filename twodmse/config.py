"""TrainConfig: every setting of a training run in one frozen dataclass, stored with the model it made."""

from __future__ import annotations  # signatures show the names of types, not what pydantic makes of them

import dataclasses
import difflib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field

from twodmse.checked import Count, Number, Place, Text, as_path, checked, plain, read_json
from twodmse.names import OWN, unknown
from twodmse.objectives.recipes import BASE_LOSSES, RECIPES, every_option, recipe_settings, spec_of
from twodmse.presets import PRESETS

log = logging.getLogger(__name__)

# What a setting may be, with its range.
CountOr0 = Annotated[int, Field(ge=0, lt=2**31)]
LearningRate = Annotated[Number, Field(gt=0, le=10)]
Multiple = Annotated[Number, Field(gt=0, le=1000)]
Part = Annotated[Number, Field(ge=0, le=1)]
Pooling = Literal["mean", "cls", "last"]
Precision = Literal["auto", "fp32", "bf16"]
Scale = Annotated[Number, Field(gt=0, le=10_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Temperature = Annotated[Number, Field(ge=1e-6, le=10)]  # above, KL is lost in the rounding of float32
Weight = Annotated[Number, Field(ge=0, le=1e6)]
Renaming = Annotated[str, Field(pattern="^[^=]+=[^=]+$")]
NEEDS = {"eval_data": "eval_every", "eval_cells": "eval_every", "eval_metric": "eval_every", "logging_dir": "report_to"}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    The default ``lr`` is for the bundled backbone, by one rule: of a few rates, the one after which the mean over all
    cells is highest on validation pairs, after a short training. On all-nli (STS-B validation) every recipe's sweep
    chose this one, on the bundled corpus (mini-sts-validation) that of 2dmse did. The last layer pays for what the
    others gain: both sweeps store its score at each rate. A larger backbone wants less: see the preset ``paper``.

    Args:
        recipe: what is trained: see `twodmse recipes`.
        data: mini-nli, all-nli, all-nli-labelled, stsb-train, hub:owner/name, or a file: CSV, TSV, JSON lines, parquet.
        data_config: of a hub: data set, where it has several.
        data_split: of a hub: data set; None is train.
        data_columns: of a hub: data set or a file: "premise=anchor", its name and what it is.
        backbone: the encoder to start from: bundled, a hub id or a folder.
        out: folder of the run: model, history, checkpoints.
        steps: optimizer steps; the data are gone through as often as that takes.
        batch_size: triplets or pairs a step, over all processes.
        lr: peak learning rate of AdamW, after the warm-up, then falling linearly to 0; see above.
        first_lr: the first layer's learning rate as a multiple of lr, the last one's; even ratios between.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: of AdamW; biases and norms are left out.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them alone.
        seed: of the data order, the dropout and the sampled layers and dims.
        precision: fp32, bf16 (autocast), or auto: bf16 where computed natively, fp16 on other GPUs.
        pooling: mean, cls, last; None keeps the backbone's own.
        max_length: tokens a text; longer ones are cut.
        chunks: parts a batch is cut into by length: less padding is computed, the gradient is the same.
        dropout: overrides the backbone's dropout; None keeps it.
        order_dims: start from the same encoder with its coordinates reordered, the best for a cut first.
        noise: share of the words replaced in a copy of each row's last text, which the alignments see too.
        loss: base loss of every cell: contrastive, cosent, angle, mix; auto fits the data.
        mix: weights of contrastive, cosent and angle under loss="mix".
        scale: cosines are multiplied by this (1 / temperature) in the base loss.
        angle_scale: the same for the angle term; None is scale.
        hard_weight: mix on triplets, as AnglE 0.6 (cln_w): ranking with hard negatives, apart.
        dims: dims the recipe draws from or trains; () is the recipe's own default.
        last_layer: 2dmse, and grid with a teacher: keep the base loss of the last layer.
        alignment: 2dmse, grid and cascade: keep the alignment of the lower cells; in 2dmse the KL to the last layer.
        matryoshka: 2dmse: keep the cut dims.
        shallow_weight: 2dmse: multiplies the base loss of the sampled layer; lower spares the last layer.
        two_passes: as the first version: the layers below the last come from a second forward pass.
        temperature: of the alignment; None is the recipe's own.
        align_weight: multiplies the alignment's own weight.
        compress_dim: ese: width of the compression.
        teacher: grid: the frozen encoder every cell is drawn to; None is the own last layer.
        hold_weight: grid with a teacher as wide as the backbone: of holding every layer's direction.
        pair_weight: grid with a teacher: of ranking the pairs within each row as the teacher does.
        cache_chunk: texts a chunk under gradient caching, for batches that do not fit in memory; 0 is off.
        save_every: steps between checkpoints; each is a whole usable model.
        keep: newest checkpoints kept.
        log_every: steps between rows of history.csv; the loss is the mean since the last row, the terms the step's.
        eval_every: steps between evaluations; the best model so far is kept in best/; 0 is off.
        eval_data: scored pairs to evaluate on, as a task of `twodmse grid`.
        eval_cells: (layer, dim) of those scored; () is every layer, default dims.
        eval_metric: the score that says which model is best: their mean, or one as "spearman_3_64".
        report_to: loggers of transformers: tensorboard, wandb and so on.
        logging_dir: where tensorboard writes; None is a folder inside out.

    Raises:
        ValueError: for a value that cannot work; the message names the field, the value and what would be right.
    """

    recipe: Text = "2dmse"
    data: Place = "mini-nli"
    data_config: Text | None = None
    data_split: Text | None = None
    data_columns: tuple[Renaming, ...] = ()
    backbone: Place = "bundled"
    out: Place = "runs/train"

    steps: Count = 100
    batch_size: Annotated[Count, Field(ge=2)] = 64
    lr: LearningRate = 4e-4
    first_lr: Multiple = 1.0
    warmup: Share = 0.1
    weight_decay: Weight = 0.0
    max_grad_norm: Weight = 1.0
    seed: Seed = 0
    precision: Precision = "auto"

    pooling: Pooling | None = None
    max_length: Annotated[Count, Field(ge=3)] = 128
    chunks: Count = 4
    dropout: Share | None = None

    order_dims: bool = False
    noise: Part = 0.0

    loss: str = "auto"
    mix: tuple[Weight, Weight, Weight] = (1.0, 1.0, 1.0)
    scale: Scale = 20.0
    angle_scale: Scale | None = None
    hard_weight: Weight | None = None
    dims: tuple[Count, ...] = ()

    last_layer: bool = True
    alignment: bool = True
    matryoshka: bool = True
    shallow_weight: Weight = 1.0
    two_passes: bool = False
    temperature: Temperature | None = None
    align_weight: Weight = 1.0
    compress_dim: Count = 128
    teacher: Place | None = None
    hold_weight: Weight = 1.0
    pair_weight: Weight = 0.0
    cache_chunk: CountOr0 = 0

    save_every: Count = 100
    keep: Count = 2
    log_every: Count = 1

    eval_every: CountOr0 = 0
    eval_data: Place = "mini-sts-validation"
    eval_cells: tuple[tuple[Count, Count], ...] = ()
    eval_metric: Text = "spearman"
    report_to: tuple[Text, ...] = ()
    logging_dir: Place | None = None

    def __post_init__(self) -> None:
        if isinstance(self.eval_cells, list | tuple):  # JSON has lists
            object.__setattr__(self, "eval_cells", tuple(map(plain, self.eval_cells)))
        for name, kind in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, checked(kind, getattr(self, name), name))
        good = not (self.cache_chunk and self.two_passes)
        self._require("cache_chunk", good, "0 with two_passes, which needs both passes at once")
        olds = [column.partition("=")[0] for column in self.data_columns]
        self._require("data_columns", len(set(olds)) == len(olds), "each column once")
        self._require("mix", sum(self.mix) > 0, "three weights, not all 0: contrastive, cosent, angle")
        self._require("log_every", self.log_every <= self.steps, f"at most steps, {self.steps}, or nothing is logged")
        self._require("eval_every", self.eval_every <= self.steps, f"at most steps, {self.steps}, or nothing is scored")
        if self.loss not in BASE_LOSSES and not self.loss.startswith(OWN):
            raise ValueError(unknown("loss", self.loss, BASE_LOSSES))
        if self.teacher is not None and is_missing_folder(self.teacher):
            folder = Path(self.teacher)
            near = difflib.get_close_matches(folder.name, [one.name for one in folder.parent.glob("*/")], n=1)
            hint = f"did you mean {folder.parent / near[0]}?" if near else "give 'bundled', a folder, or a hub id"
            raise ValueError(f"teacher is {self.teacher!r}, and there is no such folder: {hint}")
        for name, why in without_effect(dataclasses.asdict(self)).items():
            raise ValueError(f"{name} is {getattr(self, name)!r}: {why}, leave it at {DEFAULTS[name]!r}")

    def recipe_options(self) -> dict[str, Any]:
        """The options of the recipe that are settings of a run, as `Recipe` takes them."""
        own = self.recipe.startswith(OWN)
        options = every_option() if own else spec_of(self.recipe, self.teacher is not None).options
        return {name: getattr(self, name) for name in options if name in DEFAULTS}

    def load_columns(self) -> dict[str, str]:
        """``data_columns`` as `load_texts` takes them."""
        return dict(column.split("=") for column in self.data_columns)

    def _require(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise ValueError(f"{name} is {getattr(self, name)!r}: it must be {wanted}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """A config from a dictionary, refusing keys it does not know.

        Raises:
            ValueError: for an unknown key (the nearest known one is named) or a value that cannot work.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                raise ValueError(f"unknown config key {key!r}: {hint}")
        return cls(**values)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrainConfig:
        """A named preset with changes on top.

        Raises:
            ValueError: for an unknown preset.
        """
        if name not in PRESETS:
            raise ValueError(unknown("preset", name, PRESETS))
        return cls.from_dict(PRESETS[name] | changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: str | Path) -> TrainConfig:
        """The config stored in a JSON file.

        What has no effect in it is left out, with a warning. Its recipe may be one that is not known here, its teacher
        a folder that has gone: the file says what was done.
        """
        values = read_json(as_path(path), dict[str, Any])
        recipe = checked(Text, values.get("recipe", DEFAULTS["recipe"]), f"{path}: recipe")
        values["recipe"] = recipe if recipe in RECIPES or recipe.startswith(OWN) else OWN + recipe
        for name, why in without_effect(DEFAULTS | values).items():
            log.warning("%s: %s is left out: %s", path, name, why)
            del values[name]
        teacher = values.get("teacher")
        gone = isinstance(teacher, str) and is_missing_folder(teacher)
        try:
            config = cls.from_dict(values | ({"teacher": "bundled"} if gone else {}))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        object.__setattr__(config, "teacher", teacher if gone else config.teacher)
        return config


# The base losses that use a setting.
OF_LOSSES = {"scale": [*BASE_LOSSES], "mix": ["mix"], "hard_weight": ["mix"], "angle_scale": ["mix", "angle"]}
DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}


def is_default(setting: str, value: Any) -> bool:
    """Whether a value, also as JSON holds it, is the default of a setting."""
    return (tuple(value) if isinstance(value, list) else value) == DEFAULTS[setting]


def is_missing_folder(model: str) -> bool:
    """Whether a model's name can only be a folder, and there is none."""
    looks_local = model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1
    return looks_local and not Path(model).expanduser().exists()


def without_effect(values: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are not their defaults and change nothing about the recipe and the base loss, and why not.

    Args:
        values: every setting of a run, by name.

    Raises:
        ValueError: for an unknown recipe.
    """
    name, teacher = values["recipe"], values["teacher"] is not None
    found = {
        setting: f"without {other} it has no effect"
        for setting, other in NEEDS.items()
        if not is_default(setting, values[setting]) and not values[other]
    }
    for setting, losses in OF_LOSSES.items():
        if values["loss"] not in losses and not is_default(setting, values[setting]):
            found[setting] = f"loss {values['loss']!r} does not use it"
    if values["cache_chunk"] and not is_default("chunks", values["chunks"]):
        found["chunks"] = "cache_chunk says how many texts a chunk has"
    if name.startswith(OWN):  # it may look at any option
        return found
    spec = spec_of(name)
    called = f"recipe {name!r}"
    if spec.with_teacher:
        called += " with a teacher" if teacher else " without a teacher"
        spec = spec.with_teacher if teacher else spec
    for setting in sorted(recipe_settings() & set(DEFAULTS), key=list(DEFAULTS).index):
        switch = spec.needs.get(setting)
        if is_default(setting, values[setting]):
            continue
        if setting not in spec.uses:
            found[setting] = f"{called} does not use it"
        elif switch and not values[switch]:
            found[setting] = f"without {switch} it has no effect"
    return found
