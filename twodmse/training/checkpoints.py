"""Checkpoints that can be trusted: each ends with a list of its files and their hashes, and is used only if all fit."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

from twodmse.files import atomic_file

MANIFEST = "complete.json"
log = logging.getLogger(__name__)


def mark_complete(folder: Path) -> None:
    """Write the manifest of a checkpoint whose files are all there."""
    names = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    manifest = {str(p.relative_to(folder)): _sha256(p) for p in names}
    with atomic_file(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=2) + "\n")


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file of its manifest is there and whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return "it was cut short: its list of files is missing"
    except ValueError:
        return "its list of files is damaged"
    for name, sha256 in manifest.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _sha256(folder / name) != sha256:
            return f"{name} is damaged"
    return None


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint of a run that is whole; a damaged one is refused with a message and the one before taken.

    Returns:
        None if there is no usable checkpoint: the run starts from its first step.
    """
    found = sorted((p for p in folder.glob("checkpoint-*") if _is_checkpoint(p)), key=_step, reverse=True)
    for checkpoint in found:
        reason = fault(checkpoint)
        if reason is None:
            return checkpoint
        log.warning("%s is not used (%s); trying the one before it", checkpoint, reason)
    if found:
        log.warning("no checkpoint in %s is usable: starting from the first step", folder)
    return None


def keep_newest(folder: Path, number: int) -> None:
    """Delete a run's checkpoints except the newest ``number`` of them."""
    found = sorted((p for p in folder.glob("checkpoint-*") if _is_checkpoint(p)), key=_step)
    for checkpoint in found[:-number]:
        shutil.rmtree(checkpoint)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
