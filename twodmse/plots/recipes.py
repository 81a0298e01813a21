"""Pictures of what recipes train: how often each cell of the grid takes the base loss, and which cells are aligned."""

from collections.abc import Collection, Sequence

import matplotlib
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from twodmse.plots.grids import GRID_COLOURS, draw_cells, mark_cells, need, numbers, title_above

PANEL_CELL = (0.31, 0.28)  # inches, width and height of a cell
UNTRAINED = "0.92"  # light grey
SHARES = LogNorm(1, 100)  # percent: most cells are trained in a few steps of a hundred, some in all


def trained_cells(
    table: pd.DataFrame,
    ax: Axes,
    title: str = "",
    layers: Sequence[int] | None = None,
    dims: Sequence[int] | None = None,
    aligned: Collection[tuple[int, int]] = (),
) -> Axes:
    """How often one recipe trains each cell, in percent of the steps, as numbers on colours, the deepest layer on top.

    Args:
        table: rows with step, layer, dim: one a step and cell that takes the base loss, as in `Recipe.cells`. A cell
            that is never trained stays grey.
        ax: where to draw.
        title: above it.
        layers: which rows and columns to show; None shows those of the table.
        dims: which rows and columns to show; None shows those of the table.
        aligned: cells (layer, dim) that get a white corner, such as those of `Plan.alignments`.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    need(table, ("step", "layer", "dim"))
    counts = table.drop_duplicates(["step", "layer", "dim"]).groupby(["layer", "dim"]).size().unstack()
    rows = sorted(set(table["layer"]) if layers is None else layers, reverse=True)
    columns = sorted(set(table["dim"]) if dims is None else dims)
    shares = (100 * counts / table["step"].nunique()).reindex(index=rows, columns=columns)
    draw_cells(shares, ax, numbers(shares, ".0f"), norm=SHARES, cmap=GRID_COLOURS, linewidths=0.5)
    ax.set_facecolor(UNTRAINED)
    mark_cells(shares, ax, aligned)
    ax.set_title(title, fontsize=10)
    ax.set(xlabel="dim (coordinates kept)", ylabel="layer (layers run)")
    return ax


def trained_by_recipe(
    trained: pd.DataFrame, aligned: pd.DataFrame | None = None, title: str = "", across: int = 4
) -> list[Axes]:
    """`trained_cells` of several recipes, on the same layers, dims and colours.

    Args:
        trained: rows with recipe, step, layer, dim: one a recipe, step and cell that takes the base loss.
        aligned: rows with recipe, layer, dim: cells that are drawn to another one; they get a corner; None draws none.
        title: above all.
        across: panels a row.

    Returns:
        One Axes a recipe, in the order of the table; their figure is ``axes[0].figure``.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    need(trained, ("recipe", "step", "layer", "dim"))
    dots = trained.iloc[:0] if aligned is None else aligned
    both = pd.concat([trained[["layer", "dim"]], dots[["layer", "dim"]]])
    layers, dims = sorted(set(both["layer"])), sorted(set(both["dim"]))
    recipes = list(dict.fromkeys(trained["recipe"]))
    across = min(across, len(recipes))
    down = -(-len(recipes) // across)
    size = (PANEL_CELL[0] * len(dims) * across + 1.5, (PANEL_CELL[1] * len(layers) + 0.6) * down + 0.6)
    figure, grid = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    axes = list(grid.flat)
    for spare in axes[len(recipes) :]:
        spare.set_axis_off()
    for i, (ax, recipe) in enumerate(zip(axes, recipes, strict=False)):
        marked = set(dots.loc[dots["recipe"] == recipe, ["layer", "dim"]].itertuples(index=False, name=None))
        trained_cells(trained[trained["recipe"] == recipe], ax, recipe, layers, dims, marked)
        if i % across:
            ax.set_ylabel("")
        if i + across < len(recipes):
            ax.set_xlabel("")
    scale = matplotlib.cm.ScalarMappable(SHARES, GRID_COLOURS)
    figure.colorbar(scale, ax=axes, label="% of steps that train the cell", aspect=40, format="%g")
    title_above(figure, title, "corner: cell that is aligned" if len(dots) else "")
    return axes[: len(recipes)]
