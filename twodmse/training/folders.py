"""The folder of a run: held by one process, gone on with only by the run that it belongs to."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from twodmse.checked import Count, Sha256, checked, read_json
from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet
from twodmse.files import MARK, atomic_file, check_folder, locked, remove
from twodmse.training.checkpoints import MANIFEST, Manifest, hash_of_file
from twodmse.training.distributed import is_first
from twodmse.training.trainer import BEST_FOLDER, CONFIG_FILE, MODEL_FOLDER, write_config

log = logging.getLogger(__name__)

HISTORY_FILE = "history.csv"
EVALUATIONS_FILE = "evaluations.csv"
WEIGHTS_FILE = "model.safetensors"
ORDER_FILE = "dims_order.json"
RUN_FILE = "run.json"
STOPPED_FILE = "stopped.json"
# What a run writes as it begins, and what is left of such a file that was being written.
START = re.compile(r"(dims_order|run|train_config)\.json|\.(dims_order|run|train_config)-[0-9a-f]{8}\.json")
# Settings that a resumed run may change: they only say what is stored, looked at and shown.
FREE = (
    "out", "keep", "save_every", "log_every", "report_to", "logging_dir",
    "eval_every", "eval_data", "eval_cells", "eval_metric",
)  # fmt: skip

# What run.json holds: hashes of what a run goes on with besides its settings; that of the order where it has one.
Facts = dict[Literal["data_sha256", "dims_order_sha256"], Sha256]


@contextmanager
def held(folder: Path, config: TrainConfig, texts: TextSet, resume: bool) -> Iterator[None]:
    """Keep other processes out of a run's folder, and this one out of a folder that is not this run's.

    Args:
        folder: of the run.
        config: its settings.
        texts: its data.
        resume: go on with what the folder holds.

    Raises:
        ValueError, FileExistsError: as `check_run_folder`, and if another process trains there.
    """
    if not is_first():
        yield
        return
    with locked(folder):
        check_run_folder(folder, config, resume, texts)
        yield


def forget_start(folder: Path) -> None:
    """Take away what `write_start` wrote, and the folder if nothing else lies there: a failed start blocks no other."""
    remove(folder, START.fullmatch)


def check_run_folder(folder: Path, config: TrainConfig, resume: bool, texts: TextSet | None = None) -> None:
    """Refuse to write over anything, and to go on with what is not this very run.

    Args:
        folder: of the run.
        config: its settings.
        resume: go on with what the folder holds.
        texts: its data; None leaves them unchecked.

    Raises:
        FileExistsError: if the folder holds anything and this is not a resumed run, or holds no run, or if somebody put
            a file into a model folder that is to be replaced.
        ValueError: if it holds a run with other settings or on other data, or a finished one without checkpoints, or
            nothing that says on which data it ran.
    """
    if not is_first():
        return
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} exists and is no folder: choose another --out")
    holds = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not holds:
        if resume and texts is not None:
            log.warning("%s holds nothing to go on with: the run begins there", folder)
        return
    if not resume:
        raise FileExistsError(f"{folder} exists and is not empty: choose another --out, or go on from it with --resume")
    if CONFIG_FILE not in holds and all(map(START.fullmatch, holds)) and (RUN_FILE in holds or ORDER_FILE not in holds):
        return  # it was stopped while it began: nothing is lost if it begins anew
    if CONFIG_FILE not in holds:
        names = ", ".join(holds[:5])
        raise FileExistsError(
            f"{folder} holds no run to resume: there is {names}, but no {CONFIG_FILE}; nothing was changed"
        )
    check_same_run(folder, config)
    check_same_data(folder, texts)
    if is_finished(folder) and not any(folder.glob("checkpoint-*")):
        raise ValueError(
            f"the run in {folder} is finished and its checkpoints are gone, so there is nothing to resume: "
            f"its model is {folder / MODEL_FOLDER}"
        )
    for name in (MODEL_FOLDER, BEST_FOLDER):
        if not is_finished(folder):
            check_folder(folder / name, overwrite=True)


def check_same_data(folder: Path, texts: TextSet | None) -> None:
    """Refuse to resume on other data than those that a folder's run began on; None is any, if the folder says which.

    Raises:
        ValueError: also if nothing says which data those were.
    """
    if not (folder / RUN_FILE).is_file():
        raise ValueError(
            f"{folder} has no {RUN_FILE}, which says on which data the run began, so nothing can go on from it: start "
            f"anew in another --out, with its newest checkpoint or {folder / MODEL_FOLDER} as --backbone"
        )
    if texts is not None and read_json(folder / RUN_FILE, Facts).get("data_sha256") != texts.sha256():
        raise ValueError(f"{folder} belongs to a run on other data than the {len(texts)} rows of {texts.name}")


def check_same_run(folder: Path, config: TrainConfig) -> None:
    """Refuse to resume with settings that would make another run of what a folder, or a checkpoint, belongs to.

    Raises:
        ValueError: naming the settings that differ; those in `FREE` may.
    """
    stored = TrainConfig.read(folder / CONFIG_FILE).to_dict()
    changed = [f"{k}: {stored[k]!r} -> {v!r}" for k, v in config.to_dict().items() if stored[k] != v and k not in FREE]
    if changed:
        raise ValueError(
            f"{folder} belongs to a run with other settings ({'; '.join(changed)}): resume with its own; "
            "to train a finished model further, start a new run with it as --backbone"
        )


def is_finished(folder: Path) -> bool:
    """Whether a run has written its model, which it does last."""
    return (folder / MODEL_FOLDER / MARK).is_file() and (folder / MODEL_FOLDER / CONFIG_FILE).is_file()


def last_step(folder: Path) -> int:
    """The step whose model a finished run has written: its last, or that after which a callback ended it."""
    path = folder / STOPPED_FILE  # which only a run has that a callback ended
    if not path.is_file():
        return TrainConfig.read(folder / CONFIG_FILE).steps
    return checked(Count, read_json(path, dict[str, Any]).get("step"), f"{path}: step")


def write_last_step(folder: Path, step: int, steps: int) -> None:
    """Say after which of its steps a run was ended; nothing of one that took them all."""
    path = folder / STOPPED_FILE
    if step == steps:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as work:
        work.write_text(json.dumps({"step": step}) + "\n")


def check_finished(folder: Path, checkpoint: Path) -> None:
    """Refuse a finished run whose model or history is no longer what the run wrote.

    Raises:
        ValueError: saying how to have both written anew from the last checkpoint.
    """
    weights, history = folder / MODEL_FOLDER / WEIGHTS_FILE, tables_of(folder)[0]
    again = f"take {folder / MODEL_FOLDER} away, and --resume writes both anew from {checkpoint.name}"
    wanted = read_json(checkpoint / MANIFEST, Manifest).get(WEIGHTS_FILE)  # None where the weights are in several files
    if wanted and (not weights.is_file() or hash_of_file(weights) != wanted):
        raise ValueError(f"{weights} is not what the run wrote: {again}")
    table = read_table(history)
    if table.empty or not {"step", "loss"} <= set(table.select_dtypes("number")):
        raise ValueError(f"{history} is missing or damaged: {again}")


def read_table(path: Path) -> pd.DataFrame:
    """A table of a run; an empty one for a file that is missing or none."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError):
        return pd.DataFrame()


