"""The widgets: sliders and text boxes around the pure functions of `cells` and `drawing`.

What is typed is encoded once a model; a slider's move only looks numbers up and writes a few kilobytes of SVG.
Only ipywidgets' own widgets are used, so that JupyterLab, Colab and others show them.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from twodmse.data.sets import TextSet
from twodmse.encoder.encoder import Encoder
from twodmse.widgets import cells, drawing, static, timeline

WIDE = {"width": "98%", "max_width": "1130px"}
HALF = {"width": "460px", "max_width": "98%"}
LABEL = {"description_width": "90px"}


class CellView:
    """A layer slider and a dim slider over a picture that follows them.

    Args:
        models: name -> encoder, one or more of one shape; shown side by side.
        layer: the cell to start at; None means the largest.
        dim: the cell to start at; None means the largest.

    Raises:
        ValueError: if the models differ in shape, or the layer or dim is out of range.
    """

    def __init__(self, models: Mapping[str, Encoder], layer: int | None = None, dim: int | None = None) -> None:
        self.states_of = cells.StatesOf(models)
        layer, dim = next(iter(models.values())).check_cell(layer, dim)
        self.layer = slider("layer", layer, self.states_of.num_layers)
        self.dim = slider("dim", dim, self.states_of.dim)
        self.message = widgets.HTML()
        self.picture = widgets.HTML(layout=widgets.Layout(**WIDE))
        for control in (self.layer, self.dim):
            control.observe(self.redraw, names="value")

    @property
    def cell(self) -> tuple[int, int]:
        """The chosen layer and dim."""
        return self.layer.value, self.dim.value

    def redraw(self, _: Any = None) -> None:
        """Draw the chosen cell; no model is called."""
        self.picture.value = self.html()

    def retyped(self, _: Any = None) -> None:
        """Encode what was typed and draw it; a text that cannot be encoded leaves the picture as it was."""
        try:
            self.encode()
        except ValueError:
            self.message.value = "<b>Type at least one word in every box: the picture is of the texts before.</b>"
            return
        self.message.value = ""
        self.redraw()

    def show(self, *boxes: widgets.Widget) -> None:
        """Lay the widget out: text boxes, sliders, picture; then fill it."""
        for box in boxes:
            box.observe(self.retyped, names="value")
        self.encode()
        self.redraw()
        sliders = widgets.HBox([self.layer, self.dim], layout=widgets.Layout(flex_flow="row wrap", **WIDE))
        self.box = widgets.VBox([*boxes, sliders, self.message, self.picture])
        self.box.add_class(f"twodmse-{type(self).__name__.lower()}")

    def _ipython_display_(self) -> None:
        display(self.box)


class TwoSentences(CellView):
    """How similar are two sentences at each cell? Number, gauge, and the whole grid with the chosen cell marked.

    Args:
        models: as `CellView`.
        layer: as `CellView`.
        dim: as `CellView`.
        first: the sentences to start with.
        second: the sentences to start with.

    Raises:
        ValueError: as `CellView`, and for a sentence without text.
    """

    def __init__(
        self, models: Mapping[str, Encoder], first: str, second: str, layer: int | None = None, dim: int | None = None
    ) -> None:
        super().__init__(models, layer, dim)
        self.first, self.second = text_box("sentence 1", first), text_box("sentence 2", second)
        self.show(self.first, self.second)

    def encode(self) -> None:
        """Cosines of the two sentences at every cell, from the states of each model."""
        states = self.states_of([self.first.value, self.second.value])  # name -> (N+1, 2, D)
        self.texts = self.first.value, self.second.value
        self.cosines = {name: cells.all_cosines(s, [0], [1])[:, 0] for name, s in states.items()}  # name -> (N+1, D)
        self.bases = {name: drawing.heat_base(c) for name, c in self.cosines.items()}

    def html(self) -> str:
        """The picture of the chosen cell."""
        layer, dim = self.cell
        panels = []
        for name, cosines in self.cosines.items():
            value, full = float(cosines[layer, dim - 1]), float(cosines[-1, -1])
            heat = drawing.heat(cosines, layer, dim, self.bases[name])
            words = f"cosine at layer {layer}, dim {dim} &ensp;(full size: {full:.3f})"
            line = drawing.number("", f"{value:.3f}", words)
            panels.append(drawing.panel(name, line, drawing.gauge(value, full), heat))
        hint = f'<span style="color:{drawing.ACCENT}">▼</span> on the gauge: the cosine at full size'
        return drawing.page(f"Cosine of the two sentences at every cell ({hint})", *panels)

    def static(self) -> Figure:
        """The picture of the chosen cell as a figure, with the same numbers."""
        return static.pair_figure(self.cosines, *self.cell, *self.texts)


class Ranking(CellView):
    """Which sentences are nearest to a query at each cell, and what moved against the full size?

    Args:
        models: as `CellView`.
        layer: as `CellView`.
        dim: as `CellView`.
        query: to start with.
        sentences: n texts to rank.

    Raises:
        ValueError: as `CellView`, and for a text that is empty.
    """

    def __init__(
        self,
        models: Mapping[str, Encoder],
        query: str,
        sentences: Sequence[str],
        layer: int | None = None,
        dim: int | None = None,
    ) -> None:
        super().__init__(models, layer, dim)
        self.sentences = list(sentences)
        self.query = text_box("query", query)
        self.show(self.query)

    def encode(self) -> None:
        """Cosines of the query with each sentence at every cell."""
        states = self.states_of([self.query.value, *self.sentences])  # name -> (N+1, 1+n, D)
        count = len(self.sentences)
        self.asked = self.query.value
        pairs = [0] * count, range(1, count + 1)
        self.cosines = {name: cells.all_cosines(s, *pairs) for name, s in states.items()}  # name -> (N+1, n, D)

    def rankings(self) -> dict[str, pd.DataFrame]:
        """Model name -> its ranking at the chosen cell, as `cells.ranking`."""
        return {name: cells.ranking(cosines, self.sentences, *self.cell) for name, cosines in self.cosines.items()}

    def html(self) -> str:
        """The picture of the chosen cell."""
        layer, dim = self.cell
        panels = [drawing.panel(name, drawing.ranking_table(t)) for name, t in self.rankings().items()]
        return drawing.page(f"Ranking at layer {layer}, dim {dim}; moved: places against the full size", *panels)

    def static(self) -> Figure:
        """The picture of the chosen cell as a figure, with the same numbers."""
        return static.ranking_figure(self.rankings(), *self.cell, self.asked)


class Scatter(CellView):
    """Gold scores against cosines at the chosen cell, with their Spearman.

    Args:
        models: as `CellView`.
        layer: as `CellView`.
        dim: as `CellView`.
        pairs: scored pairs, as `load_pairs` gives them.

    Raises:
        ValueError: as `CellView`, and if the pairs have no scores.
    """

    def __init__(
        self, models: Mapping[str, Encoder], pairs: TextSet, layer: int | None = None, dim: int | None = None
    ) -> None:
        if pairs.gold is None:
            raise ValueError(f"{pairs.name} has no scores: a scatter needs scored pairs, for example mini-sts")
        super().__init__(models, layer, dim)
        self.pairs = pairs
        self.show()

    def encode(self) -> None:
        """The states of all texts of the pairs."""
        first, second = self.pairs.columns
        distinct = list(dict.fromkeys(first + second))
        place = {text: i for i, text in enumerate(distinct)}
        self.rows = [place[t] for t in first], [place[t] for t in second]
        self.states = self.states_of(distinct)  # name -> (N+1, n, D)
        self.full = self.scores(self.states_of.num_layers, self.states_of.dim)

    def points(self, layer: int, dim: int) -> dict[str, np.ndarray]:
        """Model name -> the (P,) cosines of the pairs at a cell."""
        return {name: cells.cosines_at(states, *self.rows, layer, dim) for name, states in self.states.items()}

    def scores(self, layer: int, dim: int) -> dict[str, float]:
        """Model name -> Spearman x 100 at a cell."""
        return {name: cells.spearman(points, self.pairs.gold) for name, points in self.points(layer, dim).items()}

    def html(self) -> str:
        """The picture of the chosen cell."""
        layer, dim = self.cell
        panels = []
        for name, points in self.points(layer, dim).items():
            score = cells.spearman(points, self.pairs.gold)
            note = drawing.number("Spearman × 100: ", f"{score:.2f}", f"(full size: {self.full[name]:.2f})")
            label = f"scatter of gold score against cosine, Spearman times 100 is {score:.2f}"
            panels.append(drawing.panel(name, note, drawing.scatter(self.pairs.gold, points, label)))
        title = f"{escape(self.pairs.name)}: {len(self.pairs)} pairs at layer {layer}, dim {dim}"
        return drawing.page(title, *panels)

    def static(self) -> Figure:
        """The picture of the chosen cell as a figure, with the same numbers."""
        return static.scatter_figure(self.points(*self.cell), self.pairs, *self.cell)


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
        self.base = timeline.terms_base(self.terms)
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
        grid = drawing.panel("Grid: Spearman × 100", note, timeline.grid_at(chosen, self.low, self.high, step))
        name = f"Loss terms (mean over up to {self.smooth} logged steps)"
        return drawing.page(f"Step {step}", grid, drawing.panel(name, timeline.terms_at(self.terms, step, self.base)))

    def static(self) -> Figure:
        """First, middle and last step as a figure, and the loss terms."""
        return static.replay_figure(self.grids, self.terms, self.low, self.high)

    def _ipython_display_(self) -> None:
        display(self.box)


def slider(name: str, value: int, most: int) -> widgets.IntSlider:
    """A slider over 1..most that answers while it moves; its class is ``twodmse-NAME``."""
    made = widgets.IntSlider(value=value, min=1, max=most, description=name, style=LABEL, layout=widgets.Layout(**HALF))
    made.add_class(f"twodmse-{name}")
    return made


def text_box(name: str, value: str) -> widgets.Text:
    """A line of text that is read when Enter is pressed or the box is left."""
    made = widgets.Text(
        value=value, description=name, continuous_update=False, style=LABEL, layout=widgets.Layout(**WIDE)
    )
    made.add_class(f"twodmse-{name.replace(' ', '-')}")
    return made
