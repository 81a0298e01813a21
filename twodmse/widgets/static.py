"""The widgets' pictures as matplotlib figures, for pages that run no widgets: the same numbers at one cell.

A figure is let go of by pyplot as soon as it is made: a notebook shows what a cell returns, and so each one once.
"""

from collections.abc import Mapping
from textwrap import shorten, wrap

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from twodmse.data.sets import TextSet
from twodmse.files import as_written
from twodmse.plots.grids import GRID_COLOURS, draw_cells, heatmap, numbers
from twodmse.plots.palette import term_style
from twodmse.widgets.cells import marked_dims, spearman
from twodmse.widgets.drawing import DOWN, TERM_COLOURS, UP, cosine_shade, cosine_share, gold_axis, palette


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of that size in inches, which nobody else shows or must close."""
    figure = plt.figure(figsize=size, layout="constrained")
    plt.close(figure)
    return figure


def pair_figure(cosines: Mapping[str, np.ndarray], layer: int, dim: int, first: str, second: str) -> Figure:
    """The cosine of two sentences at every cell, one panel a model, the chosen cell marked.

    Args:
        cosines: model name -> (N+1, D).
        layer: of the chosen cell.
        dim: of the chosen cell.
        first: a sentence.
        second: the other one.
    """
    layers = len(next(iter(cosines.values()))) - 1
    figure = new_figure((5.6 * len(cosines), 2.1 + 0.36 * layers))
    axes = figure.subplots(1, len(cosines), squeeze=False)[0]
    for ax, (name, values) in zip(axes, cosines.items(), strict=True):
        mark_cell(ax, values, layer, dim)
        value, full = values[layer, dim - 1], values[-1, -1]
        ax.set_title(f"{name}: {value:.3f} at layer {layer}, dim {dim}\n(full size: {full:.3f})", fontsize=10)
    marks = [-1, 0, 0.5, 1]
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), GRID_COLOURS), ax=axes, label="cosine")
    bar.ax.set_yticks(cosine_share(marks), [f"{mark:g}" for mark in marks], fontsize=8)
    figure.suptitle(f"“{shorten(first, 80, placeholder=' …')}”\n“{shorten(second, 80, placeholder=' …')}”", fontsize=10)
    return as_written(figure)


def mark_cell(ax: Axes, cosines: np.ndarray, layer: int, dim: int) -> Axes:
    """A heatmap of every layer at the doubling dims and the chosen one, with a frame round the chosen cell.

    Args:
        ax: where to draw.
        cosines: (N+1, D); layer 0 is not drawn.
        layer: of the framed cell.
        dim: of the framed cell.
    """
    dims = sorted({*marked_dims(cosines.shape[1]), dim})
    table = pd.DataFrame(cosines[:0:-1, [d - 1 for d in dims]], range(len(cosines) - 1, 0, -1), dims)
    colours = pd.DataFrame(cosine_share(table), table.index, table.columns)
    draw_cells(colours, ax, numbers(table, ".2f"), vmin=0, vmax=1, cmap=GRID_COLOURS)
    corner = dims.index(dim), len(cosines) - 1 - layer
    for colour, width in (("black", 4), ("white", 1.5)):
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3))
    ax.set(xlabel="dim (coordinates kept)", ylabel="layer (layers run)")
    return ax


def ranking_figure(rankings: Mapping[str, pd.DataFrame], layer: int, dim: int, query: str) -> Figure:
    """The sentences from the most to the least similar, one panel a model, each with the places it moved.

    Args:
        rankings: model name -> table as `cells.ranking`.
        layer: of the cell.
        dim: of the cell.
        query: that the sentences are ranked for.
    """
    count = len(next(iter(rankings.values())))
    figure = new_figure((5.6 * len(rankings), 1.5 + 0.42 * count))
    axes = figure.subplots(1, len(rankings), squeeze=False)[0]
    for ax, (name, table) in zip(axes, rankings.items(), strict=True):
        colours = [palette()[0][k] for k in cosine_shade(table["cosine"].to_numpy())]
        ax.barh(table["place"] + 0.22, table["cosine"], height=0.16, color=colours)
        for place, change, cosine, sentence in table.itertuples(index=False):
            words = "\n".join(wrap(sentence, 62, max_lines=1, placeholder=" …"))
            ax.text(-1.0, place - 0.1, f"{place}. {words}", va="center", fontsize=8)
            ax.text(1.02, place, f"{cosine:.3f}", va="center", fontsize=8)
            sign, colour = ("▲", UP) if change > 0 else ("▼", DOWN) if change < 0 else ("–", "0.4")
            ax.text(1.32, place, f"{sign} {abs(change)}" if change else sign, va="center", fontsize=8, color=colour)
        ax.set(xlim=(-1, 1), ylim=(count + 0.6, 0.4), yticks=[], xlabel="cosine")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set_title(f"{name}", fontsize=10)
    asked = shorten(query, 80, placeholder=" …")
    moved = "▲▼: places moved against the full size"
    figure.suptitle(f"Nearest to “{asked}” at layer {layer}, dim {dim} ({moved})", fontsize=10)
    return as_written(figure)


def scatter_figure(points: Mapping[str, np.ndarray], pairs: TextSet, layer: int, dim: int) -> Figure:
    """Gold scores against cosines at one cell, one panel a model.

    Args:
        points: model name -> (P,) cosines of the P pairs.
        pairs: the scored pairs.
        layer: of the cell.
        dim: of the cell.
    """
    figure = new_figure((4.8 * len(points), 3.6))
    axes = figure.subplots(1, len(points), squeeze=False, sharey=True)[0]
    for ax, (name, values) in zip(axes, points.items(), strict=True):
        ax.plot(pairs.gold, values, "o", markersize=4, alpha=0.4, markeredgewidth=0, color=TERM_COLOURS[0])
        ax.axhline(0, color="0.6", linewidth=0.8, linestyle="--")
        ax.set(xlabel="gold score ({:g} to {:g})".format(*gold_axis(pairs.gold)), ylim=(-1.05, 1.05))
        ax.set_title(f"{name}: Spearman × 100 = {spearman(values, pairs.gold):.2f}", fontsize=10)
    axes[0].set_ylabel("cosine")
    figure.suptitle(f"{pairs.name}: {len(pairs)} pairs at layer {layer}, dim {dim}", fontsize=10)
    return as_written(figure)


def replay_figure(grids: Mapping[int, pd.DataFrame], terms: pd.DataFrame, low: float, high: float) -> Figure:
    """The grids of the first, the middle and the last step on one scale, and the loss terms of the run.

    Args:
        grids: step -> layers down, dims across.
        terms: as `cells.smoothed_terms`.
        low: ends of the scale.
        high: ends of the scale.
    """
    steps = list(grids)
    chosen = list(dict.fromkeys([steps[0], steps[len(steps) // 2], steps[-1]]))
    figure = new_figure((11.2, 6))
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    axes = above.subplots(1, len(chosen), squeeze=False)[0]
    for ax, step in zip(axes, chosen, strict=True):
        table = grids[step].stack().rename("spearman").reset_index()
        heatmap(table, ax, f"step {step}: mean {grids[step].to_numpy().mean():.1f}", low, high)
        if ax is not axes[0]:
            ax.set_ylabel("")
    above.colorbar(ScalarMappable(Normalize(low, high), GRID_COLOURS), ax=axes, label="Spearman × 100")
    ax = below.subplots()
    for name in terms:
        ax.plot(terms.index, terms[name], label=name.replace("_", " "), **term_style(name, list(terms)))
    for step in chosen:
        ax.axvline(step, color="0.6", linewidth=0.8)
    ax.set(xlabel="step", ylabel="loss term", title="Loss terms (running mean)")
    ax.set(xlim=(0, terms.index.max()), ylim=(0, None))
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return as_written(figure)


def replay_frame(low: float, high: float) -> tuple[Figure, Axes]:
    """A figure for one grid at a time, with its colour bar.

    Args:
        low: lower end of the scale, the same for all steps.
        high: its upper end.
    """
    figure = new_figure((5.4, 3.4))
    ax = figure.subplots()
    figure.colorbar(ScalarMappable(Normalize(low, high), GRID_COLOURS), ax=ax, label="Spearman × 100")
    return figure, ax


def draw_step(ax: Axes, grids: Mapping[int, pd.DataFrame], low: float, high: float, step: int) -> None:
    """Draw one step's grid in place of what ``ax`` shows.

    Args:
        ax: where to draw.
        grids: step -> cells, layers down (index), dims across (columns).
        low: lower end of the scale, the same for all steps.
        high: its upper end.
        step: that is drawn.
    """
    ax.clear()
    table = grids[step].stack().rename("spearman").reset_index()
    heatmap(table, ax, f"step {step}: mean {grids[step].to_numpy().mean():.1f}", low, high)
