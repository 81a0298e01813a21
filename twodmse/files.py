"""Files: bundled ones to read, and ones to write so that nothing is lost: they appear whole, or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on failure nothing is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    os.chmod(name, 0o644)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new empty folder beside ``path``; on success it becomes ``path``, on failure nothing is left.

    Raises:
        FileExistsError: if ``path`` holds anything and ``overwrite`` is false; raised before any work is done.
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not overwrite):
        raise FileExistsError(f"{path} exists and is not empty: choose another folder, or ask to overwrite it")
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    work.chmod(0o755)
    try:
        yield work
        old = Path(f"{work}.old")
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(work, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fresh_folder(path: str | Path) -> Path:
    """``path`` if it is free, else the first of ``path-2``, ``path-3``, ... that is."""
    path, number = Path(path), 1
    candidate = path
    while candidate.exists() and (candidate.is_file() or any(candidate.iterdir())):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def read_jsonl(resource: str) -> list[dict[str, Any]]:
    """The rows of a JSON lines file bundled under ``resources``."""
    text = (files("twodmse") / "resources" / resource).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with atomic_file(path) as work:
        table.to_csv(work, index=False)


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure, whole or not at all, and let go of it."""
    from matplotlib import pyplot as plt

    with atomic_file(path) as work:
        figure.savefig(work, dpi=150)
    plt.close(figure)
