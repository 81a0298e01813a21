"""The folder of a run: held by one process, gone on with only by the run that it belongs to."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from twodmse.checked import Sha256, read_json
from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet
from twodmse.files import MARK, atomic_file, locked
from twodmse.training.distributed import is_first
from twodmse.training.trainer import CONFIG_FILE, write_config

HISTORY_FILE = "history.csv"
EVALUATIONS_FILE = "evaluations.csv"
ORDER_FILE = "dims_order.json"
RUN_FILE = "run.json"
# Settings that a resumed run may change: they only say what is stored, looked at and shown.
FREE = ("out", "keep", "save_every", "log_every", "report_to", "logging_dir")
FREE += ("eval_every", "eval_data", "eval_cells", "eval_metric")


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
    for name in (CONFIG_FILE, RUN_FILE, ORDER_FILE):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def check_run_folder(folder: Path, config: TrainConfig, resume: bool, texts: TextSet | None = None) -> None:
    """Refuse to write over anything, and to go on with what is not this very run.

    Args:
        folder: of the run.
        config: its settings.
        resume: go on with what the folder holds.
        texts: its data; None leaves them unchecked.

    Raises:
        FileExistsError: if the folder holds anything and this is not a resumed run, or holds no run.
        ValueError: if it holds a run with other settings or on other data, or a finished one without checkpoints.
    """
    if not is_first():
        return
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} exists and is no folder: choose another --out")
    holds = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not holds:
        return
    if not resume:
        raise FileExistsError(f"{folder} exists and is not empty: choose another --out, or go on from it with --resume")
    if CONFIG_FILE not in holds:
        names = ", ".join(holds[:5])
        raise FileExistsError(
            f"{folder} holds no run to resume: there is {names}, but no {CONFIG_FILE}; nothing was changed"
        )
    check_same_run(folder, config)
    if texts is not None and (folder / RUN_FILE).is_file():
        facts = read_json(folder / RUN_FILE, Facts)
        if facts.get("data_sha256") != texts.sha256():
            raise ValueError(f"{folder} belongs to a run on other data than the {len(texts)} rows of {texts.name}")
    if is_finished(folder) and not any(folder.glob("checkpoint-*")):
        raise ValueError(
            f"the run in {folder} is finished and its checkpoints are gone, so there is nothing to resume: "
            f"its model is {folder / 'model'}"
        )


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
    """Whether a run has written its model, which it does last but for the config beside it."""
    return (folder / "model" / MARK).is_file() and (folder / "model" / CONFIG_FILE).is_file()


def stored_order(folder: Path, dim: int) -> list[int] | None:
    """The order of the coordinates that a run to go on with started from; None if it has none yet.

    Args:
        folder: of the run.
        dim: D, the encoder's width.

    Raises:
        ValueError: if the file is gone, or holds anything but this run's order.
    """
    path, facts = folder / ORDER_FILE, {}
    if (folder / RUN_FILE).is_file():
        facts = read_json(folder / RUN_FILE, Facts)
    expected = facts.get("dims_order_sha256")
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
    """Write what a run goes on with: its settings, the order of its coordinates, and the hashes of data and order."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    facts = {"data_sha256": texts.sha256()}
    if order is not None:
        facts["dims_order_sha256"] = hash_of(order)
        with atomic_file(folder / ORDER_FILE) as path:
            path.write_text(json.dumps(list(order)) + "\n")
    with atomic_file(folder / RUN_FILE) as path:
        path.write_text(json.dumps(facts, indent=2) + "\n")


def hash_of(order: Sequence[int]) -> str:
    """A hash of an order of coordinates."""
    return hashlib.sha256(json.dumps(list(order)).encode()).hexdigest()
