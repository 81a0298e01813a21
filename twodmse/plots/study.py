"""Pictures of many models: grids in rows, and differences with their intervals."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from twodmse.plots.grids import CELL, GRID_COLOURS, colour_bar, common_scale, heatmap, need, rows_of, title_above
from twodmse.plots.palette import BLUE, ORANGE, model_style


def heatmap_rows(grids: Mapping[str, pd.DataFrame], title: str = "", across: int = 3) -> list[Axes]:
    """Many models' grids in rows of ``across``, on one colour scale.

    Args:
        grids: title -> table as `heatmap` takes it.
        title: above all.
        across: grids a row.

    Returns:
        One Axes a grid; their figure is ``axes[0].figure``.
    """
    low, high = common_scale(grids)
    rows = -(-len(grids) // across)
    wide = CELL[0] * max(table["dim"].nunique() for table in grids.values())
    size = ((wide + 0.5) * across + 0.8, (CELL[1] * rows_of(grids) + 0.9) * rows + 0.4)
    figure, axes = plt.subplots(
        rows, across + 1, figsize=size, gridspec_kw={"width_ratios": [wide] * across + [0.12]}, layout="constrained",
        squeeze=False,
    )  # fmt: skip
    places = [axes[i // across, i % across] for i in range(rows * across)]
    for i, (ax, (name, grid)) in enumerate(zip(places, grids.items(), strict=False)):
        heatmap(grid, ax, name, low, high)
        if i % across:
            ax.set_ylabel("")
        if i + across < len(grids):
            ax.set_xlabel("")
    for ax in places[len(grids) :]:
        ax.set_axis_off()
    for ax in axes[:, -1]:
        colour_bar(ax, low, high, GRID_COLOURS, "Spearman x 100")
    title_above(figure, title, "")
    return places[: len(grids)]


def difference_dots(table: pd.DataFrame, ax: Axes, title: str = "") -> Axes:
    """Differences as dots with their 95% intervals, one row each, the first on top; hollow where the sign is not sure.

    Args:
        table: columns label, difference, low, high (Spearman x 100) and, if it has it, seeds: a list of the differences
            of each seed, drawn as ticks below.
        ax: where to draw.
        title: above it.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    need(table, ("label", "difference", "low", "high"))
    places = np.arange(len(table))[::-1]
    ax.axvline(0, color="0.4", linewidth=1)
    for place, row in zip(places, table.itertuples(), strict=True):
        seeds = getattr(row, "seeds", [])
        ends = [row.low, row.high, *seeds]
        sure = min(ends) > 0 or max(ends) < 0
        ax.plot(seeds, [place - 0.25] * len(seeds), "|", color=ORANGE, markeredgewidth=2, zorder=3)
        ax.plot([row.low, row.high], [place, place], color=BLUE, linewidth=2, zorder=2)
        ax.plot(row.difference, place, "o", color=BLUE, markerfacecolor=BLUE if sure else "white", zorder=3)
    ax.set_yticks(places, table["label"])
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.set(title=title, xlabel="difference of Spearman x 100")
    ax.grid(axis="x", alpha=0.3)
    return ax


def tradeoff(curves: Mapping[str, pd.DataFrame], ax: Axes) -> Axes:
    """What a model has below the last layer against what it has at the top, one curve through its learning rates.

    The lowest and the highest rate of each curve are written beside it.

    Args:
        curves: model -> one row a run, columns lr, seed, below, full, Spearman x 100. A model without a full cell is a
            vertical line at its best mean below; one with lr 0 was not trained.
        ax: where to draw.
    """
    names: list[tuple[str, np.ndarray, str]] = []  # of the points: text, place (2,), colour
    for place, (model, rows) in enumerate(curves.items()):
        style, means = model_style(model, place), rows.groupby("lr")[["below", "full"]].mean()
        if means["full"].isna().all():
            ax.axvline(means["below"].max(), color=style["color"], linestyle=":", label=f"{model}: no full cell")
            continue
        ax.plot(means["below"], means["full"], label=model, **style)
        ax.scatter(rows["below"], rows["full"], color=style["color"], s=8, alpha=0.6, zorder=3)
        ends = {means.index.min(), means.index.max()} - {0.0}  # what lies between is told by the order
        shown = zip(means.index, means.to_numpy(), strict=True)
        names += [(f"{rate:g}" if rate in ends else "", point, style["color"]) for rate, point in shown]
    ax.set(xlabel="Spearman x 100, layers below the last, mean of the dims", ylabel="Spearman x 100, full cell")
    ax.margins(0.1)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    name_points(ax, names)
    return ax


def name_points(ax: Axes, names: Sequence[tuple[str, np.ndarray, str]], size: float = 7) -> None:
    """Write a text beside each point, on the side where it covers least of the points, lines and texts.

    Args:
        ax: where the points are drawn already.
        names: text (empty for none), place (2,) and colour of each point.
        size: of the texts, in points.
    """
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]  # so that places on the page are known
    inch = ax.figure.dpi / 72  # pixels a point of print
    centres = np.array([ax.transData.transform(point) for _, point, _ in names]) / inch  # (P, 2)
    taken = [(*(centre - 4), *(centre + 4)) for centre in centres]  # boxes left, bottom, right, top: the markers
    for dots in ax.collections:
        for spot in ax.transData.transform(dots.get_offsets()) / inch:
            taken.append((*(spot - 2), *(spot + 2)))
    for line in ax.lines:
        path = np.asarray(line.get_transform().transform(line.get_xydata())) / inch  # (V, 2)
        for start, end in pairwise(path):
            steps = np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / 3))[:, None]
            taken += [(*(spot - 1), *(spot + 1)) for spot in start + steps * (end - start)]
    for (text, point, colour), centre in zip(names, centres, strict=True):
        if not text:
            continue
        wide, boxes = 0.65 * size * len(text), []
        for across, aside in {"left": 6.0, "right": -6.0, "center": 0.0}.items():
            for up in (6.0, -6.0 - size, -size / 2):
                left = centre[0] + aside - {"left": 0, "right": wide, "center": wide / 2}[across]
                boxes.append((across, (aside, up), (left, centre[1] + up, left + wide, centre[1] + up + size)))
        across, offset, box = min(boxes, key=lambda found: sum(_overlap(found[2], other) for other in taken))
        taken.append((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2))
        halo = [withStroke(linewidth=2, foreground="white")]  # a line that it crosses does not cut it
        at = {"xytext": offset, "textcoords": "offset points", "ha": across, "va": "bottom", "path_effects": halo}
        ax.annotate(text, point, fontsize=size, color=colour, **at)


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    wide, high = (max(0.0, min(one[i + 2], two[i + 2]) - max(one[i], two[i])) for i in (0, 1))
    return wide * high
