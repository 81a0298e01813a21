"""Pictures of two grids and of the difference between them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from twodmse.plots.grids import (
    GRID_COLOURS,
    SIGNED_COLOURS,
    by_cell,
    colour_bar,
    draw_cells,
    heatmap,
    need,
    numbers,
    row_of_grids,
    score_name,
    title_above,
)

NOT_SIGNIFICANT = "0.88"  # light grey


def difference_heatmap(table: pd.DataFrame, ax: Axes, title: str = "", limit: float | None = None) -> Axes:
    """Differences by layer and dim on a scale centred at 0; cells that are not significant are grey.

    Args:
        table: one row a cell, with layer, dim, difference (Spearman x 100), and significant where it is known: rows of
            one task of `compare_models`, or of one task and model of `minus_published`.
        ax: where to draw.
        title: above it.
        limit: the scale runs from -limit to limit; None takes the largest difference drawn.

    Raises:
        ValueError: if a column is missing, there are no rows, or a cell has several rows.
    """
    need(table, ("layer", "dim", "difference"))
    twice = table[table.duplicated(["layer", "dim"])]
    if len(twice):
        cell = f"layer {twice.iloc[0]['layer']}, dim {twice.iloc[0]['dim']}"
        raise ValueError(f"{cell} has several rows: keep those of one task and one model")
    cells = by_cell(table, "difference")
    limit = largest(table) if limit is None else limit
    draw_cells(cells, ax, numbers(cells, "+.1f"), vmin=-limit, vmax=limit, cmap=SIGNED_COLOURS)
    if "significant" in table:
        _grey_out(by_cell(table.assign(noise=~table["significant"].astype(bool) * 1.0), "noise").to_numpy() == 1, ax)
    ax.set(title=title, xlabel="dim (coordinates kept)", ylabel="layer (layers run)")
    return ax


def largest(table: pd.DataFrame) -> float:
    """The largest difference either way; 1 where all are 0, so that a scale has ends."""
    return float(table["difference"].abs().max()) or 1.0


def _grey_out(noise: np.ndarray, ax: Axes) -> None:
    """Lay grey over the cells where ``noise`` (rows, columns) is true, under their numbers."""
    ax.pcolormesh(np.ma.masked_where(~noise, np.zeros(noise.shape)), cmap=ListedColormap([NOT_SIGNIFICANT]), zorder=1.5)
    for text in ax.texts:
        column, row = (int(place) for place in text.get_position())
        if noise[row, column]:
            text.set_color("0.4")


def comparison(table: pd.DataFrame, first: str, second: str, title: str = "") -> list[Axes]:
    """Two grids on one colour scale, and the second minus the first beside them.

    Args:
        table: one row a cell as `difference_heatmap` takes it, with the scores in the columns first and second (those
            of `compare_models`), or published and ours (those of `minus_published`).
        first: title of the first grid.
        second: title of the second.
        title: above all.

    Returns:
        Three Axes; their figure is ``axes[0].figure``.

    Raises:
        ValueError: as `difference_heatmap`.
    """
    sides = ("published", "ours") if "published" in table else ("first", "second")
    need(table, ("layer", "dim", *sides, "difference"))
    low, high = table[list(sides)].min().min(), table[list(sides)].max().max()
    figure, axes = row_of_grids([table["dim"].nunique()] * 3, table["layer"].nunique(), bars=2)
    heatmap(table.assign(spearman=table[sides[0]]), axes[0], first, low, high)
    heatmap(table.assign(spearman=table[sides[1]]), axes[1], second, low, high, starred=significant(table))
    difference_heatmap(table, axes[2], f"{sides[1]} minus {sides[0]}")
    for ax in axes[1:3]:
        ax.set_ylabel("")
    colour_bar(axes[3], low, high, GRID_COLOURS, score_name(table))
    limit = largest(table)
    colour_bar(axes[4], -limit, limit, SIGNED_COLOURS, f"difference ({score_name(table)})")
    title_above(figure, title, "*: differs significantly; grey: does not" if "significant" in table else "")
    return axes[:3]


def significant(table: pd.DataFrame) -> list[tuple[int, int]]:
    """The cells (layer, dim) that the table marks as significant; none where it does not say."""
    if "significant" not in table:
        return []
    return list(table.loc[table["significant"].astype(bool), ["layer", "dim"]].itertuples(index=False, name=None))
