"""grid.json: a model's grid beside the model, with everything that says how it was scored."""

import datetime
import json
import math
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
from pydantic import Field

from twodmse.checked import Count, Text, as_path, checked, other_metrics, read_json
from twodmse.data.reading import read_columns
from twodmse.files import LISTED, MARK, atomic_file, no_formula
from twodmse.version import __version__

GRID_FILE = "grid.json"
SCORER = "spearman of cosine, pooled, x100"
GRID_COLUMNS = ["task", "layer", "dim", "spearman", "low", "high", "n"]


class GridRecord(NamedTuple):
    """What a grid.json holds."""

    grid: pd.DataFrame  # columns as `sts_grid`
    facts: dict[str, Any]  # model, scorer, tasks, seeds, versions, commit, date


def write_grid_json(
    folder: str | Path, grid: pd.DataFrame, model: str, seeds: Sequence[int] = (), overwrite: bool = False
) -> Path:
    """Write a model's grid into its folder as ``grid.json``.

    Args:
        folder: the saved model's folder.
        grid: its cells, columns as `sts_grid`.
        model: what the model is called.
        seeds: of the training runs it comes from; none if they are not known.
        overwrite: replace a grid.json that is there.

    Returns:
        The file. It is a JSON object with the keys model, scorer, tasks (name and n each), seeds, versions (twodmse,
        torch, transformers), commit (of the twodmse checkout that scored, "-dirty" if its files were changed; null
        outside one), date (UTC), and cells: one object a task, layer and dim with spearman, low and high (null where
        there is no interval).

    Raises:
        FileNotFoundError: if there is no such folder.
        FileExistsError: if there is a grid.json and ``overwrite`` is false.
        ValueError: if the grid lacks a column, has no rows, holds a cell of a task twice, or is of another metric.
    """
    path = grid_path(folder, overwrite)
    check_grid_table(grid)
    facts = {
        "model": model,
        "scorer": SCORER,
        "tasks": [{"name": name, "n": int(n)} for name, n in grid.groupby("task", sort=False)["n"].first().items()],
        "seeds": [int(seed) for seed in seeds],
        "versions": {"twodmse": __version__} | {name: version(name) for name in ("torch", "transformers")},
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    # Through pandas' own writer: it turns NaN into null and NumPy's numbers into JSON's.
    cells = json.loads(grid[[c for c in GRID_COLUMNS if c != "n"]].to_json(orient="records", double_precision=6))
    with atomic_file(path, overwrite) as work:
        lines = ",\n".join("    " + json.dumps(cell) for cell in cells)
        head = json.dumps(facts, indent=2)[:-2]  # without the closing brace
        work.write_text(f'{head},\n  "cells": [\n{lines}\n  ]\n}}\n')
    list_file(path)
    return path


def list_file(path: Path) -> None:
    """Add a file that was written later into a model folder to the list in the folder's mark, if it has one."""
    mark = path.parent / MARK
    try:
        said = json.loads(mark.read_text(encoding="utf-8"))
        names = sorted({*said[LISTED], path.name})
    except (OSError, ValueError, LookupError, TypeError):
        return
    with atomic_file(mark) as work:
        work.write_text(json.dumps(said | {LISTED: names}, indent=2) + "\n", encoding="utf-8")


def read_grid_json(folder: str | Path) -> GridRecord:
    """The grid.json of a model's folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or its scores are of another kind.
    """
    path = as_path(folder) / GRID_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {GRID_FILE}: write one with twodmse grid {folder} --save")
    try:
        facts = read_json(path, dict[str, Any])
        sizes = {task["name"]: task["n"] for task in facts["tasks"]}
        grid = pd.DataFrame(facts.pop("cells"))
        kinds = {"low": float, "high": float, "n": int}
        kinds |= {"spearman": float} if grid["spearman"].isna().all() else {}
        grid = grid.assign(n=grid["task"].map(sizes))[GRID_COLUMNS].astype(kinds)
        scorer = facts["scorer"]
        check_grid_table(grid)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): score the model again") from error
    if scorer != SCORER:
        raise ValueError(f"{path} holds scores of another kind, {scorer!r}: this version reads {SCORER!r}")
    return GridRecord(grid, facts)


def read_grid_table(path: str | Path) -> pd.DataFrame:
    """A table of `sts_grid` that was written as CSV: its columns task, layer, dim and spearman.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: with the file, the column and the row of what is no grid.
    """
    columns = read_columns(as_path(path))
    kinds = {"task": Text, "layer": Annotated[int, Field(ge=0)], "dim": Count, "spearman": float}
    missing = [name for name in kinds if name not in columns]
    if missing or not columns["task"]:
        raise ValueError(f"{path} is no grid: {'it lacks ' + ', '.join(missing) if missing else 'it has no rows'}")
    if others := other_metrics(columns):
        raise ValueError(f"{path} holds {others}: give a grid of Spearman")
    found = {
        name: [
            checked(kind, "nan" if value in ("", None) else value, f"{path}, row {row}, {name}", strict=False)
            for row, value in rows
        ]
        for name, kind in kinds.items()
        for rows in [enumerate(columns[name], 1)]
    }
    tasks = [task[1:] if no_formula(task[1:]) == task else task for task in found["task"]]  # as before write_table
    return pd.DataFrame(found | {"task": tasks})


def grid_path(folder: str | Path, overwrite: bool = False) -> Path:
    """Where a model's grid.json goes, refusing to write over one.

    Raises:
        FileNotFoundError: if there is no such folder.
        FileExistsError: if there is a grid.json and ``overwrite`` is false.
    """
    path = as_path(folder) / GRID_FILE
    if not (path.parent / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no folder of a saved model, beside which {GRID_FILE} could lie")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: add --overwrite to replace it")
    return path


def check_grid_table(grid: pd.DataFrame) -> None:
    """Refuse a table that is no grid.

    Raises:
        ValueError: if a column is missing, there are no rows, a cell of a task occurs twice, a number is none, or the
            scores are of another metric.
    """
    missing = [c for c in GRID_COLUMNS if c not in grid]
    if missing or not len(grid):
        raise ValueError(f"this table is no grid: {'missing ' + ', '.join(missing) if missing else 'it has no rows'}")
    if others := other_metrics(grid):
        raise ValueError(f"this grid holds {others}: give one of Spearman")
    twice = grid[grid.duplicated(["task", "layer", "dim"])]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(f"this grid has task {row['task']}, layer {row['layer']}, dim {row['dim']} more than once")
    for name, least, most in (
        ("layer", 0, math.inf),
        ("dim", 1, math.inf),
        ("spearman", -100, 100),
        ("n", 1, math.inf),
    ):
        wrong = [value for value in grid[name] if not isinstance(value, int | float) or value < least or value > most]
        if wrong:
            raise ValueError(f"this grid has {name} {wrong[0]!r}, which is no {name} of a cell")


def commit() -> str | None:
    """The git commit of this package's own checkout; None where it does not run from one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an installed copy may lie inside somebody else's checkout
        return None
    here = ["git", "-C", str(root)]
    try:
        head, changed = (
            subprocess.run([*here, *command], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "twodmse"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changed else head
