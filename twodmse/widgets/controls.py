"""The controls of the widgets: sliders, text boxes, and a heatmap whose cells are buttons."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import pandas as pd

from twodmse.widgets.drawing import palette, shade

WIDE = {"width": "98%", "max_width": "1130px"}
HALF = {"width": "460px", "max_width": "98%"}
LABEL = {"description_width": "90px"}
PLAIN, FRAMED = ("28px", "0"), ("34px", "-3px 0")  # height and margin of a button; the frame stands around the number
STEP = 1 / 8  # of a doubling: one press of an arrow key on a logarithmic slider


def slider(name: str, value: int, most: int) -> widgets.IntSlider:
    """A slider over 1..most that answers while it moves; its class is ``twodmse-NAME``."""
    made = widgets.IntSlider(value=value, min=1, max=most, description=name, style=LABEL, layout=widgets.Layout(**HALF))
    made.add_class(f"twodmse-{name.replace(' ', '-')}")
    return made


def number_box(name: str, value: int, most: int) -> widgets.BoundedIntText:
    """A whole number 1..most, typed or stepped by one with the arrow keys; its class is ``twodmse-NAME-box``."""
    layout = widgets.Layout(width="70px")
    made = widgets.BoundedIntText(value=value, min=1, max=most, step=1, layout=layout)
    made.add_class(f"twodmse-{name.replace(' ', '-')}-box")
    return made


def log_slider(name: str, box: widgets.BoundedIntText) -> widgets.FloatLogSlider:
    """A slider with equal way for each doubling, tied to a box that holds the exact whole number.

    Where a press of an arrow key is less than a whole number wide, it goes to the next one: each press moves.

    Args:
        name: what it is called; its class is ``twodmse-NAME``.
        box: of `number_box`.
    """
    made = widgets.FloatLogSlider(
        value=box.value, base=2, min=0, max=math.log2(max(box.max, 2)), step=STEP, description=name, readout=False,
        style=LABEL, layout=widgets.Layout(width="380px", max_width="75%"),
    )  # fmt: skip
    made.add_class(f"twodmse-{name.replace(' ', '-')}")

    def nearest(dim: int) -> float:
        return 2 ** (round(math.log2(dim) / STEP) * STEP)

    snapped = {"to": nearest(box.value)}  # where the browser puts a handle that is set from here, and says so: no move

    def moved(change: Mapping[str, Any]) -> None:
        new, here = change["new"], box.value
        if math.isclose(new, here, rel_tol=1e-6) or math.isclose(new, snapped.pop("to", 0), rel_tol=1e-6):
            return
        wanted = min(max(round(new), 1), box.max)
        if wanted == here:
            wanted = min(max(here + (1 if new > here else -1), 1), box.max)
        box.value = wanted

    def typed(change: Mapping[str, Any]) -> None:
        if round(made.value) != change["new"]:
            made.value = change["new"]
            snapped["to"] = nearest(change["new"])

    made.observe(moved, names="value")
    box.observe(typed, names="value")
    return made


def text_box(name: str, value: str) -> widgets.Text:
    """A line of text that is read when Enter is pressed or the box is left; raises a ValueError for what is none."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}: give a text")
    made = widgets.Text(
        value=value, description=name, continuous_update=False, style=LABEL, layout=widgets.Layout(**WIDE)
    )
    made.add_class(f"twodmse-{name.replace(' ', '-')}")
    return made


class ButtonGrid:
    """A heatmap whose cells are buttons: layers down, the deepest on top, dims across, a number on each.

    Args:
        cells: layers (index) x dims (columns); a NaN is shown as a dash.
        low: the value of the darkest colour.
        high: the value of the brightest.
        chosen: called with layer and dim when a button is clicked.
    """

    def __init__(self, cells: pd.DataFrame, low: float, high: float, chosen: Callable[[int, int], None]) -> None:
        colours, inks = palette()
        self.buttons: dict[tuple[int, int], widgets.Button] = {}
        self.marked: widgets.Button | None = None
        children: list[widgets.Widget] = []
        for layer in sorted(cells.index, reverse=True):
            children.append(_label(f"layer {layer}"))
            for dim in cells.columns:
                value = float(cells.loc[layer, dim])
                if math.isnan(value):
                    shown, told, style = "–", "no score, as all cosines are the same", {}
                else:
                    k = int(shade(value, low, high))
                    shown, told = f"{value:.1f}", f"{value:.2f}"
                    style = {"button_color": colours[k], "text_color": inks[k]}
                button = widgets.Button(
                    description=shown, tooltip=f"layer {layer}, dim {dim}: {told}",
                    layout=widgets.Layout(width="auto", height=PLAIN[0], margin=PLAIN[1], padding="0", min_width="0"),
                    style={"font_size": "12px", **style},
                )  # fmt: skip
                button.add_class("twodmse-cell")
                button.on_click(lambda _, cell=(int(layer), int(dim)): chosen(*cell))
                self.buttons[int(layer), int(dim)] = button
                children.append(button)
        children += [_label("dim"), *(_label(str(dim), "center") for dim in cells.columns)]
        columns = f"52px repeat({cells.shape[1]}, minmax(30px, 54px))"
        layout = widgets.Layout(grid_template_columns=columns, grid_gap="2px", width="100%", max_width="560px")
        layout.padding = "3px 0 0"  # room for the frame of a button in the top row: what stands out of the box is cut
        self.box = widgets.GridBox(children, layout=layout)
        self.box.add_class("twodmse-buttons")

    def mark(self, layer: int, dim: int) -> None:
        """Frame the button of a cell; none if the heatmap does not show it."""
        wanted = self.buttons.get((layer, dim))
        if self.marked is wanted:
            return
        if self.marked is not None:
            self.marked.layout.border, self.marked.layout.height, self.marked.layout.margin = "none", *PLAIN
            self.marked.remove_class("twodmse-chosen")
        if wanted is not None:
            wanted.layout.border = "3px solid var(--jp-ui-font-color1, currentColor)"
            wanted.layout.height, wanted.layout.margin = FRAMED
            wanted.add_class("twodmse-chosen")
        self.marked = wanted


def _label(words: str, align: str = "right") -> widgets.HTML:
    """A row's or column's name."""
    return widgets.HTML(f'<div style="text-align:{align};font-size:12px">{words}</div>')
