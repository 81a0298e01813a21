"""Checkpoints that can be trusted: each ends with a list of its files and their hashes, and is used only if all fit."""

import hashlib
import json
import logging
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import TrainerState
from transformers.trainer_pt_utils import safe_globals

from twodmse.checked import Number, Sha256, Text, read_json
from twodmse.files import atomic_file, remove, strangers, written

MANIFEST = "complete.json"
UNLOGGED = "unlogged.json"
Manifest = Annotated[dict[Text, Sha256], Field(min_length=1)]
# What the Trainer writes beside the model, and what is left of a file that was being written.
TRAINERS = re.compile(
    r"(complete|unlogged)\.json|(optimizer|scheduler|scaler)\.pt|rng_state(_\d+)?\.pth|trainer_state\.json|training_args\.bin"
    r"|\.[a-z_]+-[0-9a-f]{8}\.json"
)
log = logging.getLogger(__name__)


def mark_complete(folder: Path, others: Sequence[str] = ()) -> None:
    """Write the manifest of a checkpoint whose files are all there; ``others`` in it are not ours."""
    names = strangers(folder, {MANIFEST, *others}.__contains__)
    manifest = {name: hash_of_file(folder / name) for name in names}
    with atomic_file(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=2) + "\n")


def write_unlogged(folder: Path, loss: float, step: int) -> None:
    """Store in a checkpoint the sum of the losses of the steps since the history's newest row, and that row's step."""
    with atomic_file(folder / UNLOGGED) as path:
        path.write_text(json.dumps([loss, step]) + "\n")


def read_unlogged(folder: Path) -> tuple[float, int] | None:
    """What `write_unlogged` stored; None where a checkpoint has none, one of an earlier version."""
    return read_json(folder / UNLOGGED, tuple[Number, int]) if (folder / UNLOGGED).is_file() else None


def fault(folder: Path, backbone: nn.Module | None = None) -> str | None:
    """What is wrong with a checkpoint, or None if every file of its manifest is there, whole and of its kind.

    Args:
        folder: of the checkpoint.
        backbone: what it is a checkpoint of; None leaves what its files hold unchecked.
    """
    if not (folder / MANIFEST).is_file():
        return "it was cut short: its list of files is missing"
    try:
        manifest = read_json(folder / MANIFEST, Manifest)
    except ValueError:
        return "its list of files is damaged"
    missing = [name for name in NEEDED if name not in manifest]
    if missing:
        return f"its list of files lacks {missing[0]}"
    for name, sha256 in manifest.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if hash_of_file(folder / name) != sha256:
            return f"{name} is damaged"
    return None if backbone is None else strange_file(folder, backbone)


def strange_file(folder: Path, backbone: nn.Module) -> str | None:
    """Which file of a checkpoint holds something else than the Trainer writes there; None if none does."""
    step, shapes = step_of(folder), [p.shape for p in backbone.parameters() if p.requires_grad]
    checks = {name: partial(check, shapes=shapes, step=step) for name, check in NEEDED.items()}
    checks |= {path.name: _check_random for path in folder.glob("rng_state*.pth")}
    for name, check in checks.items():
        try:
            if name.endswith(".json"):
                found = json.loads((folder / name).read_text(encoding="utf-8"))
            else:
                with safe_globals():  # numbers and NumPy's arrays of them: no code of a file is ever run
                    found = torch.load(folder / name, map_location="cpu", weights_only=True)
            good = isinstance(found, dict) and check(found)
        except Exception:  # a file of another kind fails in as many ways as there are kinds
            good = False
        if not good:
            return f"{name} holds something else than it should"
    return None


def _check_optimizer(found: Any, shapes: list[torch.Size], step: int) -> bool:
    moments = Counter(state["exp_avg"].shape for state in found["state"].values())
    numbers = [number for group in found["param_groups"] for number in group["params"]]
    return moments <= Counter(shapes) and set(found["state"]) <= set(numbers) and len(numbers) == len(shapes)


def _check_scheduler(found: Any, shapes: list[torch.Size], step: int) -> bool:
    return 0 <= found["last_epoch"] <= step and all(math.isfinite(rate) for rate in found["base_lrs"])


def _check_state(found: Any, shapes: list[torch.Size], step: int) -> bool:
    logged = TrainerState(**found).log_history
    return found["global_step"] == step and all(isinstance(row["step"], int) for row in logged)


def _check_random(found: Any) -> bool:
    random.Random().setstate(found["python"])
    np.random.RandomState().set_state(found["numpy"])
    torch.Generator().set_state(found["cpu"])
    return True


NEEDED = {"optimizer.pt": _check_optimizer, "scheduler.pt": _check_scheduler, "trainer_state.json": _check_state}


def last_complete(folder: Path, backbone: nn.Module | None = None) -> Path | None:
    """The newest checkpoint of a run that is whole; a damaged one is refused with a message and the one before taken.

    Args:
        folder: of the run.
        backbone: as `fault`.

    Returns:
        None if there is no usable checkpoint: the run starts from its first step.
    """
    found = sorted((p for p in folder.glob("checkpoint-*") if _is_checkpoint(p)), key=step_of, reverse=True)
    for checkpoint in found:
        reason = fault(checkpoint, backbone)
        if reason is None:
            return checkpoint
        log.warning("%s is not used (%s); trying the one before it", checkpoint, reason)
    if found:
        log.warning("no checkpoint in %s is usable: starting from the first step", folder)
    return None


def out_of_patience(checkpoint: Path, callbacks: Sequence[TrainerCallback]) -> bool:
    """Whether early stopping that is among the callbacks had ended the run at this checkpoint."""
    given = [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]
    stored = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).stateful_callbacks
    found = stored.get(EarlyStoppingCallback.__name__, [])  # of several there is a list
    waited = [one["attributes"]["early_stopping_patience_counter"] for one in np.atleast_1d(found)]
    return any(count >= callback.early_stopping_patience for count, callback in zip(waited, given, strict=False))


def keep_newest(folder: Path, number: int, newest: int | None = None) -> None:
    """Delete a run's checkpoints except the newest ``number`` of them.

    Args:
        folder: of the run.
        number: how many are kept.
        newest: the step of the last one written; any of a later step is the damaged rest of an earlier try, is not
            counted, and stays until the run comes to it. None counts all.
    """
    found = sorted((p for p in folder.glob("checkpoint-*") if _is_checkpoint(p)), key=step_of)
    for checkpoint in [p for p in found if newest is None or step_of(p) <= newest][:-number]:
        discard(checkpoint)


def discard(checkpoint: Path) -> list[str]:
    """Delete what training wrote into a checkpoint, and the folder unless somebody put more into it.

    Returns:
        The names of files that stay.
    """
    try:
        ours = {MANIFEST, *read_json(checkpoint / MANIFEST, Manifest)}.__contains__
    except (ValueError, OSError):  # cut short, or damaged

        def ours(name: str) -> Any:
            return written(checkpoint)(name) or TRAINERS.fullmatch(name)

    return remove(checkpoint, ours)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()


def hash_of_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
