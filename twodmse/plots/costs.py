"""Pictures of what cells cost: the Pareto front, time over layers, speed against quality."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from twodmse.plots.grids import GRID_COLOURS, need, score_name

MARKERS = {"float32": "o", "int8": "s", "binary": "^"}
COSTS = {"ms": "milliseconds for one text", "bytes": "bytes of a vector"}
# Where a name may stand, as directions from its point: above a front there is nothing but other names.
DIRECTIONS = [(-1, 1), (0, 1), (1, 1), (-1, 0), (1, -1), (1, 0), (0, -1), (-1, -1)]
DISTANCES = (5, 14, 24, 36, 50)  # points


def front(cells: pd.DataFrame, best: pd.DataFrame, ax: Axes, cost: str = "bytes") -> Axes:
    """Every cell as a grey dot, and those that no other beats as a named front, coloured by layer: Spearman over cost.

    Args:
        cells: as `twodmse.efficiency.costs.cell_costs`.
        best: its `pareto_front`.
        ax: where to draw.
        cost: ``bytes`` or ``ms``, the column the front was taken over.

    Returns:
        ``ax``. Names are (layer, dim) and the precision; one that finds no room beside the others is left out.

    Raises:
        ValueError: if a column is missing, there are no rows, or ``cost`` is neither.
    """
    if cost not in COSTS:
        raise ValueError(f"cost is {cost!r}: choose one of {', '.join(COSTS)}")
    for table in (cells, best):
        need(table, ("layer", "dim", "precision", cost, "spearman"))
    best = best.sort_values(cost)
    ax.scatter(cells[cost], cells["spearman"], s=8, color="0.75", label="other cells", zorder=1)
    ax.step(best[cost], best["spearman"], where="post", color="0.4", linewidth=1, zorder=2)
    depth = cells["layer"].max()
    for precision, marker in MARKERS.items():
        part = best[best["precision"] == precision]
        if len(part):
            style = {"c": part["layer"], "cmap": GRID_COLOURS, "vmin": 1, "vmax": depth, "edgecolors": "black"}
            ax.scatter(part[cost], part["spearman"], s=36, marker=marker, label=precision, zorder=3, **style)
    ax.set(xlabel=COSTS[cost], ylabel=score_name(cells), title=f"Best cells by {COSTS[cost]}")
    if cost == "bytes":
        ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.margins(x=0.12, y=0.12)
    legend = ax.legend(fontsize=8, loc="lower right")
    for handle in legend.legend_handles:
        handle.set_array(None)
        handle.set_facecolor("0.75")  # here the shape speaks, the colours are layers
    names = [f"({row.layer}, {row.dim}) {row.precision}" for row in best.itertuples()]
    _name_points(ax, best[cost].to_numpy(), best["spearman"].to_numpy(), names, [legend.get_window_extent])
    return ax


def latency(costs: pd.DataFrame, ax: Axes) -> Axes:
    """Milliseconds of encoding one text at each layer, with their spread, beside n / N of the last layer's.

    Args:
        costs: as `twodmse.efficiency.costs.layer_costs`.
        ax: where to draw.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    need(costs, ("layer", "one_text_ms", "one_text_spread"))
    costs = costs.sort_values("layer")
    layers, times, spread = (costs[c].to_numpy() for c in ("layer", "one_text_ms", "one_text_spread"))
    ax.fill_between(layers, times - spread, times + spread, alpha=0.25, label="half the interquartile range")
    ax.plot(layers, times, marker="o", label="median")
    ax.plot(layers, times[-1] * layers / layers[-1], color="0.4", linestyle=":", label="n/N of the last layer's")
    ax.set(xlabel="layer (layers run)", ylabel="milliseconds for one text", title="Time of one text by depth")
    ax.set_xticks(layers)
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return ax


def speed_up(cells: pd.DataFrame, ax: Axes, dims: Sequence[int] | None = None) -> Axes:
    """Spearman over how many times faster than layer N a layer is, one line a dim, layers named along the top.

    Args:
        cells: as `twodmse.efficiency.costs.cell_costs`; its float32 rows are drawn.
        ax: where to draw.
        dims: the dims drawn; None draws all.

    Raises:
        ValueError: if a column is missing or there are no rows.
    """
    need(cells, ("layer", "dim", "precision", "speed_up", "spearman"))
    kept = cells[cells["precision"].eq("float32") & (True if dims is None else cells["dim"].isin(dims))]
    need(kept, ())
    widths = sorted(kept["dim"].unique(), reverse=True)
    for i, dim in enumerate(widths):
        line = kept[kept["dim"] == dim].sort_values("speed_up")
        colour = colormaps[GRID_COLOURS](1 - (i + 0.5) / len(widths))
        ax.plot(line["speed_up"], line["spearman"], marker="osD^vP*X"[i % 8], color=colour, label=str(dim))
    ax.set(
        xscale="log", xlabel="times faster than the last layer", ylabel=score_name(kept), title="Speed against quality"
    )
    places = kept.drop_duplicates("layer").set_index("layer")["speed_up"].sort_values()
    low, high = places.min(), places.max()
    ax.xaxis.set_major_locator(FixedLocator([t for t in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20) if low <= t <= high]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    top = ax.secondary_xaxis("top")
    ticks = _spaced(places, 0.04)
    top.set_xticks([places[n] for n in ticks], [str(n) for n in ticks])
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("layer (layers run)")
    ax.grid(alpha=0.3)
    ax.legend(title="dim", fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def _spaced(places: pd.Series, least: float) -> list[int]:
    """The layers whose places on a log axis are at least the part ``least`` of its length apart."""
    whole = math.log(places.max() / places.min()) or 1.0
    kept: list[int] = []
    for layer, place in places.items():
        if not kept or math.log(place / places[kept[-1]]) >= least * whole:
            kept.append(layer)
    return kept


def _name_points(ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], taken: Sequence) -> None:
    """Write each point's name at the nearest place where it covers no point, no name and nothing in ``taken``."""
    ax.figure.draw_without_rendering()  # sizes are known once the layout is
    dots = [Bbox.from_bounds(px - 4, py - 4, 8, 8) for px, py in ax.transData.transform(np.column_stack([x, y]))]
    used = [*dots, *(extent() for extent in taken)]
    inside = ax.get_window_extent()
    for place, name in zip(zip(x, y, strict=True), names, strict=True):
        for distance, (right, up) in [(r, way) for r in DISTANCES for way in DIRECTIONS]:
            label = _label(ax, place, name, (right * distance, up * distance))
            box = label.get_window_extent()
            within = inside.contains(*box.min) and inside.contains(*box.max)
            if within and not box.count_overlaps(used):
                used.append(box)
                break
            label.remove()


def _label(ax: Axes, place: tuple[float, float], name: str, offset: tuple[float, float]) -> Annotation:
    sides = {-1: ("right", "top"), 0: ("center", "center"), 1: ("left", "bottom")}
    horizontal, vertical = sides[int(np.sign(offset[0]))][0], sides[int(np.sign(offset[1]))][1]
    arrow = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6} if max(map(abs, offset)) > DISTANCES[0] else None
    style = {"ha": horizontal, "va": vertical, "fontsize": 7, "arrowprops": arrow}
    return ax.annotate(name, place, offset, textcoords="offset points", **style)
