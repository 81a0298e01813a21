"""Numbers to light HTML and SVG: no picture is rendered, so that a slider's move is on the screen at once.

Text and lines take the colour of the page (``currentColor``), so that light and dark themes both read well; the few
fixed colours are of viridis and of Okabe and Ito's palette, which colour-blind readers can tell apart.
"""

from functools import cache
from html import escape

import matplotlib
import numpy as np
import pandas as pd

from twodmse.widgets.cells import log_edges, marked_dims

SHADES = 64
RANKING_COLUMNS = ("place", "change", "cosine", "sentence")  # of a ranking
UP, DOWN, ACCENT = "#0072B2", "#D55E00", "#E69F00"
TERM_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#999999")
HEAD = "text-align:left;font-weight:400;opacity:.75;padding:2px 6px"  # of a table
ROW, LEFT, TOP = 28, 46, 30  # px of the heatmap: height of a layer, margins
OCTAVE, MARK = 44, 34  # px: width of a doubling of dim, and of the mark of the chosen cell


@cache
def palette() -> tuple[list[str], list[str]]:
    """The shades of the heatmaps, dark to light, and the text colour that reads best on each."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, SHADES))[:, :3]  # (S, 3)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)  # sRGB, undone
    dark = linear @ np.array([0.2126, 0.7152, 0.0722]) < 0.179  # WCAG's luminance: below, white has more contrast
    return [matplotlib.colors.to_hex(c) for c in colours], ["#fff" if d else "#000" for d in dark]


def shade(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The number of the shade of each value on a scale from ``low`` to ``high``; any shape in, the same out."""
    share = (np.asarray(values) - low) / max(high - low, 1e-9)
    return np.clip((share * (SHADES - 1)).round(), 0, SHADES - 1).astype(int)


def cosine_share(cosines: np.ndarray) -> np.ndarray:
    """The place of each cosine on the colour scale, 0..1: a quarter of it for -1..0, the rest for 0..1."""
    cosines = np.asarray(cosines)
    return np.where(cosines < 0, 0.25 + 0.25 * cosines, 0.25 + 0.75 * cosines)


def cosine_shade(cosines: np.ndarray) -> np.ndarray:
    """The number of the shade of each cosine: it rises from -1 to 1, so that -1 and 0 look unlike."""
    return shade(cosine_share(cosines), 0, 1)


def page(title: str, *panels: str) -> str:
    """Panels side by side where there is room, else below each other, under one line of text."""
    head = f'<div style="margin:4px 0 6px">{title}</div>'
    return (
        '<div class="twodmse" style="color:var(--jp-ui-font-color1,currentColor);line-height:1.35;white-space:normal">'
        f'{head}<div style="display:flex;flex-wrap:wrap;gap:8px 28px">{"".join(panels)}</div></div>'
    )


def panel(name: str, *parts: str) -> str:
    """One model's part of a page."""
    style = "flex:1 1 380px;min-width:0;max-width:560px"
    return f'<div class="twodmse-panel" style="{style}"><b>{escape(name)}</b>{"".join(parts)}</div>'


def svg(width: float, height: float, label: str, body: str) -> str:
    """A drawing as wide as its panel, with a text for readers who do not see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" fill="currentColor" '
        f'style="display:block;width:100%;max-width:{width:g}px;height:auto;overflow:visible" '
        f'font-family="var(--jp-ui-font-family,sans-serif)" font-size="12">{body}</svg>'
    )


def text(x: float, y: float, words: str, anchor: str = "middle", **attributes: str) -> str:
    """A text of a drawing; attributes are SVG's, with _ for -."""
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def number(before: str, value: str, after: str) -> str:
    """A line with one number in large type, the words before and after it small."""
    big = f'<span class="twodmse-number" style="font-size:26px;font-weight:600">{value}</span>'
    return f"<div>{before}{big}&ensp;{after}</div>"


def gauge(value: float, full: float) -> str:
    """A cosine on a scale from -1 to 1, as a bar from 0, with a mark at the cosine of the full size."""
    width, left = 380, LEFT
    x, zero, end = (left + width * (v + 1) / 2 for v in (value, 0, full))
    colour = palette()[0][cosine_shade(value)]
    ticks = "".join(text(left + width * (v + 1) / 2, 40, f"{v:g}", font_size="11") for v in (-1, -0.5, 0, 0.5, 1))
    body = (
        f'<rect x="{left}" y="10" width="{width}" height="16" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
        f'<rect x="{min(x, zero):.1f}" y="10" width="{abs(x - zero):.1f}" height="16" fill="{colour}"/>'
        f'<path d="M{x:.1f} 6V30" stroke="currentColor" stroke-width="3"/>'
        f'<path d="M{end:.1f} 9l-5 -8h10z" fill="{ACCENT}"/>{ticks}'
    )
    return svg(left + width + 60, 44, f"gauge: cosine {value:.3f}, at full size {full:.3f}", body)


