"""A map of texts that moves with depth and width."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from twodmse.encoder.reading import as_texts
from twodmse.probes import maps
from twodmse.widgets import cells, drawing
from twodmse.widgets.views import CellView


class TextMap(CellView):
    """Texts as points in the plane at the chosen cell, aligned with the map at full size so that it does not jump.

    Args:
        models: name -> encoder, one or more of one shape; shown side by side.
        texts: n texts, three at least.
        groups: the n texts' groups, told by colour; None means one group.
        layer: the cell to start at; None means the largest.
        dim: the cell to start at; None means the largest.

    Raises:
        ValueError: as `CellView`, and for fewer than three texts, or groups of another number.
    """

    def __init__(
        self,
        models: cells.Models,
        texts: Sequence[str],
        groups: Sequence[str] | None = None,
        layer: int | None = None,
        dim: int | None = None,
    ) -> None:
        texts = as_texts(texts)
        if groups is not None and (isinstance(groups, str) or not isinstance(groups, Iterable)):
            raise ValueError(f"groups is {groups!r}: give a list, one a text, or none")
        groups = groups if groups is None else [str(group) for group in groups]
        if groups is not None and len(groups) != len(texts):
            raise ValueError(f"there are {len(groups)} groups for {len(texts)} texts: give one a text, or none")
        super().__init__(models, layer, dim)
        self.texts, self.groups = tuple(texts), list(groups or [""] * len(texts))
        self.show()

    def encode(self) -> None:
        """The states of the texts, and the map of the full size."""
        self.states = self.states_of(self.texts)  # name -> (N+1, n, D)
        self.references = {name: maps.reference_map(states) for name, states in self.states.items()}

    def shown(self) -> tuple[str, ...]:
        """The texts."""
        return self.texts

    def maps(self) -> dict[str, maps.TextMap | None]:
        """Model name -> the map at the chosen cell; None where all texts have one vector."""
        found: dict[str, maps.TextMap | None] = {}
        for name, states in self.states.items():
            try:
                found[name] = maps.text_map(states, *self.cell, self.references[name])
            except ValueError:
                found[name] = None
        return found

    def html(self) -> str:
        """The picture of the chosen cell."""
        layer, dim = self.cell
        panels = []
        for name, found in self.maps().items():
            parts: tuple[str, ...]
            if found is None:
                parts = ("<div>All texts have the same vector at this cell: there is no map of them.</div>",)
            else:
                full = self.references[name]
                line = (
                    f"the two axes show {found.shown:.0%} of the variance (full size: {full.shown:.0%}); spread of the "
                    f"texts {found.spread:.2f} (full size: {full.spread:.2f})"
                )
                picture = point_map(found.points / found.spread, self.texts, self.groups)
                parts = (f'<div class="twodmse-shown">{line}</div>', picture)
            panels.append(drawing.panel(name, *parts))
        title = f"Map of {len(self.texts)} texts at layer {layer}, dim {dim}; each map is scaled to its own spread"
        return drawing.page(title, *panels, text_key(self.texts, self.groups))


def colours_of(groups: Sequence[str]) -> dict[str, str]:
    """Group -> its colour, in the order in which they come."""
    colours = drawing.TERM_COLOURS
    return {group: colours[i % len(colours)] for i, group in enumerate(dict.fromkeys(groups))}


def point_map(points: np.ndarray, texts: Sequence[str], groups: Sequence[str]) -> str:
    """Points on a square, each with its text's number; a pointer that rests on one reads the text.

    Args:
        points: (n, 2), of a root mean square distance of at most 1.
        texts: the n texts.
        groups: their n groups.
    """
    half, reach = 190, 2.0  # px; what lies further out is drawn at the edge
    colours = colours_of(groups)
    parts = [
        f'<rect width="{2 * half}" height="{2 * half}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
        f'<path d="M{half} 0v{2 * half}M0 {half}h{2 * half}" stroke="currentColor" stroke-opacity=".2"/>'
    ]
    at = half * (1 + np.clip(points, -reach, reach) * [1, -1] / reach * 0.96)  # (n, 2) px
    for i, (x, y) in enumerate(at):
        place = f'data-x="{points[i, 0]:.4f}" data-y="{points[i, 1]:.4f}"'
        parts.append(
            f'<g class="twodmse-point" {place}><title>{escape(texts[i])}</title>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colours[groups[i]]}"/>'
            f"{drawing.text(x + 7, y + 4, str(i + 1), 'start', font_size='11')}</g>"
        )
    return drawing.svg(2 * half, 2 * half, f"map of {len(texts)} texts", "".join(parts))


def text_key(texts: Sequence[str], groups: Sequence[str]) -> str:
    """The numbered texts, each with a dot of its group's colour."""
    colours = colours_of(groups)
    dot = "display:inline-block;width:9px;height:9px;border-radius:50%"
    items = "".join(
        f'<div style="break-inside:avoid"><span style="{dot};background:{colours[group]}" title="{escape(group)}">'
        f"</span> {i}. {escape(text)}</div>"
        for i, (text, group) in enumerate(zip(texts, groups, strict=True), start=1)
    )
    return f'<div style="flex:1 1 100%;columns:22em;font-size:13px;overflow-wrap:anywhere">{items}</div>'
