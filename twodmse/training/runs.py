"""Training: from a config to a run, or on with a run that was stopped."""

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet, load_texts
from twodmse.encoder.encoder import Encoder
from twodmse.files import atomic_file
from twodmse.objectives.objective import BaseLoss
from twodmse.objectives.recipes import Recipe
from twodmse.training.batches import DistinctBatches
from twodmse.training.checkpoints import last_complete, step_of
from twodmse.training.distributed import is_first
from twodmse.training.folders import (
    HISTORY_FILE,
    check_run_folder,
    check_same_run,
    held,
    is_finished,
    stored_order,
    write_start,
)
from twodmse.training.ordering import best_order, reorder
from twodmse.training.trainer import CellTrainer, set_dropout, write_config


@dataclass(frozen=True)
class Run:
    """What a training run made."""

    encoder: Encoder
    history: pd.DataFrame  # one row a logged step: step, loss, lr, the sampled layer and dim, one column a loss term
    folder: Path


def train(config: TrainConfig, resume: bool = False) -> Run:
    """Train the backbone named in ``config`` on the data named there; see `train_encoder`.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: for anything that cannot work, before training starts.
    """
    check_run_folder(Path(config.out), config, resume)
    encoder = Encoder.load(config.backbone, pooling=config.pooling, max_length=config.max_length)
    return train_encoder(encoder, load_texts(config.data), config, resume)


def train_encoder(encoder: Encoder, texts: TextSet, config: TrainConfig, resume: bool = False) -> Run:
    """Train ``encoder`` in place and write the run's folder: the model itself, its config and history.csv.

    Args:
        encoder: the encoder to train.
        texts: the data to train on.
        config: every setting.
        resume: go on from the newest complete checkpoint in ``config.out``, as if the run had never stopped.

    Raises:
        ValueError: if config, data and encoder do not fit together.
        FileExistsError: if ``config.out`` holds a run already and ``resume`` is false.
        NotFiniteError: if the loss becomes NaN or infinite; the last checkpoint stays.
    """
    with held(Path(config.out), config, texts, resume):
        return _train(encoder, texts, config, resume)


def _train(encoder: Encoder, texts: TextSet, config: TrainConfig, resume: bool) -> Run:
    folder = Path(config.out)
    checkpoint = last_complete(folder, encoder.backbone) if resume else None
    if checkpoint is not None:
        check_same_run(checkpoint, config)
        if is_finished(folder) and step_of(checkpoint) == config.steps:
            return Run(Encoder.load(folder / "model"), pd.read_csv(folder / HISTORY_FILE), folder)
    teacher = Encoder.load(config.teacher) if config.teacher is not None else None
    set_dropout(encoder.backbone, config.dropout)
    recipe = recipe_of(config, encoder, teacher)
    if config.noise and not recipe.plan(0).alignments:
        raise ValueError(f"noise is {config.noise}, for alignments: {recipe.name!r} as set has none, use noise=0")
    check_processes(config)
    batches = DistinctBatches(texts, config.batch_size, config.steps, config.seed)
    base = base_loss(config, texts)
    order = None
    if config.order_dims:
        order = stored_order(folder, encoder.backbone.dim) or best_order(encoder, texts).tolist()
        put_in_order(encoder, teacher, order)
    if is_first():
        write_start(folder, config, texts, order)
    trainer = CellTrainer(encoder, texts, batches, recipe, base, config, teacher)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    encoder.backbone.eval()
    history = trainer.history()
    if is_first() and not is_finished(folder):
        with atomic_file(folder / HISTORY_FILE) as path:
            history.to_csv(path, index=False)
        encoder.save(folder / "model", overwrite=True)
        write_config(folder / "model", config)
    return Run(encoder, history, folder)


def base_loss(config: TrainConfig, texts: TextSet) -> BaseLoss:
    """The config's base loss for these data.

    Raises:
        ValueError: for graded scores under an in-batch term, or ``hard_weight`` where there is nothing that it weighs.
    """
    scored = texts.gold is not None
    if config.hard_weight is not None and len(texts.columns) < 3:
        raise ValueError(f"hard_weight is {config.hard_weight}, for triplets: {texts.name} has pairs, leave it out")
    base = BaseLoss.named(config.loss, scored, config.mix, config.scale, config.angle_scale, config.hard_weight)
    if scored:
        base.check_labels(torch.from_numpy(texts.gold))
    return base


def recipe_of(config: TrainConfig, encoder: Encoder, teacher: Encoder | None = None) -> Recipe:
    """The config's recipe for this encoder's N and D, and the teacher's width."""
    return Recipe(
        config.recipe,
        encoder.num_layers,
        encoder.backbone.dim,
        config.dims,
        config.seed,
        teacher_dim=teacher and teacher.dim,
        **config.recipe_options(),
    )


def put_in_order(encoder: Encoder, teacher: Encoder | None, order: list[int]) -> None:
    """Reorder an encoder's coordinates, and with them those of a teacher as wide."""
    for one in (encoder, teacher):
        if one is not None and one.backbone.dim == len(order):
            reorder(one.backbone, order)


def check_processes(config: TrainConfig) -> None:
    """Refuse a batch that the processes of this run cannot share equally.

    Raises:
        ValueError: naming the batch size and the number of processes.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.batch_size % processes:
        raise ValueError(f"batch_size {config.batch_size} cannot be shared equally by {processes} processes")
