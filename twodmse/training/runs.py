"""Training: from a config to a run, or on with a run that was stopped."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import TrainerCallback

from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet, as_texts, load_texts
from twodmse.encoder.encoder import Encoder
from twodmse.files import write_table
from twodmse.names import OWN
from twodmse.objectives.objective import Base, BaseLoss, by_cell
from twodmse.objectives.plan import PlanOf
from twodmse.objectives.recipes import Recipe
from twodmse.training.arguments import (
    check_callbacks,
    check_loggers,
    check_plan,
    check_read,
    check_still,
    check_whole,
    put_back,
    set_dropout,
)
from twodmse.training.batches import DistinctBatches
from twodmse.training.checkpoints import last_complete, out_of_patience, step_of
from twodmse.training.distributed import check_processes, is_first
from twodmse.training.folders import (
    check_finished,
    check_run_folder,
    check_same_run,
    forget_start,
    held,
    is_finished,
    last_step,
    read_table,
    stored_order,
    tables_of,
    write_last_step,
    write_start,
)
from twodmse.training.ordering import best_order, check_orders, put_in_order
from twodmse.training.trainer import MODEL_FOLDER, CellTrainer, write_model
from twodmse.training.validation import Evaluator, evaluator_of

OwnLoss = Callable[[Sequence[Tensor], Tensor | None], Tensor]


@dataclass(frozen=True)
class Run:
    """What a training run made."""

    encoder: Encoder
    # One row a logged step: step, loss (mean of the steps since the row before); lr, the sampled layer and dim, and a
    # column a loss term are those of the step itself.
    history: pd.DataFrame
    folder: Path
    evaluations: pd.DataFrame = field(default_factory=pd.DataFrame)  # one row an evaluation: step, a column a score


def train(
    config: TrainConfig,
    resume: bool = False,
    *,
    recipe: PlanOf | None = None,
    base_loss: Base | OwnLoss | None = None,
    data: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
    evaluator: Evaluator | None = None,
) -> Run:
    """Train the backbone named in ``config`` on the data named there; see `train_encoder`.

    Args:
        config: every setting.
        resume: go on from the newest complete checkpoint in ``config.out``, as if the run had never stopped.
        recipe: as `train_encoder`.
        base_loss: as `train_encoder`.
        data: rows in memory instead of ``config.data``, as `as_texts` takes them.
        callbacks: as `train_encoder`.
        evaluator: as `train_encoder`.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: for anything that cannot work, before training starts.
    """
    if not isinstance(config, TrainConfig):
        raise ValueError(f"config is {str(config)[:80]!r}: give a TrainConfig")
    config = with_own(config, recipe, base_loss)
    texts = None
    if data is not None:
        for name in ("data_config", "data_split"):
            if (given := getattr(config, name)) is not None:
                raise ValueError(f"{name} is {given!r}, of a set of the hub: leave it out with rows in memory")
        texts = as_texts(data, "data", config.load_columns())
        config = dataclasses.replace(config, data=OWN + texts.name)
    elif config.data.startswith(OWN):
        raise ValueError(f"data is {config.data!r}, rows that were in memory: give them again, as data=...")
    check_run_folder(Path(config.out), config, resume)
    if texts is None:
        texts = load_texts(config.data, config.data_config, config.data_split, config.load_columns())
    encoder = Encoder.load(config.backbone, pooling=config.pooling, max_length=config.max_length)
    own = {"recipe": recipe, "base_loss": base_loss, "callbacks": callbacks, "evaluator": evaluator}
    return train_encoder(encoder, texts, config, resume, **own)


def train_encoder(
    encoder: Encoder,
    texts: Any,
    config: TrainConfig,
    resume: bool = False,
    *,
    recipe: PlanOf | None = None,
    base_loss: Base | OwnLoss | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    evaluator: Evaluator | None = None,
) -> Run:
    """Train ``encoder`` in place and write the run's folder: the model itself, its config and history.csv.

    A recipe and a base loss given here are stored as ``own:`` and their names. The encoder and the texts are taken for
    what ``config.backbone`` and ``config.data`` name, which are stored as they are: name them there.

    Args:
        encoder: the encoder to train.
        texts: the data to train on, as `as_texts` takes them.
        config: every setting.
        resume: go on from the newest complete checkpoint in ``config.out``, as if the run had never stopped; of a
            finished run ``encoder`` takes over the weights.
        recipe: a plan of your own instead of ``config.recipe``: a function of a `Draw` that gives a `Plan`.
        base_loss: instead of ``config.loss``: a `BaseLoss`, or ``loss(columns, gold)``, called for each trained cell
            with its 2 or 3 columns (b, d) and scores (b,) or None, that gives a scalar.
        callbacks: more of transformers' callbacks.
        evaluator: called every ``config.eval_every`` steps instead of scoring ``config.eval_cells``: a function of the
            encoder that gives scores by name, greater is better.

    Raises:
        ValueError: if config, data and encoder do not fit together, or the encoder was cut in width.
        FileExistsError: if ``config.out`` holds a run already and ``resume`` is false.
        NotFiniteError: if the loss becomes NaN or infinite; the last checkpoint stays.
    """
    check_whole(encoder)
    texts = as_texts(texts, "data")
    check_read(config, encoder)
    config = with_own(config, recipe, base_loss)
    with held(Path(config.out), config, texts, resume):
        return _train(encoder, texts, config, resume, recipe, base_loss, callbacks, evaluator)


def _train(
    encoder: Encoder,
    texts: TextSet,
    config: TrainConfig,
    resume: bool,
    plan: PlanOf | None,
    base_loss: Base | OwnLoss | None,
    callbacks: Sequence[TrainerCallback],
    evaluator: Evaluator | None,
) -> Run:
    folder = Path(config.out)
    checkpoint = last_complete(folder, encoder.backbone) if resume else None
    check_callbacks(callbacks, config)
    if checkpoint is not None:
        check_same_run(checkpoint, config)
        over = step_of(checkpoint) == config.steps or out_of_patience(checkpoint, callbacks)
        if over and is_finished(folder) and last_step(folder) == step_of(checkpoint):
            check_finished(folder, checkpoint)
            history, evaluations = (read_table(path) for path in tables_of(folder))
            if order := stored_order(folder, encoder.backbone.dim):
                put_in_order(encoder, None, order)
            encoder.backbone.load_state_dict(Encoder.load(folder / MODEL_FOLDER).backbone.state_dict())
            return ended(Run(encoder, history, folder, evaluations))
    check_loggers(config.report_to)
    with put_back(encoder.backbone):
        trainer = run_trainer(encoder, texts, config, checkpoint, plan, base_loss, callbacks, evaluator)
    run = Run(encoder, trainer.history(), folder, trainer.evaluations())
    done = trainer.state.global_step
    if is_first() and not (is_finished(folder) and last_step(folder) == done):
        history, evaluations = tables_of(folder)
        write_table(run.history, history)
        if config.eval_every:
            write_table(run.evaluations, evaluations)
        write_last_step(folder, done, config.steps)
        write_model(encoder, folder / MODEL_FOLDER, config)
    return ended(run)


def ended(run: Run) -> Run:
    """The run, its encoder ready to be used."""
    run.encoder.backbone.eval()
    run.encoder.backbone.model.config._name_or_path = str(run.folder / MODEL_FOLDER)  # there a card finds its training
    return run


def run_trainer(
    encoder: Encoder,
    texts: TextSet,
    config: TrainConfig,
    checkpoint: Path | None,
    plan: PlanOf | None,
    base_loss: Base | OwnLoss | None,
    callbacks: Sequence[TrainerCallback],
    evaluator: Evaluator | None,
) -> CellTrainer:
    """The trainer after its last step; a start that fails leaves the folder and the order of coordinates as they were.

    The arguments are those of `_train`, and the checkpoint to go on from.
    """
    folder = Path(config.out)
    teacher = Encoder.load(config.teacher) if config.teacher is not None else None
    set_dropout(encoder.backbone, config.dropout)
    if config.dropout == 0:
        check_still(encoder)
    recipe = recipe_of(config, encoder, teacher, plan)
    check_plan(recipe, config)
    check_orders(encoder, teacher, recipe)
    check_processes(config.batch_size)
    evaluator = evaluator_of(config, encoder, evaluator)
    batches = DistinctBatches(texts, config.batch_size, config.steps, config.seed)
    base = base_of(config, texts, base_loss)
    trainer = CellTrainer(encoder, texts, batches, recipe, base, config, teacher, callbacks, evaluator)
    order = None
    if config.order_dims:
        order = stored_order(folder, encoder.backbone.dim) or best_order(encoder, texts).tolist()
        put_in_order(encoder, teacher, order)
    fresh = is_first() and not (folder.is_dir() and any(folder.iterdir()))
    try:
        if is_first():
            write_start(folder, config, texts, order)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException:
        if fresh and not trainer.state.global_step:
            forget_start(folder)
        if order is not None and not trainer.state.global_step:
            put_in_order(encoder, None, np.argsort(order).tolist())
        raise
    return trainer


def with_own(config: TrainConfig, recipe: PlanOf | None, base_loss: Base | OwnLoss | None) -> TrainConfig:
    """The config with the names of parts that were given.

    Raises:
        ValueError: if it names one that was not given.
    """
    if base_loss is not None and not callable(base_loss):
        raise ValueError(
            f"base_loss is {base_loss!r}: give a BaseLoss or a function; a name goes into the config's loss"
        )
    given = {"recipe": recipe, "loss": base_loss}
    names = {k: OWN + getattr(part, "__name__", type(part).__name__) for k, part in given.items() if part is not None}
    config = dataclasses.replace(config, **names)
    for name, part in given.items():
        if part is None and getattr(config, name).startswith(OWN):
            argument = "base_loss" if name == "loss" else name
            raise ValueError(f"{name} is {getattr(config, name)!r}, your own: give it again, as {argument}=...")
    return config


def base_of(config: TrainConfig, texts: TextSet, own: Base | OwnLoss | None = None) -> Base:
    """The base loss of a run on these data.

    Raises:
        ValueError: for graded scores under an in-batch term, ``hard_weight`` where there is nothing that it weighs, or
            data among which the loss finds nothing to compare.
    """
    if own is not None and not isinstance(own, BaseLoss):
        return by_cell(own)
    scored = texts.gold is not None
    if config.hard_weight is not None and len(texts.columns) < 3:
        raise ValueError(f"hard_weight is {config.hard_weight}, for triplets: {texts.name} has pairs, leave it out")
    base = own or BaseLoss.named(config.loss, scored, config.mix, config.scale, config.angle_scale, config.hard_weight)
    if scored:
        base.check_labels(torch.from_numpy(texts.gold))
    base.check_compares(texts.name, len(texts.columns), texts.gold)
    return base


def recipe_of(
    config: TrainConfig, encoder: Encoder, teacher: Encoder | None = None, plan: PlanOf | None = None
) -> Recipe:
    """The config's recipe, or a plan of one's own, for this encoder's N and D and the teacher's width."""
    return Recipe(
        plan or config.recipe,
        encoder.num_layers,
        encoder.backbone.dim,
        config.dims,
        config.seed,
        teacher_dim=teacher and teacher.dim,
        **config.recipe_options(),
    )
