"""Pictures of probes: how far layers are from the last, what cells keep, how terms pull."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from twodmse.plots.grids import GRID_COLOURS, SIGNED_COLOURS, draw_cells, need, numbers
from twodmse.plots.palette import BLUE, GREEN, GREY, SKY, label_lines, model_style

LINES = ["-", "--", "-.", ":"]
CONTROLS = [BLUE, SKY, GREY, GREEN]  # first, last, random, PCA
SHAPES = {  # columns of `anisotropy` and `alignment_uniformity`, with their axis
    "mean_cosine": "mean cosine of two texts",
    "effective_rank": "effective rank (directions)",
    "largest_share": "share of the largest coordinate",
    "alignment": "alignment (lower: paraphrases closer)",
    "uniformity": "uniformity (lower: more even)",
}


def layer_curves(
    tables: Mapping[str, pd.DataFrame],
    ax: Axes,
    column: str,
    label: str = "",
    dim: int | None = None,
    bottom: float | None = None,
    labels: bool = True,
) -> Axes:
    """One column of a probe over the layers, one line a model.

    Args:
        tables: label -> rows with layer, dim and the column, one a cell.
        ax: where to draw.
        column: what to draw.
        label: of the vertical axis.
        dim: the cut width; None means each table's largest.
        bottom: where the vertical axis starts; None leaves it to the data.
        labels: whether each line has its label at its end.

    Raises:
        ValueError: if a column is missing, or a table has no rows of that dim.
    """
    for place, (name, table) in enumerate(tables.items()):
        need(table, ("layer", "dim", column))
        width = table["dim"].max() if dim is None else dim
        kept = table[table["dim"] == width].sort_values("layer")
        need(kept, ())
        ax.plot(kept["layer"], kept[column], label=name, markersize=5, **model_style(name, place))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=f"layer (0: embeddings), d = {width}", ylabel=label or column)
    ax.set_ylim(bottom=bottom)
    ax.grid(alpha=0.3)
    if labels:
        label_lines(ax)
    return ax


def kl_curves(tables: Mapping[str, pd.DataFrame], ax: Axes, dim: int | None = None) -> Axes:
    """KL of each layer to the last, one line a model: before and after training on one axis, from 0 up.

    Args:
        tables: label -> `probes.kl_to_last` (raw or normalised, not both).
        ax: where to draw.
        dim: as `layer_curves`.
    """
    layer_curves(tables, ax, "kl", "KL(last || layer) in nats", dim, bottom=0)
    ax.set_title("KL of each layer to the last")
    return ax


def shape_curves(tables: Mapping[str, pd.DataFrame], ax: Axes, column: str, dim: int | None = None) -> Axes:
    """A column of `probes.anisotropy` or `probes.alignment_uniformity` over the layers, one line a model.

    Args:
        tables: label -> table.
        ax: where to draw.
        column: one of `SHAPES`.
        dim: as `layer_curves`.

    Raises:
        ValueError: for another column.
    """
    if column not in SHAPES:
        raise ValueError(f"column is {column!r}: choose one of {', '.join(SHAPES)}")
    layer_curves(tables, ax, column, SHAPES[column], dim)
    ax.set_title(column.replace("_", " "))
    return ax


def cka_matrix(table: pd.DataFrame, ax: Axes, title: str = "Linear CKA between layers") -> Axes:
    """CKA of all pairs of layers, 0..1, layer N on top. ``table`` as `probes.cka`."""
    need(table, ("layer_a", "layer_b", "cka"))
    cells = table.pivot(index="layer_a", columns="layer_b", values="cka").sort_index(ascending=False)
    draw_cells(cells, ax, numbers(cells, ".2f"), cbar=True, vmin=0, vmax=1, cmap=GRID_COLOURS)
    ax.set(title=title, xlabel="layer", ylabel="layer")
    return ax


def cell_map(table: pd.DataFrame, ax: Axes, column: str, title: str = "", worst: float = 0, best: float = 100) -> Axes:
    """A share (0..1) of every cell, such as ``kept`` or ``flipped``, in percent, layer N on top; bright is good.

    Args:
        table: rows with layer, dim and the column.
        ax: where to draw.
        column: the share.
        title: of the axes.
        worst: the percentage that is drawn darkest, such as 50 where that is chance.
        best: the percentage that is drawn brightest, such as 0 for a share of mistakes.
    """
    need(table, ("layer", "dim", column))
    cells = 100 * table.pivot(index="layer", columns="dim", values=column).sort_index(ascending=False)
    colours = GRID_COLOURS if best > worst else f"{GRID_COLOURS}_r"
    scale = {"vmin": min(worst, best), "vmax": max(worst, best), "cmap": colours}
    draw_cells(cells, ax, numbers(cells, ".0f"), cbar=True, **scale)
    ax.set(title=title, xlabel="dim (coordinates kept)", ylabel="layer (layers run)")
    return ax


def neighbours_map(table: pd.DataFrame, ax: Axes, title: str = "Nearest neighbours kept, %") -> Axes:
    """Share of the nearest neighbours of (N, D) that each cell keeps. ``table`` as `probes.neighbours_kept`."""
    return cell_map(table, ax, "kept", title)


def control_curves(table: pd.DataFrame, ax: Axes, layer: int | None = None, title: str = "") -> Axes:
    """Spearman over the dims of one layer: the first d coordinates beside the last d, random ones and PCA.

    Args:
        table: as `probes.controls`.
        ax: where to draw.
        layer: None means the last.
        title: of the axes.

    Raises:
        ValueError: if the table has no such layer.
    """
    need(table, ("control", "layer", "dim", "spearman"))
    layer = table["layer"].max() if layer is None else layer
    kept = table[table["layer"] == layer]
    need(kept, ())
    dims = sorted(kept["dim"].unique())
    for i, (control, rows) in enumerate(kept.groupby("control", sort=False)):
        scores = rows.set_index("dim")["spearman"].reindex(dims)
        style = {"marker": "osD^"[i % 4], "linestyle": LINES[i % 4], "color": CONTROLS[i % 4]}
        ax.plot(np.arange(len(dims)), scores.to_numpy(), label="PCA" if control == "pca" else control, **style)
    every = -(-len(dims) // 12)  # at most a dozen labels
    ax.set_xticks(np.arange(len(dims))[::every], [str(dim) for dim in dims][::every])
    ax.set(
        xlabel="dim (coordinates kept)", ylabel="Spearman x 100", title=title or f"Which d coordinates, layer {layer}"
    )
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return ax


def conflict_map(table: pd.DataFrame, ax: Axes, title: str = "Cosine of the terms' gradients") -> Axes:
    """Gradient cosine of each two terms (rows) in each layer (columns); blank where a term does not reach the layer.

    Args:
        table: as `probes.gradient_conflict`.
        ax: where to draw.
        title: of the axes.
    """
    need(table, ("layer", "term_a", "term_b", "cosine"))
    names = (table["term_a"] + " / " + table["term_b"]).str.replace("_", " ")
    cells = table.assign(terms=names).pivot(index="terms", columns="layer", values="cosine")
    draw_cells(cells, ax, numbers(cells, ".2f"), cbar=True, vmin=-1, vmax=1, cmap=SIGNED_COLOURS)
    ax.set(title=title, xlabel="layer (0: embeddings)", ylabel="")
    return ax


def side_by_side(
    tables: Mapping[str, pd.DataFrame], draw: Callable[..., Axes], title: str = "", size: Sequence[float] = (4.6, 3.6)
) -> list[Axes]:
    """The same picture of several models, one Axes each, under the models' names.

    Args:
        tables: label -> table.
        draw: `cka_matrix`, `neighbours_map`, `control_curves` or `conflict_map`.
        title: above all of them.
        size: inches of one. Curves share their vertical axis.

    Returns:
        The Axes; their figure is ``axes[0].figure``.
    """
    figure, axes = plt.subplots(
        1,
        len(tables),
        figsize=(size[0] * len(tables), size[1]),
        squeeze=False,
        sharey=draw is control_curves,
        layout="constrained",
    )
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        draw(table, ax, title=name)
    figure.suptitle(title)
    return list(axes[0])
