"""The widgets' pictures as matplotlib figures, for pages that run no widgets: the same numbers at one cell.

A figure is let go of by pyplot as soon as it is made: a notebook shows what a cell returns, and so each one once.
"""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from twodmse.data.sets import TextSet
from twodmse.files import as_written
from twodmse.plots.grids import GRID_COLOURS, draw_cells, heatmap, numbers
from twodmse.plots.palette import term_style
from twodmse.widgets.cells import marked_dims, spearman
from twodmse.widgets.drawing import DOWN, TERM_COLOURS, UP, cosine_shade, cosine_share, gold_axis, palette

SIZE = 10  # points: the letters of the titles
PANEL, MARGIN = 4.2, 0.3  # inches: the width of a panel's own title, and what is left free beside a figure's


class QuietFigure(Figure):
    """A figure that draws a box for a letter that no installed font has, and does not warn of each."""

    def draw(self, renderer: Any) -> None:
        """Draw without those warnings."""
        with quiet():
            super().draw(renderer)

    def get_tightbbox(self, *args: Any, **options: Any) -> Any:
        """Measure without those warnings: a notebook does so before it draws."""
        with quiet():
            return super().get_tightbbox(*args, **options)


@contextmanager
def quiet() -> Any:
    """Keep matplotlib's warnings of letters that no font has to itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        yield


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of that size in inches, which nobody else shows or must close."""
    figure = plt.figure(figsize=size, layout="constrained", FigureClass=QuietFigure)
    plt.close(figure)
    return figure


@contextmanager
def fonts_for(words: Iterable[str]) -> Any:
    """Fonts for figures that are made inside: after the usual one, installed ones with the letters that it lacks.

    A letter that no installed font has is left a box.

    Args:
        words: what is to be written.
    """
    families = list(plt.rcParams["font.family"])
    missing = {ord(letter) for letter in "".join(words) if letter.isprintable()} - letters(findfont(FontProperties()))
    if missing:
        plain = [font for font in fontManager.ttflist if (font.style, font.weight) == ("normal", 400)]
        for font in sorted(plain, key=lambda font: font.name):
            if "lastresort" not in font.name.replace(" ", "").lower() and missing & letters(font.fname):
                families.append(font.name)
                missing -= letters(font.fname)
            if not missing:
                break
    with plt.rc_context({"font.family": families}), quiet():
        yield


@cache
def letters(path: str) -> frozenset[int]:
    """The letters that a font file has a picture of, by number; none of a file that cannot be read."""
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def fitted(words: str, inches: float, lines: int = 1, size: float = SIZE) -> str:
    """Words on lines of that many inches, broken at a space where there is one; what does not fit gives way to "…".

    Args:
        words: what is to be written.
        inches: that a line may take.
        lines: that there may be.
        size: of the letters, in points.
    """
    made, rest = [], " ".join(words.split())
    while width_of(rest, size) > inches:
        last = len(made) == lines - 1
        low, high = 1, len(rest)  # letters that fit, or are taken without asking, and that do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if width_of(rest[:middle] + " …" * last, size) <= inches else (low, middle)
        if last:
            rest = f"{rest[:low].rstrip()} …"
            break
        space = rest.rfind(" ", 1, low + 1)
        at = space if space > low // 2 else low  # a path has no spaces
        made.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return "\n".join([*made, rest])


def width_of(words: str, size: float = SIZE) -> float:
    """The width in inches of words in letters of so many points."""
    return text_to_path.get_text_width_height_descent(words, FontProperties(size=size), False)[0] / 72


