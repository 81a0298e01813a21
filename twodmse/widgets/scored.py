"""Scored pairs at the chosen cell: their scatter, and the grid whose cells can be clicked."""

from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from twodmse.data.sets import TextSet, as_texts, distinct
from twodmse.encoder.reading import check_count
from twodmse.evaluation.grid import cell_cosines, check_grid, column_ranks, gold_ranks, rank_correlation
from twodmse.evaluation.quantise import vector_bytes
from twodmse.widgets import cells, drawing, static
from twodmse.widgets.controls import WIDE, ButtonGrid
from twodmse.widgets.views import CellView

GOLD = "gold score"  # what scores are called, where nothing else is said
PANEL = {"layout": {"flex": "1 1 380px", "max_width": "560px", "min_width": "0"}}


class Scatter(CellView):
    """Gold scores against cosines at the chosen cell, with their Spearman.

    Args:
        models: as `CellView`.
        layer: as `CellView`.
        dim: as `CellView`.
        pairs: scored pairs, as `load_pairs` gives them, or as `as_texts` takes them.
        gold: what their scores are, for the axis.

    Raises:
        ValueError: as `CellView`, and if the pairs have no scores, or all the same one.
    """

    def __init__(
        self,
        models: cells.Models,
        pairs: TextSet,
        layer: int | None = None,
        dim: int | None = None,
        gold: str = GOLD,
    ) -> None:
        pairs = as_texts(pairs, "pairs")
        if pairs.gold is None:
            raise ValueError(f"{pairs.name} has no scores: a scatter needs scored pairs, for example mini-sts")
        gold_ranks(pairs)  # refuses scores that are all the same
        super().__init__(models, layer, dim)
        self.pairs, self.gold = pairs, gold
        self.show()

    def encode(self) -> None:
        """The states of all texts of the pairs."""
        texts, *self.rows = distinct(self.pairs)
        self.states = self.states_of(texts)  # name -> (N+1, n, D)
        self.texts = tuple(texts)
        self.full = self.scores(self.states_of.num_layers, self.states_of.dim)

    def shown(self) -> tuple[str, ...]:
        """The texts of the pairs."""
        return self.texts

    def points(self, layer: int, dim: int) -> dict[str, np.ndarray]:
        """Model name -> the (P,) cosines of the pairs at a cell."""
        return {name: cells.cosines_at(states, *self.rows, layer, dim) for name, states in self.states.items()}

    def scores(self, layer: int, dim: int) -> dict[str, float]:
        """Model name -> Spearman x 100 at a cell."""
        return {name: cells.spearman(points, self.pairs.gold) for name, points in self.points(layer, dim).items()}

    def html(self) -> str:
        """The picture of the chosen cell."""
        layer, dim = self.cell
        panels = [drawing.panel(name, *self.panel(name, points)) for name, points in self.points(layer, dim).items()]
        title = f"{escape(self.pairs.name)}: {len(self.pairs)} pairs at layer {layer}, dim {dim}"
        return drawing.page(title, *panels)

    def panel(self, name: str, points: np.ndarray) -> tuple[str, ...]:
        """One model's part: its number and its scatter."""
        score = cells.spearman(points, self.pairs.gold)
        note = drawing.number("Spearman × 100: ", f"{score:.2f}", f"(full size: {self.full[name]:.2f})")
        label = f"scatter of {self.gold} against cosine, Spearman times 100 is {score:.2f}"
        return note, drawing.scatter(self.pairs.gold, points, label, self.gold)

    def static(self) -> Figure:
        """The picture of the chosen cell as a figure, with the same numbers."""
        return static.scatter_figure(self.points(*self.cell), self.pairs, *self.cell, self.gold)


