"""A run over its steps, with a slider and a play button: the grid at one step, and the loss terms up to there."""

from collections.abc import Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from twodmse.checked import is_finite
from twodmse.files import atomic_file
from twodmse.plots.palette import term_style
from twodmse.widgets import cells, drawing, static
from twodmse.widgets.controls import HALF, LABEL, WIDE
from twodmse.widgets.drawing import ROW, palette, scale, shade, svg, text, vertical

LEFT, TOP, CELL = 46, 10, 52  # px: margins, width of a cell
WIDTH, HEIGHT = 400, 200  # px of the plot of the loss terms


class Replay:
    """The grid and the loss terms over training time.

    Args:
        grids: as `replay.replay_grid`.
        history: as `Run.history`.
        smooth: logged rows a loss term is averaged over.

    Raises:
        ValueError: for tables that lack what is drawn.
    """

    def __init__(self, grids: pd.DataFrame, history: pd.DataFrame, smooth: int = 5) -> None:
        self.grids, self.terms, self.smooth = cells.steps_of(grids), cells.smoothed_terms(history, smooth), smooth
        values = np.concatenate([grid.to_numpy().ravel() for grid in self.grids.values()])
        self.low, self.high = float(values.min()), float(values.max())
        self.base = terms_base(self.terms)
        self.step = widgets.SelectionSlider(
            options=list(self.grids), value=max(self.grids), description="step", style=LABEL,
            layout=widgets.Layout(**HALF),
        )  # fmt: skip
        self.step.add_class("twodmse-step-slider")
        play = widgets.Play(min=0, max=len(self.grids) - 1, value=len(self.grids) - 1, interval=800)
        widgets.jslink((play, "value"), (self.step, "index"))
        self.picture = widgets.HTML(layout=widgets.Layout(**WIDE))
        self.step.observe(self.redraw, names="value")
        self.redraw()
        controls = widgets.HBox([self.step, play], layout=widgets.Layout(flex_flow="row wrap", **WIDE))
        self.box = widgets.VBox([controls, self.picture])
        self.box.add_class("twodmse-replay")

    def redraw(self, _: Any = None) -> None:
        """Draw the chosen step."""
        self.picture.value = self.html()

    def html(self) -> str:
        """The picture of the chosen step."""
        step = self.step.value
        chosen, first = self.grids[step], min(self.grids)
        mean, start = float(chosen.to_numpy().mean()), float(self.grids[first].to_numpy().mean())
        note = drawing.number("mean over cells ", f"{mean:.1f}", f"({mean - start:+.1f} since step {first})")
        grid = drawing.panel("Grid: Spearman × 100", note, grid_at(chosen, self.low, self.high, step))
        name = f"Loss terms (mean over up to {self.smooth} logged steps)"
        return drawing.page(f"Step {step}", grid, drawing.panel(name, terms_at(self.terms, step, self.base)))

    def static(self) -> Figure:
        """First, middle and last step as a figure, and the loss terms."""
        return static.replay_figure(self.grids, self.terms, self.low, self.high)

    def save(self, path: str | Path, seconds: float = 0.8, overwrite: bool = False) -> None:
        """Save the grid over the steps as a GIF that plays by itself, for slides and pages without a kernel.

        Args:
            path: of the GIF.
            seconds: that a step stays on the screen.
            overwrite: replace a file of that name.

        Raises:
            FileExistsError: if there is one and ``overwrite`` is false.
            ValueError: for a name that does not end in .gif, or no time above 0.
        """
        if Path(path).suffix.lower() != ".gif":
            raise ValueError(f"the film is a GIF: give a name that ends in .gif, not {str(path)!r}")
        if not is_finite(seconds) or seconds <= 0:
            raise ValueError(f"seconds is {seconds!r}: a step must stay for a time above 0")
        with atomic_file(path, overwrite) as work:
            figure, ax = static.replay_frame(self.low, self.high)
            draw = partial(static.draw_step, ax, self.grids, self.low, self.high)
            film = FuncAnimation(figure, draw, frames=list(self.grids), init_func=lambda: None)
            film.save(work, writer=PillowWriter(fps=1 / seconds))

    def _ipython_display_(self) -> None:
        display(self.box)


