"""Models of unlike shape side by side, at the same share of their depth and of their width."""

from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython.display import display

from twodmse.data.sets import TextSet
from twodmse.widgets import cells, drawing
from twodmse.widgets.controls import HALF, LABEL, STEP, WIDE, text_box
from twodmse.widgets.scored import Scatter
from twodmse.widgets.views import TwoSentences


class SideBySide:
    """Two sentences, and scored pairs if there are any, under models of any shapes: one relative depth and width.

    Args:
        models: name -> encoder, of any numbers of layers and dims.
        first: one sentence to start with.
        second: the other sentence to start with.
        pairs: scored pairs, whose Spearman is shown too.
        depth: share of the layers that run, above 0 to 1; each model takes its nearest layer.
        width: share of the dims that are kept, above 0 to 1; each model takes its nearest dim.

    Raises:
        ValueError: if there is no model, a share is not above 0 and at most 1, or the pairs have no scores.
    """

    def __init__(
        self,
        models: cells.Models,
        first: str,
        second: str,
        pairs: TextSet | None = None,
        depth: float = 1.0,
        width: float = 1.0,
    ) -> None:
        models = cells.named(models)
        if not models:
            raise ValueError("there must be at least one model: give name -> encoder")
        for word, share in (("depth", depth), ("width", width)):
            if not 0 < share <= 1:
                raise ValueError(f"{word} is {share!r}: it is a share, above 0 and at most 1")
        self.views = {name: TwoSentences({name: encoder}, first, second) for name, encoder in models.items()}
        self.scores = {} if pairs is None else {name: Scatter({name: e}, pairs) for name, e in models.items()}
        layers = max(encoder.num_layers for encoder in models.values())
        octaves = float(np.log2(max(encoder.dim for encoder in models.values())))
        layout = {"style": LABEL, "layout": widgets.Layout(**HALF)}
        self.depth = widgets.FloatSlider(
            value=depth, min=1 / layers, max=1, step=1 / layers, description="depth", readout_format=".0%", **layout
        )
        self.width = widgets.FloatLogSlider(
            value=width, base=2, min=-octaves, max=0, step=STEP, description="width", readout_format=".1%", **layout
        )
        self.first, self.second = text_box("sentence 1", first), text_box("sentence 2", second)
        self.message = widgets.HTML(self.warnings())
        self.picture = widgets.HTML(layout=widgets.Layout(**WIDE))
        for control in (self.depth, self.width):
            control.observe(self.redraw, names="value")
        for box in (self.first, self.second):
            box.observe(self.retyped, names="value")
        sliders = widgets.HBox([self.depth, self.width], layout=widgets.Layout(flex_flow="row wrap", **WIDE))
        self.box = widgets.VBox([self.first, self.second, sliders, self.message, self.picture])
        self.box.add_class("twodmse-sidebyside")
        self.redraw()

    @property
    def cells(self) -> dict[str, tuple[int, int]]:
        """Model name -> its cell nearest to the chosen shares."""
        shapes = {name: (view.states_of.num_layers, view.states_of.dim) for name, view in self.views.items()}
        return {
            name: (max(1, round(self.depth.value * n)), max(1, round(self.width.value * d)))
            for name, (n, d) in shapes.items()
        }

    def retyped(self, _: Any = None) -> None:
        """Hand what was typed to every model's view, which encodes it, and draw."""
        for view in self.views.values():
            view.first.value, view.second.value = self.first.value, self.second.value
        self.message.value = self.warnings()
        self.redraw()

    def warnings(self) -> str:
        """What the views of the models say of the texts, each once."""
        return "".join(dict.fromkeys(view.message.value for view in self.views.values()))

    def redraw(self, _: Any = None) -> None:
        """Draw every model at its cell; no model is called."""
        self.picture.value = self.html()

    def html(self) -> str:
        """The picture of the chosen shares."""
        panels = []
        for name, (layer, dim) in self.cells.items():
            view = self.views[name]
            cosines = view.cosines[name]  # (N+1, D)
            value, full = float(cosines[layer, dim - 1]), float(cosines[-1, -1])
            shape = f"layer {layer} of {len(cosines) - 1}, dim {dim} of {cosines.shape[1]}"
            parts = [drawing.number("", f"{value:.3f}", f"cosine at {shape} &ensp;(full size: {full:.3f})")]
            parts.append(drawing.gauge(value, full))
            parts.append(drawing.heat(cosines, layer, dim, view.bases[name]))
            if name in self.scores:
                scatter = self.scores[name]
                points = scatter.points(layer, dim)[name]
                score = cells.spearman(points, scatter.pairs.gold)
                words = f"({escape(scatter.pairs.name)}; full size: {scatter.full[name]:.2f})"
                parts.append(drawing.number("Spearman × 100: ", f"{score:.2f}", words))
            panels.append(drawing.panel(name, *parts))
        return drawing.page(f"{self.depth.value:.0%} of the layers, {self.width.value:.1%} of the dims", *panels)

    def _ipython_display_(self) -> None:
        display(self.box)
