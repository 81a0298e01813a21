"""The grid over training time: every checkpoint of a run is a whole model, and is scored like one."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from twodmse.checked import as_path
from twodmse.config import TrainConfig
from twodmse.data.tasks import load_tasks
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import check_grid, pairs_grid
from twodmse.training.checkpoints import fault
from twodmse.training.folders import last_step, stored_order
from twodmse.training.ordering import reorder
from twodmse.training.trainer import CONFIG_FILE

log = logging.getLogger(__name__)


def replay_grid(
    folder: str | Path,
    tasks: Sequence[Any] = ("mini-sts-validation",),
    dims: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    resamples: int = 0,
) -> pd.DataFrame:
    """Score the backbone a run started from and each of its checkpoints.

    Args:
        folder: of a run, as `train` writes it.
        tasks: as `sts_grid` takes them.
        dims: as `sts_grid` takes them.
        layers: as `sts_grid` takes them.
        resamples: as `sts_grid` takes them.

    Returns:
        The columns of `sts_grid` after a column ``step``; step 0 is the backbone, untrained, its coordinates
        in the order that the run gave them.

    Raises:
        FileNotFoundError: if the folder holds no run, or nothing of it but its config.
        ValueError: as `sts_grid`, and for a run that was trained from another encoder than its config's backbone; both
            after two models are loaded and before anything is scored.
    """
    folder = as_path(folder)
    models = models_by_step(folder)
    config = TrainConfig.read(folder / CONFIG_FILE)
    first = next(iter(models))
    trained = Encoder.load(models[first])
    layout = trained.layout
    encoder = Encoder.load(config.backbone, pooling=layout.pooling, max_length=layout.max_length)
    if (encoder.num_layers, encoder.backbone.dim) != (trained.num_layers, trained.backbone.dim):
        raise ValueError(
            f"{folder} says that it was trained from {config.backbone!r}, of {encoder.num_layers} layers and "
            f"{encoder.backbone.dim} dims, and its models have {trained.num_layers} and {trained.backbone.dim}: it was "
            "trained from another encoder in memory, so step 0 is not known; score its models with sts_grid"
        )
    if order := stored_order(folder, encoder.backbone.dim):
        reorder(encoder.backbone, order)
    layers, dims = check_grid(encoder, layers, dims)
    pairs = load_tasks(tasks)
    tables, loaded = [], {0: encoder, first: trained}
    for step in tqdm(sorted({0, *models}), desc="replay", unit="model"):
        encoder = loaded.pop(step) if step in loaded else Encoder.load(models[step])
        tables += [pairs_grid(encoder, one, dims, layers, resamples).assign(step=step) for one in pairs]
    table = pd.concat(tables, ignore_index=True)
    return table[["step", *table.columns.drop("step")]]


def models_by_step(folder: Path) -> dict[int, Path]:
    """Step -> model folder of a run: its whole checkpoints, and the finished model if no checkpoint holds it.

    A damaged checkpoint is left out with a warning that says why.

    Raises:
        FileNotFoundError: if the folder holds no run, or no model of it.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no {CONFIG_FILE}")
    found = {}
    for path in folder.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        reason = fault(path) if number.isdigit() else None
        if reason is not None:
            log.warning("%s is left out: %s", path, reason)
        elif number.isdigit():
            found[int(number)] = path
    if (folder / "model" / CONFIG_FILE).is_file():  # written last, when training is done
        found.setdefault(last_step(folder), folder / "model")
    if not found:
        raise FileNotFoundError(f"{folder} holds neither a whole checkpoint nor a finished model: train it further")
    return dict(sorted(found.items()))
