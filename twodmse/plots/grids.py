"""Pictures of grids of scores, and of the loss terms that led to them."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from seaborn.utils import relative_luminance

from twodmse.plots.palette import label_lines, model_style, term_style

SIGNED_COLOURS = "PuOr"  # orange below 0, white at 0, purple above: colour-blind readers tell these two apart
GRID_COLOURS = "viridis"  # rises evenly in brightness: readable in grey print and by colour-blind readers
NUMBERS_UP_TO = 16  # columns; a grid of more shows its colours alone
BRIGHT = 0.179  # relative luminance above which black stands out more than white
CELL = (0.4, 0.38)  # inches, width and height of a cell with a number


def heatmap(
    table: pd.DataFrame,
    ax: Axes,
    title: str = "",
    low: float | None = None,
    high: float | None = None,
    trained: Collection[tuple[int, int]] = (),
    starred: Collection[tuple[int, int]] = (),
) -> Axes:
    """The layer x dim grid of one model: mean score over tasks, as numbers on colours, layer N on top.

    Args:
        table: rows with layer, dim, spearman (and any task column, over which the mean is taken). From 17 dims on only
            colours are drawn.
        ax: where to draw.
        title: above it.
        low: ends of the colour scale, shared by grids side by side.
        high: ends of the colour scale, shared by grids side by side.
        trained: cells (layer, dim) that get a white corner, such as those of `Recipe.cells`; others are passed over.
        starred: cells whose number gets a star, such as those that differ significantly from another model's.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    need(table, ("layer", "dim", "spearman"))
    cells = by_cell(table, "spearman")
    draw_cells(cells, ax, numbers(cells, ".1f", starred), vmin=low, vmax=high, cmap=GRID_COLOURS)
    mark_cells(cells, ax, trained)
    ax.set(title=title, xlabel="dim (coordinates kept)", ylabel="layer (layers run)")
    return ax


def heatmaps(
    grids: Mapping[str, pd.DataFrame],
    title: str = "",
    trained: Mapping[str, Collection[tuple[int, int]]] | None = None,
) -> list[Axes]:
    """Several models' grids side by side on one colour scale, with one colour bar.

    Args:
        grids: title -> table as `heatmap` takes it.
        title: above all.
        trained: title -> cells that get a white corner; titles may be left out.

    Returns:
        One Axes a grid; their figure is ``axes[0].figure``.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    for table in grids.values():
        need(table, ("layer", "dim", "spearman"))
    low, high = common_scale(grids)
    figure, axes = row_of_grids([table["dim"].nunique() for table in grids.values()], rows_of(grids), bars=1)
    for ax, (name, grid) in zip(axes, grids.items(), strict=False):
        heatmap(grid, ax, name, low, high, (trained or {}).get(name, ()))
        if ax is not axes[0]:
            ax.set_ylabel("")
    colour_bar(axes[-1], low, high, GRID_COLOURS, score_name(*grids.values()))
    title_above(figure, title, "corner: cell trained on" if any((trained or {}).values()) else "")
    return axes[:-1]


def by_cell(table: pd.DataFrame, values: str) -> pd.DataFrame:
    """The mean of a column by layer (rows, the deepest first) and dim (columns)."""
    return means(table.groupby(["layer", "dim"])[values]).unstack().sort_index(ascending=False)


def means(groups: Any) -> pd.Series:
    """The mean of each group of numbers; NaN where one of them is: the others alone are another mean."""
    return groups.mean().where(groups.count() == groups.size())


def numbers(cells: pd.DataFrame, form: str, starred: Collection[tuple[int, int]] = ()) -> pd.DataFrame | None:
    """What is written in each cell; None for a grid too wide for numbers."""
    if cells.shape[1] > NUMBERS_UP_TO:
        return None
    stars = set(starred)
    written = {
        dim: ["" if np.isnan(v) else format(v, form) + "*" * ((layer, dim) in stars) for layer, v in cells[dim].items()]
        for dim in cells
    }
    return pd.DataFrame(written, index=cells.index)


def draw_cells(
    cells: pd.DataFrame, ax: Axes, written: pd.DataFrame | None, cbar: bool = False, **colours: object
) -> None:
    """Colours and numbers of a grid, its ticks upright and of a size that fits; with a colour bar of its own."""
    annotation = {"annot": False if written is None else written, "fmt": "", "annot_kws": {"size": 8}}
    sns.heatmap(cells, ax=ax, cbar=cbar, **annotation, **colours)
    for number in ax.texts:  # in black or white, whichever stands out more from the cell's colour (WCAG 2.2, 1.4.3)
        x, y = number.get_position()
        colour = ax.collections[0].get_facecolors()[int(y) * cells.shape[1] + int(x)]
        number.set_color("black" if relative_luminance(colour) > BRIGHT else "white")
    if written is None:
        steps = np.unique(np.linspace(0, cells.shape[1] - 1, 7).astype(int))
        ax.set_xticks(steps + 0.5, [str(cells.columns[i]) for i in steps])
    ax.tick_params(axis="both", rotation=0, labelsize=8)


def mark_cells(cells: pd.DataFrame, ax: Axes, marked: Collection[tuple[int, int]]) -> None:
    """A white corner on each of the ``marked`` cells (layer, dim); a dot would read as part of the number."""
    places = [
        (cells.columns.get_loc(d) + 0.88, cells.index.get_loc(n) + 0.14)
        for n, d in marked
        if n in cells.index and d in cells.columns
    ]
    if places:
        x, y = zip(*places, strict=True)
        corner = {"marker": [(-1, 1), (1, 1), (1, -1)], "color": "white", "edgecolors": "black", "linewidths": 0.5}
        ax.scatter(x, y, s=18, zorder=3, **corner)


def common_scale(grids: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    """The lowest and the highest cell of several models' grids, each cell the mean over its tasks."""
    cells = [means(grid.groupby(["layer", "dim"])["spearman"]) for grid in grids.values()]
    return min(mean.min() for mean in cells), max(mean.max() for mean in cells)