class Grid(Scatter):
    """The grid of Spearman with every cell a button: click one, and its score, pairs, worst pairs and cost follow.

    Args:
        models: name -> encoder, one or more of one shape; shown side by side.
        pairs: scored pairs, as `load_pairs` gives them.
        dims: the columns of the grid; None means the doubling ones from 8 and the full width.
        layer: the cell to start at; None means the largest.
        dim: the cell to start at; None means the largest.
        worst: how many of the worst pairs are listed.
        gold: what the scores are, for the axis and the list.

    Raises:
        ValueError: as `Scatter`, and for a dim out of range.
    """

    def __init__(
        self,
        models: cells.Models,
        pairs: TextSet,
        dims: Sequence[int] | None = None,
        layer: int | None = None,
        dim: int | None = None,
        worst: int = 5,
        gold: str = GOLD,
    ) -> None:
        check_count("worst", worst)
        self.worst = worst
        first = next(iter(cells.StatesOf(models).models.values()))
        self.shown_layers, self.shown_dims = check_grid(first, None, dims)
        super().__init__(models, pairs, layer, dim, gold)

    def controls(self) -> widgets.Widget:
        """The grids of buttons above the sliders."""
        scores = np.concatenate([grid.to_numpy().ravel() for grid in self.grids.values()])
        low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
        self.buttons = {name: ButtonGrid(grid, low, high, self.choose) for name, grid in self.grids.items()}
        self.mark()
        panels = [
            widgets.VBox([widgets.HTML(f"<b>{escape(name)}</b>: Spearman × 100"), made.box], **PANEL)
            for name, made in self.buttons.items()
        ]
        row = widgets.HBox(panels, layout=widgets.Layout(flex_flow="row wrap", **WIDE))
        return widgets.VBox([row, super().controls()])

    def choose(self, layer: int, dim: int) -> None:
        """Go to a cell.

        Raises:
            ValueError: for a layer or dim out of range.
        """
        self.layer.value, self.dim.value = self.first_model.check_cell(layer, dim)

    def mark(self) -> None:
        """Frame the chosen cell in every grid."""
        for made in self.buttons.values():
            made.mark(*self.cell)

    def redraw(self, _: Any = None) -> None:
        """Draw the chosen cell and frame its button; no model is called."""
        super().redraw()
        if hasattr(self, "buttons"):
            self.mark()

    def encode(self) -> None:
        """The states of all texts of the pairs, the grid, and the time that each depth takes for one text."""
        super().encode()
        gold = gold_ranks(self.pairs)  # (P,)
        self.grids = {}
        for name, states in self.states.items():
            cosines = [cell_cosines(states[n], *self.rows, self.shown_dims) for n in self.shown_layers]  # N x (P, K)
            scores = [100 * rank_correlation(column_ranks(c), gold) for c in cosines]
            self.grids[name] = pd.DataFrame(scores, self.shown_layers, self.shown_dims)
        self.times = {name: cells.layer_times(e, self.texts) for name, e in self.states_of.models.items()}

    def worst_pairs(self) -> dict[str, pd.DataFrame]:
        """Model name -> its worst pairs at the chosen cell, as `cells.worst_pairs`."""
        points = self.points(*self.cell)
        return {name: cells.worst_pairs(self.pairs, values, self.worst) for name, values in points.items()}

    def panel(self, name: str, points: np.ndarray) -> tuple[str, ...]:
        """One model's part: number, cost, scatter and worst pairs."""
        layer, dim = self.cell
        times = self.times[name]
        cost = (
            f"{times[layer]:.1f} ms a text here (all layers: {times[max(times)]:.1f}), "
            f"{vector_bytes(dim, 'float32')} bytes a vector (all dims: {vector_bytes(self.states_of.dim, 'float32')})"
        )
        table = worst_table(cells.worst_pairs(self.pairs, points, self.worst), self.gold)
        return *super().panel(name, points), f'<div class="twodmse-cost">{cost}</div>', table


def worst_table(table: pd.DataFrame, gold: str = GOLD) -> str:
    """The pairs that are out of place, one row each: how far off, score, cosine, the two texts; or that none is.

    Args:
        table: as `cells.worst_pairs`.
        gold: what the scores are.
    """
    table = table[table["off"] != 0]
    if not len(table):
        right = f"no pair is out of place: the cosines rank them all as the {escape(gold)} does"
        return f'<div class="twodmse-right">{right}</div>'
    styles = ("white-space:nowrap", "text-align:right", "text-align:right", "overflow-wrap:anywhere")
    rows = []
    for off, score, cosine, first, second in table.itertuples(index=False):
        told = f"too {'high' if off > 0 else 'low'} by {abs(off):g}"
        words = told, f"{score:.3g}", f"{cosine:.2f}", f"{escape(first)}<br/>{escape(second)}"
        line = "".join(f'<td style="padding:2px 6px;{s}">{w}</td>' for s, w in zip(styles, words, strict=True))
        rows.append(f'<tr class="twodmse-worst" style="border-top:1px solid #8884">{line}</tr>')
    names = "worst pairs", escape(gold), "cosine", "texts"
    heads = "".join(f'<th style="{drawing.HEAD}">{name}</th>' for name in names)
    return f'<table style="border-collapse:collapse;width:100%;font-size:13px"><tr>{heads}</tr>{"".join(rows)}</table>'