def heat_base(cosines: np.ndarray) -> str:
    """What no slider moves of a heatmap of every cell: colours, numbers at some dims, axes.

    Args:
        cosines: (N+1, D); layer 0 is not drawn. The scale runs from -1 to 1.
    """
    layers, dim = len(cosines) - 1, cosines.shape[1]
    colours, inks = palette()
    edges = LEFT + OCTAVE * log_edges(dim)  # (D+1,)
    strokes: dict[int, list[str]] = {}  # shade -> its runs; one path a shade keeps the drawing light
    parts = []
    for layer in range(1, layers + 1):
        y = row_middle(layers, layer)
        shades = cosine_shade(cosines[layer])  # (D,)
        starts = np.flatnonzero(np.diff(shades, prepend=-1))  # where a run of one shade begins
        for a, b in zip(starts, [*starts[1:], dim], strict=True):
            strokes.setdefault(shades[a], []).append(f"M{edges[a]:.1f} {y:g}H{edges[b]:.1f}")
        parts.append(text(LEFT - 8, y + 4, str(layer), "end"))
    runs = "".join(f'<path d="{"".join(found)}" stroke="{colours[k]}"/>' for k, found in strokes.items())
    parts.insert(0, f'<g stroke-width="{ROW}" shape-rendering="crispEdges">{runs}</g>')
    bottom = TOP + ROW * layers
    for d in marked_dims(dim):
        x, anchor = (edges[-1] - 3, "end") if d == dim else ((edges[d - 1] + edges[d]) / 2, "middle")
        for layer in range(1, layers + 1):
            ink = inks[cosine_shade(cosines[layer, d - 1])]
            y = row_middle(layers, layer) + 4
            parts.append(text(x, y, f"{cosines[layer, d - 1]:.2f}", anchor, fill=ink, font_size="11"))
        parts.append(text(x, bottom + 16, str(d), anchor))
    middle = (edges[0] + edges[-1]) / 2
    parts.append(text(middle, bottom + 34, "dim (coordinates kept, log scale)"))
    parts.append(vertical("layer (layers run)", 12, TOP + ROW * layers / 2))
    return "".join(parts) + scale(edges[0], bottom + 46, "−1", "1", "cosine", zero=0.25)


def heat(cosines: np.ndarray, layer: int, dim: int, base: str) -> str:
    """The heatmap of every cell with one cell marked, and that dim's cosine at each layer in numbers on the right.

    Args:
        cosines: (N+1, D).
        layer: the marked cell.
        dim: the marked cell.
        base: `heat_base` of the same cosines.
    """
    layers = len(cosines) - 1
    edges = LEFT + OCTAVE * log_edges(cosines.shape[1])
    middle, y, right = (edges[dim - 1] + edges[dim]) / 2, row_middle(layers, layer), edges[-1]
    value = cosines[layer, dim - 1]
    k = cosine_shade(value)
    box = f'x="{middle - MARK / 2:.1f}" y="{y - ROW / 2 + 1}" width="{MARK}" height="{ROW - 2}"'
    near = "start" if middle < LEFT + 24 else "end" if middle > right - 24 else "middle"
    parts = [
        base,
        f'<g class="twodmse-mark" data-layer="{layer}" data-dim="{dim}" data-cosine="{value:.3f}">'
        f'<rect {box} fill="{palette()[0][k]}" stroke="#000" stroke-width="4"/>'
        f'<rect {box} fill="none" stroke="#fff" stroke-width="2"/>'
        f"{text(middle, y + 4, f'{value:.2f}', fill=palette()[1][k], font_weight='700')}</g>",
        f'<path d="M{middle:.1f} {TOP - 1}l-5 -8h10z"/>',
        text(middle, TOP - 13, f"dim {dim}", near, font_weight="600"),
        text(right + 42, TOP + ROW * layers + 16, "cosine"),
    ]
    for n in range(1, layers + 1):
        weight = "700" if n == layer else "400"
        parts.append(text(right + 42, row_middle(layers, n) + 4, f"{cosines[n, dim - 1]:.3f}", font_weight=weight))
    label = f"heatmap of the cosine at every layer and dim; marked: layer {layer}, dim {dim}, cosine {value:.3f}"
    return svg(right + 64, TOP + ROW * layers + 70, label, "".join(parts))


def row_middle(layers: int, layer: int) -> float:
    """The height of a layer's row in a heatmap: layer N is on top."""
    return TOP + ROW * (layers - layer) + ROW / 2


def vertical(words: str, x: float, y: float) -> str:
    """A title of an upright axis."""
    return f'<g transform="translate({x:.1f} {y:.1f}) rotate(-90)">{text(0, 0, words)}</g>'


def scale(x: float, y: float, low: str, high: str, unit: str, zero: float | None = None) -> str:
    """A colour scale lying below a heatmap: its ends in words, its unit, and its zero at a share of its length."""
    colours = palette()[0][::4]
    boxes = [
        f'<rect x="{x + 30 + 8 * i:.1f}" y="{y}" width="8.5" height="10" fill="{colour}"/>'
        for i, colour in enumerate(colours)
    ]
    end = x + 34 + 8 * len(colours)
    at = "" if zero is None else text(x + 30 + 8 * len(colours) * zero, y + 21, "0", font_size="11")
    return "".join(boxes) + at + text(x + 26, y + 9, low, "end") + text(end, y + 9, f"{high}   {unit}", "start")


