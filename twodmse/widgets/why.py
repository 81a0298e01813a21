"""Why does a pair's cosine change between two cells? The shares of coordinates and of tokens, side by side."""

from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np

from twodmse.encoder.reading import check_count
from twodmse.probes.shares import TokenVectors, coordinate_shares, token_shares, token_vectors
from twodmse.widgets import cells, drawing
from twodmse.widgets.controls import HALF, WIDE, log_slider, number_box, slider, text_box
from twodmse.widgets.views import CellView


class WhyFlip(CellView):
    """Two sentences at two cells: which coordinates and which words make the cosine what it is at each.

    The shares of the coordinates add up to the cosine, and so do those of the tokens.

    Args:
        models: name -> encoder, one or more of one shape; shown side by side.
        first: one sentence to start with.
        second: the other sentence to start with.
        layer: the cell to explain; None means the largest.
        dim: the cell to explain; None means the largest.
        other_layer: the cell it is compared with; None means the largest.
        other_dim: the cell it is compared with; None means the largest.
        count: coordinates listed: those whose shares differ most between the two cells.

    Raises:
        ValueError: as `CellView`, and for a sentence without text.
    """

    def __init__(
        self,
        models: cells.Models,
        first: str,
        second: str,
        layer: int | None = None,
        dim: int | None = None,
        other_layer: int | None = None,
        other_dim: int | None = None,
        count: int = 8,
    ) -> None:
        super().__init__(models, layer, dim)
        other_layer, other_dim = self.first_model.check_cell(other_layer, other_dim)
        check_count("count", count)
        self.count = count
        self.other_layer = slider("other layer", other_layer, self.states_of.num_layers)
        self.other_dim = number_box("other dim", other_dim, self.states_of.dim)
        self.other_slider = log_slider("other dim", self.other_dim)
        for control in (self.other_layer, self.other_dim):
            control.observe(self.redraw, names="value")
        self.first, self.second = text_box("sentence 1", first), text_box("sentence 2", second)
        self.show(self.first, self.second)

    def controls(self) -> widgets.Widget:
        """Two sliders for either cell."""
        other = widgets.HBox([self.other_slider, self.other_dim], layout=widgets.Layout(**HALF))
        row = widgets.HBox([self.other_layer, other], layout=widgets.Layout(flex_flow="row wrap", **WIDE))
        return widgets.VBox([super().controls(), row])

    @property
    def both(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The chosen cell and the one that it is compared with."""
        return self.cell, (self.other_layer.value, self.other_dim.value)

    def encode(self) -> None:
        """Token vectors and states of the two sentences under each model."""
        texts = self.first.value, self.second.value
        self.states = self.states_of(texts)  # name -> (N+1, 2, D)
        self.texts = texts
        self.tokens: dict[str, list[TokenVectors]] = {
            name: [token_vectors(encoder, text) for text in texts] for name, encoder in self.states_of.models.items()
        }

    def shown(self) -> tuple[str, ...]:
        """The two sentences."""
        return self.texts

    def coordinates(self, name: str) -> np.ndarray:
        """The share of each coordinate at both cells: (2, D); NaN where a cell does not keep it."""
        shares = np.full((2, self.states_of.dim), np.nan)
        for row, (layer, dim) in enumerate(self.both):
            shares[row, :dim] = coordinate_shares(*self.states[name][layer], dim)
        return shares

    def html(self) -> str:
        """The picture of both cells."""
        (layer, dim), (other_layer, other_dim) = self.both
        panels = [drawing.panel(name, *self.panel(name)) for name in self.states]
        title = f"Shares in the cosine at layer {layer}, dim {dim}, beside layer {other_layer}, dim {other_dim}"
        return drawing.page(title, *panels)

    def panel(self, name: str) -> tuple[str, ...]:
        """One model's part: the two cosines, then tables of coordinates and of tokens."""
        shares = self.coordinates(name)  # (2, D)
        here, there = np.nansum(shares, axis=1)
        line = drawing.number("cosine ", f"{here:.3f}", f"(at the other cell: {there:.3f})")
        change = np.nan_to_num(shares[0]) - np.nan_to_num(shares[1])  # (D,)
        rows = np.argsort(-np.abs(change), kind="stable")[: self.count]
        listed: list[tuple[str, Any, Any]] = [(f"coordinate {k}", *shares[:, k]) for k in rows]
        rest = np.nansum(np.delete(shares, rows, axis=1), axis=1)
        if len(rows) < shares.shape[1]:
            listed.append((f"the other {shares.shape[1] - len(rows)}", *rest))
        parts = [line, shares_table("coordinates that change most (counted from 0)", listed)]
        for side in (0, 1):
            sums = [token_shares(*self.tokens[name], *cell).sum(axis=1 - side) for cell in self.both]  # 2 x (T,)
            words = self.tokens[name][side].tokens
            parts.append(shares_table(f"tokens of sentence {side + 1}", list(zip(words, *sums, strict=True))))
        return tuple(parts)


def shares_table(title: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """Shares of a cosine at two cells as bars from a common zero, and in numbers.

    Args:
        title: of the first column.
        rows: a name, its share at the chosen cell and at the other; NaN where the cell does not have it.
    """
    values = np.nan_to_num(np.array([row[1:] for row in rows], dtype=float))
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    body = "".join(
        f'<tr class="twodmse-share" style="border-top:1px solid #8884"><td style="padding:1px 6px">{escape(name)}</td>'
        f"{_share(here, low, high)}{_share(there, low, high)}</tr>"
        for name, here, there in rows
    )
    heads = "".join(f'<th style="{drawing.HEAD}">{name}</th>' for name in (title, "here", "at the other cell"))
    return f'<table style="border-collapse:collapse;width:100%;font-size:13px"><tr>{heads}</tr>{body}</table>'


def _share(value: float, low: float, high: float) -> str:
    """One cell of the table: a bar of at most 80 px and the number, or a dash for a share that is not there."""
    if np.isnan(value):
        return '<td style="padding:1px 6px;opacity:.7">not kept</td>'
    scale = 80 / max(high - low, 1e-9)
    left, width = scale * (min(value, 0) - low), scale * abs(value)
    colour = drawing.UP if value > 0 else drawing.DOWN
    bar = f"display:inline-block;height:9px;background:{colour};margin-left:{left:.0f}px;width:{width:.0f}px"
    return (
        f'<td style="padding:1px 6px;white-space:nowrap"><span style="display:inline-block;width:84px">'
        f'<span style="{bar}"></span></span> {value:+.3f}</td>'
    )
