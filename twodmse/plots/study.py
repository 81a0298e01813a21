"""Pictures of many models: grids in rows, and differences with their intervals."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

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

    Args:
        curves: model -> one row a run, columns lr, seed, below, full, Spearman x 100. A model without a full cell is a
            vertical line at its best mean below; one with lr 0 was not trained.
        ax: where to draw.
    """
    points = {model: rows.groupby("lr")[["below", "full"]].mean() for model, rows in curves.items()}
    for place, (model, rows) in enumerate(curves.items()):
        style, means = model_style(model, place), points[model]
        others = np.concatenate([points[other].to_numpy() for other in curves if other != model] or [np.empty((0, 2))])
        if means["full"].isna().all():
            ax.axvline(means["below"].max(), color=style["color"], linestyle=":", label=f"{model}: no full cell")
            continue
        ax.plot(means["below"], means["full"], label=model, **style)
        ax.scatter(rows["below"], rows["full"], color=style["color"], s=8, alpha=0.6, zorder=3)
        for rate, (below, full) in zip(means.index, means.to_numpy(), strict=True):
            if rate:
                right, above = (others - (below, full)).T  # to the points of other models
                crowded = bool(((right > 0) & (right < 2) & (np.abs(above) < 0.6)).any())
                at = {"xytext": (-5 if crowded else 5, 5), "ha": "right" if crowded else "left"}
                ax.annotate(
                    f"{rate:g}", (below, full), textcoords="offset points", fontsize=7, color=style["color"], **at
                )
    ax.set(xlabel="Spearman x 100, layers below the last, mean of the dims", ylabel="Spearman x 100, full cell")
    ax.margins(0.1)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return ax