def ranking_table(table: pd.DataFrame) -> str:
    """A ranking, one row a sentence: place, how far it moved against the full size, cosine as bar and number.

    Args:
        table: as `cells.ranking`.
    """
    rows = []
    for place, change, cosine, sentence in zip(*(table[c].tolist() for c in RANKING_COLUMNS), strict=True):
        bar = signed_bar(cosine)
        rows.append(
            f'<tr class="twodmse-row" data-place="{place}" data-change="{change}" style="border-top:1px solid #8884">'
            f'<td style="text-align:right;padding:2px 6px">{place}</td>'
            f'<td style="padding:2px 6px;white-space:nowrap">{arrow(change)}</td>'
            f'<td style="padding:2px 0">{bar}</td>'
            f'<td style="text-align:right;padding:2px 6px;font-variant-numeric:tabular-nums">{cosine:.3f}</td>'
            f'<td class="twodmse-sentence" style="padding:2px 6px;overflow-wrap:anywhere">{escape(sentence)}</td></tr>'
        )
    heads = "".join(
        f'<th style="{HEAD}"{span}>{name}</th>'
        for name, span in (("place", ""), ("moved", ""), ("cosine", ' colspan="2"'), ("sentence", ""))
    )
    full_places = (table["place"] + table["change"]).tolist()
    moved = sum(change != 0 for change in table["change"].tolist())
    note = f"{moved} of {len(rows)} moved; the first at full size is at place {full_places.index(1) + 1} here"
    style = "border-collapse:collapse;width:100%;font-size:13px"
    return f'<div class="twodmse-moved">{note}</div><table style="{style}"><tr>{heads}</tr>{"".join(rows)}</table>'


def signed_bar(cosine: float) -> str:
    """A cosine as a bar from 0, to the left below it, on the colour scale's own axis: a quarter of it is below 0."""
    end, zero = float(cosine_share(cosine)), 0.25
    bar = f"background:{palette()[0][cosine_shade(cosine)]};height:10px;width:{60 * abs(end - zero):.0f}px"
    return (
        '<div style="width:60px;border:1px solid #8888;position:relative">'
        f'<div style="{bar};margin-left:{60 * min(end, zero):.0f}px"></div>'
        f'<div style="position:absolute;left:{60 * zero:.0f}px;top:0;bottom:0;border-left:1px solid #888"></div></div>'
    )


def arrow(change: int) -> str:
    """How many places a sentence moved: an arrow, a number and a colour, and words for a screen reader."""
    if change == 0:
        return '<span aria-label="same place" style="opacity:.6">–</span>'
    sign, colour, word = ("▲", UP, "up") if change > 0 else ("▼", DOWN, "down")
    tag = f"background:{colour};color:#fff;border-radius:3px;padding:0 5px"
    return f'<span aria-label="{word} {abs(change)}" style="{tag}">{sign} {abs(change)}</span>'


def gold_axis(gold: np.ndarray) -> tuple[float, float]:
    """Where an axis of gold scores (P,) begins, 0 unless some are below, and ends."""
    return min(float(np.floor(gold.min())), 0.0), max(float(np.ceil(gold.max())), 1.0)


def scatter(gold: np.ndarray, cosines: np.ndarray, label: str, name: str = "gold score") -> str:
    """Scores (P,) against cosines (P,), the upright axis fixed from -1 to 1 so that moves can be compared.

    Args:
        gold: the scores.
        cosines: those of the same pairs.
        label: a text for readers who do not see the drawing.
        name: what the scores are.
    """
    width, height, left, top = 400, 260, 46, 8
    least, most = gold_axis(gold)
    x, y = left + width * (gold - least) / (most - least), top + height * (1 - cosines) / 2
    places = np.rint([x, y]).astype(int).tolist()  # 2 lists of P px
    points = "".join(f"M{a} {b}h0" for a, b in zip(*places, strict=True))
    middle = top + height / 2
    body = (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="currentColor" '
        f'stroke-opacity=".5"/><path d="M{left} {middle}h{width}" stroke="currentColor" stroke-opacity=".4" '
        f'stroke-dasharray="4 4"/><path class="twodmse-points" d="{points}" stroke="{TERM_COLOURS[5]}" '
        'stroke-width="5" stroke-linecap="round" stroke-opacity=".75"/>'
    )
    ticks = [text(left + width * i / 5, top + height + 16, f"{v:g}") for i, v in enumerate(np.linspace(least, most, 6))]
    ticks += [text(left - 6, top + height * (1 - v) / 2 + 4, f"{v:g}", "end") for v in (-1, -0.5, 0, 0.5, 1)]
    titles = text(left + width / 2, top + height + 34, f"{name} ({least:g} to {most:g})")
    titles += vertical("cosine", 12, middle)
    return svg(left + width + 12, top + height + 40, label, body + "".join(ticks) + titles)