def tables_of(folder: Path) -> tuple[Path, Path]:
    """Where a run's history and its evaluations lie."""
    return folder / HISTORY_FILE, folder / EVALUATIONS_FILE


def stored_order(folder: Path, dim: int) -> list[int] | None:
    """The order of the coordinates that a run to go on with started from; None if it has none yet.

    Args:
        folder: of the run.
        dim: D, the encoder's width.

    Raises:
        ValueError: if the file is gone, or holds anything but this run's order.
    """
    if not (folder / CONFIG_FILE).is_file():  # it did not get as far as to say what the order is for
        return None
    path = folder / ORDER_FILE
    expected = read_json(folder / RUN_FILE, Facts).get("dims_order_sha256")
    if not path.is_file():
        if expected is not None:
            raise ValueError(f"{path} is missing: without it the run cannot go on")
        return None
    order = list(read_json(path, tuple[Annotated[int, Field(ge=0)], ...]))
    if sorted(order) != list(range(dim)):
        raise ValueError(f"{path} is no order of {dim} coordinates: it must hold each of 0..{dim - 1} once")
    if expected not in (None, hash_of(order)):
        raise ValueError(f"{path} holds another order than the one this run started from")
    return order


def write_start(folder: Path, config: TrainConfig, texts: TextSet, order: Sequence[int] | None) -> None:
    """Write what a run goes on with: hashes of data and order, the order of its coordinates, and last its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"data_sha256": texts.sha256()} | ({} if order is None else {"dims_order_sha256": hash_of(order)})
    with atomic_file(folder / RUN_FILE) as path:
        path.write_text(json.dumps(facts, indent=2) + "\n")
    if order is not None:
        with atomic_file(folder / ORDER_FILE) as path:
            path.write_text(json.dumps(list(order)) + "\n")
    write_config(folder, config)


def hash_of(order: Sequence[int]) -> str:
    """A hash of an order of coordinates."""
    return hashlib.sha256(json.dumps(list(order)).encode()).hexdigest()