def rows_of(grids: Mapping[str, pd.DataFrame]) -> int:
    """The largest number of layers among several grids."""
    return max(table["layer"].nunique() for table in grids.values())


def row_of_grids(columns: Sequence[int], rows: int, bars: int) -> tuple[Figure, list[Axes]]:
    """A figure of grids of the given numbers of columns side by side, then ``bars`` narrow Axes for colour bars.

    A cell has the same size whatever the number of grids, so that three grids of 6 x 6 stay readable at the width of a
    README page.
    """
    widths = [max(CELL[0] * min(n, NUMBERS_UP_TO), 2.0) for n in columns] + [0.12] * bars  # 2.0: for the titles
    size = (sum(widths) + 0.5 * len(columns) + 0.6 * bars + 0.2, CELL[1] * rows + 1.15)
    figure, axes = plt.subplots(
        1, len(widths), figsize=size, gridspec_kw={"width_ratios": widths}, layout="constrained", squeeze=False
    )
    return figure, list(axes[0])


def title_above(figure: Figure, title: str, note: str) -> None:
    """A title over all grids, with a note on their marks if there are any, in lines that fit the figure."""
    text = "   ".join(part for part in (title, f"({note})" if note else "") if part)
    figure.suptitle(textwrap.fill(text, int(12 * figure.get_figwidth())), fontsize=11)


def score_name(*tables: pd.DataFrame) -> str:
    """What the scores of grids are: Spearman, or what their column ``metric`` says where they have one; each metric."""
    metrics = sorted({metric for table in tables for metric in table.get("metric", ["spearman"])})
    return f"{', '.join('Spearman' if metric == 'spearman' else metric for metric in metrics)} x 100"


def colour_bar(ax: Axes, low: float, high: float, colours: str, label: str) -> None:
    """A colour bar that fills ``ax``."""
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(low, high), colours)
    ax.figure.colorbar(scale, cax=ax, label=label)
    ax.tick_params(labelsize=8)


def loss_terms(history: pd.DataFrame) -> list[str]:
    """The columns of a run's history that hold loss terms: all but its own, and layers or dims that steps drew."""
    names = [name for name in history if name not in ("step", "loss", "lr", "grad_norm")]
    return [name for name in names if not _is_drawn(history[name])]