def grid_at(cells: pd.DataFrame, low: float, high: float, step: int) -> str:
    """One step's grid: Spearman x 100 as numbers on colours, layer N on top.

    Args:
        cells: layers down (index), dims across (columns).
        low: lower end of the scale, the same for all steps.
        high: its upper end.
        step: that is shown.
    """
    colours, inks = palette()
    values = cells.sort_index(ascending=False).to_numpy()  # (N, K)
    shades = shade(values, low, high)
    parts = []
    for i, layer in enumerate(sorted(cells.index, reverse=True)):
        y = TOP + ROW * i
        parts.append(text(LEFT - 8, y + ROW / 2 + 4, str(layer), "end"))
        for j, value in enumerate(values[i]):
            x, k = LEFT + CELL * j, shades[i, j]
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL}" height="{ROW}" fill="{colours[k]}"/>')
            parts.append(text(x + CELL / 2, y + ROW / 2 + 4, f"{value:.1f}", fill=inks[k]))
    right, bottom = LEFT + CELL * values.shape[1], TOP + ROW * len(values)
    parts += [text(LEFT + CELL * (j + 0.5), bottom + 16, str(d)) for j, d in enumerate(cells.columns)]
    parts.append(text((LEFT + right) / 2, bottom + 34, "dim (coordinates kept)"))
    parts.append(vertical("layer (layers run)", 12, (TOP + bottom) / 2))
    parts.append(scale(LEFT, bottom + 46, f"{low:.0f}", f"{high:.0f}", "Spearman × 100"))
    label = f"grid of Spearman times 100 at step {step}: mean {values.mean():.1f}"
    body = f'<g class="twodmse-grid" data-step="{step}">{"".join(parts)}</g>'
    return svg(right + 12, bottom + 62, label, body)


def terms_base(terms: pd.DataFrame) -> str:
    """What no slider moves of the plot of the loss terms: lines and axes.

    Args:
        terms: as `cells.smoothed_terms`.
    """
    most, last = nice_top(terms.to_numpy().max()), terms.index.max()
    x = LEFT + WIDTH * terms.index.to_numpy() / last  # (S,)
    parts = [
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="currentColor" '
        'stroke-opacity=".5"/>'
    ]
    for name, colour in colours_of(terms).items():
        y = TOP + HEIGHT * (1 - terms[name].to_numpy() / most)  # (S,)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for share in (0, 0.5, 1):
        parts.append(text(LEFT - 6, TOP + HEIGHT * (1 - share) + 4, f"{most * share:g}", "end"))
        parts.append(text(LEFT + WIDTH * share, TOP + HEIGHT + 16, f"{last * share:g}"))
    parts.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 34, "step"))
    parts.append(vertical("loss term", 12, TOP + HEIGHT / 2))
    return "".join(parts)


def terms_at(terms: pd.DataFrame, step: int, base: str) -> str:
    """The loss terms with a line at one step, and their values there.

    Args:
        terms: as `cells.smoothed_terms`.
        step: 0 stands before the first row.
        base: `terms_base` of the same terms.
    """
    x = LEFT + WIDTH * step / terms.index.max()
    mark = (
        f'<path class="twodmse-step" data-step="{step}" d="M{x:.1f} {TOP}v{HEIGHT}" stroke="currentColor" '
        'stroke-width="2"/>'
    )
    picture = svg(LEFT + WIDTH + 12, TOP + HEIGHT + 44, f"loss terms up to step {step}", base + mark)
    past = terms[terms.index <= step]
    values = past.iloc[-1] if len(past) else pd.Series(np.nan, terms.columns)
    items = []
    for name, colour in colours_of(terms).items():
        line = f"background:{colour};display:inline-block;width:14px;height:4px;vertical-align:middle"
        value = "–" if np.isnan(values[name]) else f"{values[name]:.3f}"
        items.append(
            f'<span style="white-space:nowrap"><span style="{line}"></span> {escape(name.replace("_", " "))} '
            f'<b class="twodmse-term" data-term="{escape(name)}">{value}</b></span>'
        )
    return f'{picture}<div style="display:flex;flex-wrap:wrap;gap:2px 16px">{"".join(items)}</div>'


def colours_of(terms: pd.DataFrame) -> Mapping[str, str]:
    """Term -> its colour."""
    return {name: term_style(name, list(terms))["color"] for name in terms}


def nice_top(value: float) -> float:
    """The smallest of 1, 2, 3, 4, 6, 8 times a power of ten that is not below ``value``."""
    if not np.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(m * power for m in (1, 2, 3, 4, 6, 8, 10) if m * power >= value))
