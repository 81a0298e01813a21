"""The idea drawn once: the stack of layers, the vector that each gives, and the slice that a cell takes."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

from twodmse.plots.palette import BLUE, GREY, ORANGE

WIDE, HIGH = 6.0, 0.62  # of a drawn vector
NOT_RUN = "0.93"


def idea(ax: Axes, layers: int = 6, dim: int = 384, cell: tuple[int, int] = (3, 64)) -> Axes:
    """N layers on top of each other, each with its vector of D coordinates; what a cell takes of them stands out.

    Args:
        ax: where to draw.
        layers: N.
        dim: D.
        cell: the layer n and the dim d that are marked; the width of the slice is d / D of the vector's.

    Raises:
        ValueError: if the encoder has no such cell.
    """
    n, d = cell
    if not (1 <= n <= layers and 1 <= d <= dim):
        raise ValueError(f"cell {cell} is not one of 1..{layers} layers and 1..{dim} coordinates")
    kept = WIDE * d / dim
    for layer in range(1, layers + 1):
        run = layer <= n
        box = {"edgecolor": "black" if run else GREY, "linewidth": 0.8}
        ax.add_patch(Rectangle((0, layer), 2.2, HIGH, facecolor="#CFE3F1" if run else NOT_RUN, **box))
        style = {"va": "center", "fontsize": 9, "color": "black" if run else GREY}
        ax.text(1.1, layer + HIGH / 2, f"layer {layer}", ha="center", **style)
        ax.add_patch(Rectangle((3, layer), WIDE, HIGH, facecolor="white" if run else NOT_RUN, **box))
        arrow = {"arrowstyle": "->", "mutation_scale": 8, "color": box["edgecolor"], "shrinkA": 0, "shrinkB": 0}
        ax.add_patch(FancyArrowPatch((2.25, layer + HIGH / 2), (2.95, layer + HIGH / 2), **arrow))
        ax.add_patch(FancyArrowPatch((1.1, layer + HIGH - 1), (1.1, layer), **arrow))  # from the layer below
    ax.add_patch(Rectangle((3, n), kept, HIGH, facecolor=BLUE, edgecolor="black"))
    ax.text(3.1 + kept, n + HIGH / 2, f"the cell ({n}, {d})", color=BLUE, va="center", fontsize=9)
    ax.text(3, 0.2, f"run {n} layers, keep {d} coordinates, normalise", fontsize=9, color=BLUE, va="center")
    ax.add_patch(Rectangle((3, layers), WIDE, HIGH, fill=False, edgecolor=ORANGE, linewidth=2))
    ax.text(3 + WIDE / 2, layers + HIGH / 2, f"({layers}, {dim}): all that is usually trained", color="black",
            ha="center", va="center", fontsize=9)  # fmt: skip
    ax.text(3, layers + 1, f"one vector a layer, coordinates 0 to {dim - 1}", fontsize=9, color="0.3")
    ax.text(1.1, 0.2, "a text goes in", ha="center", va="center", fontsize=9, color="0.3")
    ax.set(xlim=(-0.2, 3.3 + WIDE), ylim=(-0.2, layers + 1.5))
    ax.axis("off")
    return ax
