"""The widgets: sliders and text boxes around the pure functions of `cells` and `drawing`.

What is typed is encoded once a model; a slider's move only looks numbers up and writes a few kilobytes of SVG.
Only ipywidgets' own widgets are used, so that JupyterLab, Colab and others show them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import as_texts, cut_texts
from twodmse.probes.shares import unknown_texts
from twodmse.widgets import cells, drawing, static
from twodmse.widgets.controls import HALF, WIDE, log_slider, number_box, slider, text_box

SHOWN, NAMED = 60, 3  # characters of a text that is too long, and how many such texts are named


class CellView(ABC):
    """A layer slider and a dim slider over a picture that follows them.

    Args:
        models: name -> encoder, one or more of one shape, shown side by side; or one encoder.
        layer: the cell to start at; None means the largest.
        dim: the cell to start at; None means the largest.

    Raises:
        ValueError: if the models differ in shape, or the layer or dim is out of range.
    """

    def __init__(self, models: cells.Models, layer: int | None = None, dim: int | None = None) -> None:
        self.states_of = cells.StatesOf(models)
        layer, dim = self.first_model.check_cell(layer, dim)
        self.layer = slider("layer", layer, self.states_of.num_layers)
        self.dim = number_box("dim", dim, self.states_of.dim)
        self.dim_slider = log_slider("dim", self.dim)
        self.message = widgets.HTML()
        self.picture = widgets.HTML(layout=widgets.Layout(**WIDE))
        for control in (self.layer, self.dim):
            control.observe(self.redraw, names="value")

    @property
    def first_model(self) -> Encoder:
        """The first of the models: all have its shape."""
        return next(iter(self.states_of.models.values()))

    @property
    def cell(self) -> tuple[int, int]:
        """The chosen layer and dim."""
        return self.layer.value, self.dim.value

    @abstractmethod
    def html(self) -> str:
        """The picture of the chosen cell."""

    @abstractmethod
    def encode(self) -> None:
        """Encode what was typed."""

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
        self.message.value = self.warning()
        self.redraw()

    def warning(self) -> str:
        """The texts that a vocabulary knows nothing of, and those that are cut, in words; empty if there are none."""
        unknown: dict[str, list[str]] = {}
        for name, encoder in self.states_of.models.items():
            for text in dict.fromkeys(unknown_texts(encoder, self.shown())):
                unknown.setdefault(text, []).append(name)
        lines = [
            f"“{escape(text)}” holds no word that the vocabulary of {escape(' and '.join(names))} knows: its vector is "
            "that of [UNK], the same for every such text, and its cosines say nothing."
            for text, names in unknown.items()
        ]
        lines += cut_lines(self.states_of.models, self.shown())
        return "".join(f"<b>{line}</b><br>" for line in lines)

    def shown(self) -> tuple[str, ...]:
        """The texts that the picture is of."""
        return ()

    def show(self, *boxes: widgets.Widget) -> None:
        """Lay the widget out: text boxes, sliders, picture; then fill it."""
        for box in boxes:
            box.observe(self.retyped, names="value")
        self.encode()
        self.message.value = self.warning()
        self.redraw()
        self.box = widgets.VBox([*boxes, self.controls(), self.message, self.picture])
        self.box.add_class(f"twodmse-{type(self).__name__.lower()}")

    def controls(self) -> widgets.Widget:
        """The two sliders."""
        width = widgets.HBox([self.dim_slider, self.dim], layout=widgets.Layout(**HALF))
        return widgets.HBox([self.layer, width], layout=widgets.Layout(flex_flow="row wrap", **WIDE))

    def _ipython_display_(self) -> None:
        display(self.box)


def cut_lines(models: Mapping[str, Encoder], texts: Sequence[str]) -> list[str]:
    """The texts that are too long to be read whole, as HTML: a sentence for all that the same models cut alike.

    Args:
        models: name -> encoder.
        texts: any number of texts.
    """
    cut: dict[tuple[int, tuple[str, ...]], list[str]] = {}  # tokens read, the cut texts -> the models
    for name, encoder in models.items():
        if found := tuple(dict.fromkeys(cut_texts(encoder, texts))):
            cut.setdefault((encoder.max_length, found), []).append(name)
    lines = []
    for (length, found), names in cut.items():
        quoted = [f"“{escape(text[:SHOWN])} …”" for text in found[:NAMED]]
        more = [f"{len(found) - NAMED} more"] if len(found) > NAMED else []
        lines.append(
            f"{_listed([*quoted, *more])} {'is' if len(found) == 1 else 'are'} longer than the {length} tokens that "
            f"{escape(_listed(names))} {'reads' if len(names) == 1 else 'read'}: the rest has no part in the numbers."
        )
    return lines


def _listed(words: Sequence[str]) -> str:
    """Words with commas between, and "and" before the last."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def link_cells(first: CellView, *others: CellView) -> None:
    """Tie views to one cell: move or click in one, and all others follow.

    Args:
        first: the view whose cell the others take.
        others: views of models of the same shape.

    Raises:
        ValueError: if there are not two of them, or their models differ in shape.
    """
    if not others or not all(isinstance(view, CellView) for view in (first, *others)):
        raise ValueError("give two or more views, one after the other, not in a list")
    for other in others:
        shapes = [(view.states_of.num_layers, view.states_of.dim) for view in (first, other)]
        if shapes[0] != shapes[1]:
            told = " and ".join(f"{n} layers x {d} dims" for n, d in shapes)
            raise ValueError(f"the views are of models of unlike shape ({told}): they share no cell")
        widgets.link((first.layer, "value"), (other.layer, "value"))
        widgets.link((first.dim, "value"), (other.dim, "value"))


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
        self, models: cells.Models, first: str, second: str, layer: int | None = None, dim: int | None = None
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

    def shown(self) -> tuple[str, ...]:
        """The two sentences."""
        return self.texts

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
        ValueError: as `CellView`, and for no list of texts, or a text that is empty.
    """

    def __init__(
        self,
        models: cells.Models,
        query: str,
        sentences: Sequence[str],
        layer: int | None = None,
        dim: int | None = None,
    ) -> None:
        super().__init__(models, layer, dim)
        self.sentences = as_texts(sentences)
        self.query = text_box("query", query)
        self.show(self.query)

    def encode(self) -> None:
        """Cosines of the query with each sentence at every cell."""
        states = self.states_of([self.query.value, *self.sentences])  # name -> (N+1, 1+n, D)
        count = len(self.sentences)
        self.asked = self.query.value
        pairs = [0] * count, range(1, count + 1)
        self.cosines = {name: cells.all_cosines(s, *pairs) for name, s in states.items()}  # name -> (N+1, n, D)

    def shown(self) -> tuple[str, ...]:
        """The query and the sentences."""
        return self.asked, *self.sentences

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