def squeezed(figure: Figure, before: str, words: str, after: str) -> str:
    """A line as wide as a figure at most: words, shortened as far as need be, between others that stay whole."""
    room = figure.get_figwidth() - MARGIN - width_of(before + after)
    return f"{before}{fitted(words, room)}{after}"


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
    with fonts_for([first, second, *cosines]):
        figure = new_figure((5.6 * len(cosines), 2.1 + 0.36 * layers))
        axes = figure.subplots(1, len(cosines), squeeze=False)[0]
        for ax, (name, values) in zip(axes, cosines.items(), strict=True):
            mark_cell(ax, values, layer, dim)
            value, full = values[layer, dim - 1], values[-1, -1]
            told = f"{value:.3f} at layer {layer}, dim {dim} (full size: {full:.3f})"
            ax.set_title(f"{fitted(name, PANEL, 2)}\n{told}", fontsize=SIZE)
        marks = [-1, 0, 0.5, 1]
        bar = figure.colorbar(ScalarMappable(Normalize(0, 1), GRID_COLOURS), ax=axes, label="cosine")
        bar.ax.set_yticks(cosine_share(marks), [f"{mark:g}" for mark in marks], fontsize=8)
        lines = (squeezed(figure, "“", text, "”") for text in (first, second))
        figure.suptitle("\n".join(lines), fontsize=SIZE)
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
    first = next(iter(rankings.values()))
    with fonts_for([query, *rankings, *first["sentence"]]):
        figure = new_figure((5.6 * len(rankings), 1.6 + 0.42 * len(first)))
        axes = figure.subplots(1, len(rankings), squeeze=False)[0]
        for ax, (name, table) in zip(axes, rankings.items(), strict=True):
            draw_ranking(ax, table)
            ax.set_title(fitted(name, PANEL, 2), fontsize=SIZE)
        asked = squeezed(figure, "Nearest to “", query, "”")
        moved = f"at layer {layer}, dim {dim} (▲▼: places moved against the full size)"
        figure.suptitle(f"{asked}\n{moved}", fontsize=SIZE)
        return as_written(figure)


def draw_ranking(ax: Axes, table: pd.DataFrame) -> None:
    """One model's ranking: a line and a bar a sentence, with its cosine and the places that it moved on the right.

    Args:
        ax: where to draw.
        table: as `cells.ranking`.
    """
    colours = [palette()[0][k] for k in cosine_shade(table["cosine"].to_numpy())]
    ax.barh(table["place"] + 0.22, table["cosine"], height=0.16, color=colours)
    for place, change, cosine, sentence in table.itertuples(index=False):
        ax.text(-1.0, place - 0.1, fitted(f"{place}. {sentence}", PANEL, size=8), va="center", fontsize=8)
        ax.text(1.02, place, f"{cosine:.3f}", va="center", fontsize=8)
        sign, colour = ("▲", UP) if change > 0 else ("▼", DOWN) if change < 0 else ("–", "0.4")
        ax.text(1.32, place, f"{sign} {abs(change)}" if change else sign, va="center", fontsize=8, color=colour)
    ax.set(xlim=(-1, 1), ylim=(len(table) + 0.6, 0.4), yticks=[], xlabel="cosine")
    ax.spines[["top", "right", "left"]].set_visible(False)


def scatter_figure(points: Mapping[str, np.ndarray], pairs: TextSet, layer: int, dim: int, gold: str) -> Figure:
    """Scores against cosines at one cell, one panel a model.

    Args:
        points: model name -> (P,) cosines of the P pairs.
        pairs: the scored pairs.
        layer: of the cell.
        dim: of the cell.
        gold: what the scores are.
    """
    with fonts_for([pairs.name, *points]):
        figure = new_figure((4.8 * len(points), 3.6))
        axes = figure.subplots(1, len(points), squeeze=False, sharey=True)[0]
        for ax, (name, values) in zip(axes, points.items(), strict=True):
            ax.plot(pairs.gold, values, "o", markersize=4, alpha=0.4, markeredgewidth=0, color=TERM_COLOURS[0])
            ax.axhline(0, color="0.6", linewidth=0.8, linestyle="--")
            ax.set(xlabel="{} ({:g} to {:g})".format(gold, *gold_axis(pairs.gold)), ylim=(-1.05, 1.05))
            told = f"Spearman × 100 = {spearman(values, pairs.gold):.2f}"
            ax.set_title(f"{fitted(name, 0.8 * PANEL, 2)}\n{told}", fontsize=SIZE)
        axes[0].set_ylabel("cosine")
        told = f": {len(pairs)} pairs at layer {layer}, dim {dim}"
        figure.suptitle(squeezed(figure, "", pairs.name, told), fontsize=SIZE)
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