def _is_drawn(column: pd.Series) -> bool:
    """Whether a column holds integers, as draws are; where some steps drew nothing, they are whole floats with gaps."""
    gaps = pd.api.types.is_float_dtype(column) and column.isna().any() and column.notna().any()
    return pd.api.types.is_integer_dtype(column) or bool(gaps and (column.dropna() % 1 == 0).all())


def terms(history: pd.DataFrame, ax: Axes, smooth: int = 10) -> Axes:
    """The loss terms of a run over its steps, each a running mean over ``smooth`` logged rows.

    Args:
        history: as `Run.history`.
        ax: where to draw.
        smooth: logged rows of the running mean.
    """
    need(history, ("step", "loss"))
    names = loss_terms(history)
    for name in names:
        curve = history[name].rolling(smooth, min_periods=1).mean()
        ax.plot(history["step"], curve, label=name.replace("_", " "), **term_style(name, names))
    ax.set(xlabel="step", ylabel="loss", title=f"Loss terms (running mean of {smooth})")
    ax.legend(fontsize=8)
    return ax


def curves(
    tables: Mapping[str, pd.DataFrame],
    ax: Axes,
    over: str = "layer",
    dims: Sequence[int] | None = None,
    labels: bool = True,
) -> Axes:
    """Mean score over the layers (or dims) of several models, one line each, with a band where intervals are known.

    Args:
        tables: label -> grid; its columns low and high, if it has them, give the band (see `interval`).
        ax: where to draw.
        over: ``layer`` or ``dim``.
        dims: keep only these dims.
        labels: whether each line has its label at its end.

    Raises:
        ValueError: if a column is missing, there are no rows, or ``over`` is neither.
    """
    if over not in ("layer", "dim"):
        raise ValueError(f"over is {over!r}: it must be layer or dim")
    kept = {label: table if dims is None else table[table["dim"].isin(dims)] for label, table in tables.items()}
    for table in kept.values():
        need(table, ("layer", "dim", "spearman"))
    ticks = sorted({value for table in kept.values() for value in table[over]})
    for place, (label, table) in enumerate(kept.items()):
        line, style = interval(table, over), model_style(label, place)
        x = [ticks.index(value) for value in line.index]
        ax.plot(x, line["spearman"], label=label, markersize=5, **style)
        if line["low"].notna().all():
            ax.fill_between(x, line["low"], line["high"], color=style["color"], alpha=0.15, linewidth=0)
    ax.set_xticks(range(len(ticks)), [str(value) for value in ticks])
    words = {"layer": "layer (layers run)", "dim": "dim (coordinates kept)"}
    ax.set(xlabel=words[over], ylabel=score_name(*kept.values()))
    ax.grid(alpha=0.3)
    if labels:
        label_lines(ax)
    return ax


def interval(table: pd.DataFrame, over: str) -> pd.DataFrame:
    """Mean Spearman by ``over`` and a 95% interval of that mean: columns spearman, low, high.

    Cells of one task share its pairs and move together: their distances to low and high are averaged. Tasks are
    independent: theirs are added as squares, over the number of tasks. NaN where a task has no interval.
    """
    if not {"low", "high"} <= set(table):
        table = table.assign(low=np.nan, high=np.nan)
    if "task" not in table:
        table = table.assign(task="")
    down, up = table["spearman"] - table["low"], table["high"] - table["spearman"]
    tasks = table.assign(down=down, up=up).groupby([over, "task"])
    tasks = tasks[["down", "up"]].mean().assign(spearman=means(tasks["spearman"]))
    lines = tasks.groupby(over)
    mean, count = means(lines["spearman"]), lines.size()
    reach = (tasks[["down", "up"]] ** 2).groupby(over).agg(lambda squares: squares.sum(skipna=False)) ** 0.5
    return pd.DataFrame({"spearman": mean, "low": mean - reach["down"] / count, "high": mean + reach["up"] / count})


def need(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table that cannot be drawn.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    missing = [c for c in columns if c not in table]
    if missing or not len(table):
        raise ValueError(f"cannot draw this table: {'no rows' if not missing else 'missing ' + ', '.join(missing)}")
