"""One look for each recipe and each loss term in every picture, told apart by colour-blind readers and in grey print.

The colours are those of Okabe and Ito (2008) and three more, with a marker and a line style of its own for each model.
"""

import math
import re
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes

BLUE, SKY, GREEN, ORANGE, RED, PINK, BLACK = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000",
)  # fmt: skip
GREY, INDIGO, BROWN = "#999999", "#332288", "#661100"  # the latter two of Paul Tol's muted colours
LOOKS = {  # model -> colour, marker, line style
    "untouched": (BLACK, "o", ":"),
    "full": (ORANGE, "s", "--"),
    "mrl": (SKY, "D", "-."),
    "2dmse": (BLUE, "^", "-"),
    "grid": (RED, "v", "-"),
    "st2d": (PINK, "P", "--"),
    "independent": (GREEN, "X", "-."),
    "2dmse, no alignment": (GREY, "*", "--"),
    "2dmse-weighted": (INDIGO, "o", "-."),
    "ese": (BROWN, "s", ":"),
    "starbucks": (GREY, "D", ":"),
}
OTHERS = list(LOOKS.values())[1:]  # of a label that names no known model, by its place
SAME = {"before": "untouched", "before training": "untouched", "no alignment": "2dmse, no alignment"}
TERMS = {  # loss term -> colour, line style
    "last_full": (BLUE, "-"),
    "last_cut": (SKY, "--"),
    "shallow_full": (RED, "-"),
    "shallow_cut": (ORANGE, "--"),
    "alignment": (GREEN, "-."),
}
LABEL = 0.055  # least distance of two labels at lines, as a share of the axis


def model_style(label: str, place: int = 0) -> dict[str, str]:
    """Colour, marker and line style of the model that a label names; of a label that names none, those of its place.

    Args:
        label: such as ``2dmse``, ``2dmse (3 seeds)``, ``2dmse, AnglE``,
            ``before training`` or ``after 45 steps of 2dmse``.
        place: the label's number in its picture.
    """
    name = re.sub(r" \(.*\)$|, d = \d+$|, AnglE$|^after .* of |^here: ", "", label)
    colour, marker, line = LOOKS.get(SAME.get(name, name), OTHERS[place % len(OTHERS)])
    return {"color": colour, "marker": marker, "linestyle": line}


def term_style(name: str, names: Sequence[str]) -> dict[str, str]:
    """Colour and line style of a loss term: its own, or a shade of its family by the number in its name.

    Args:
        name: such as ``last_full``, ``last_64`` or ``align_3``.
        names: all terms of the picture, in order; the widest ``last_d`` is the cell (N, D) and looks as ``last_full``.
    """
    if name in TERMS:
        colour, line = TERMS[name]
        return {"color": colour, "linestyle": line}
    family = [other for other in names if other.rsplit("_", 1)[0] == name.rsplit("_", 1)[0]]
    place = family.index(name)
    if name.startswith("last_") and place == len(family) - 1:
        return {"color": BLUE, "linestyle": "-"}
    shade = matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](0.95 * (place + 0.5) / len(family)))
    return {"color": shade, "linestyle": ("--", "-.", ":")[place % 3]}


def label_lines(ax: Axes) -> None:
    """Write each line's label beside its right end, in its colour, apart from the others; they stand for a legend.

    Lines that meet at their ends, such as the distances of layers to the last, get a legend beside the axes.
    """
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    ends = {line: float(line.get_ydata()[-1]) for line in lines}
    low, high = ax.get_ylim()
    if len(lines) > 1 and max(ends.values()) - min(ends.values()) < LABEL / 2 * (high - low):
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        return
    below, places = -math.inf, {}
    for line in sorted(lines, key=ends.get):
        below = places[line] = max(ends[line], below + LABEL * (high - low))
    over = max(0.0, below - high)
    for line, place in places.items():
        style = {"color": line.get_color(), "fontsize": 8, "va": "center", "transform": ax.get_yaxis_transform()}
        ax.text(1.02, place - over, line.get_label(), **style)
