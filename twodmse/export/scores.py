"""The scores of an encoder as its model card shows them."""

from collections.abc import Callable

import pandas as pd

from twodmse.checked import is_finite, other_metrics


def grid_text(grid: pd.DataFrame, layer: int, dim: int, named: Callable[[str], str]) -> str:
    """The scores as a Markdown table: mean over the tasks, layer N on top, the exported cell in bold.

    Of more than twelve dims only the doubling ones, the exported and the largest are shown.

    Args:
        grid: as `check_grid_fits` takes it, and maybe with a column ``n``, how many pairs a task has.
        layer: of the exported cell.
        dim: of the exported cell.
        named: how a task's name is written.
    """
    grid = grid.astype({"layer": int, "dim": int})
    cells = grid.groupby(["layer", "dim"])["spearman"]
    means = cells.mean().where(cells.count() == cells.size()).unstack().sort_index(ascending=False)
    dims = [d for d in means if len(means.columns) <= 12 or d & (d - 1) == 0 or d in (dim, max(means))]
    rows = [["layer \\ dim", *map(str, dims)], ["---:"] * (len(dims) + 1)]
    for n, scores in means[dims].iterrows():
        marks = ["**" if (n, d) == (layer, dim) else "" for d in dims]
        cells = ["" if pd.isna(s) else f"{m}{s:.2f}{m}" for m, s in zip(marks, scores, strict=True)]
        rows.append([str(n), *cells])
    tasks = ", ".join(named(str(task)) + pairs_of(rows) for task, rows in grid.groupby("task", sort=False))
    here = "this cell is not among them"
    if ((grid["layer"] == layer) & (grid["dim"] == dim)).any():
        undefined = pd.isna(means.loc[layer, dim])
        here = "this cell has no score there" if undefined else "this cell in bold"
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"Spearman x 100 of the cosine in float32, mean over {tasks}; {here}.", "", *lines])


def pairs_of(rows: pd.DataFrame) -> str:
    """How many pairs the scores of a task are of, in brackets; nothing where its rows do not say it, or not alike."""
    counts = rows["n"].unique().tolist() if "n" in rows else []
    return f" ({counts[0]:,.0f} pairs)" if len(counts) == 1 and is_finite(counts[0]) else ""


def check_grid_fits(grid: pd.DataFrame, num_layers: int, dim: int) -> None:
    """Refuse a table that is no grid of this encoder.

    Raises:
        ValueError: for a missing column, no rows, scores of another metric, rows of several models, a cell that the
            encoder does not have or that a task has twice, or a score that is none.
    """
    missing = [c for c in ("task", "layer", "dim", "spearman") if c not in grid]
    if missing or not len(grid):
        lack = f"column {missing[0]!r}" if missing else "rows"
        raise ValueError(f"the grid has no {lack}: give a table that twodmse grid --out wrote")
    if others := other_metrics(grid):
        raise ValueError(f"the grid holds {others}: a card shows Spearman, give a grid of it")
    if "model" in grid and grid["model"].nunique() > 1:
        names = ", ".join(sorted(map(str, grid["model"].unique())))
        raise ValueError(f"the grid holds several models ({names}): keep the rows of the one that is exported")
    for column, least, most in (("layer", 0, num_layers), ("dim", 1, dim)):
        wrong = [value for value in grid[column].unique() if value not in range(least, most + 1)]
        if wrong:
            raise ValueError(
                f"the grid has {column} {wrong[0]}, this encoder {column}s {least}..{most}: another model's?"
            )
    for row in grid[grid.duplicated(["task", "layer", "dim"])].itertuples():
        raise ValueError(f"the grid has layer {row.layer}, dim {row.dim} of {row.task} twice: keep one of the rows")
    for score in grid["spearman"]:
        if not isinstance(score, int | float) or abs(score) > 100:
            raise ValueError(f"the grid has the Spearman {score!r}: it must be a number from -100 to 100")
