"""Pictures of tables: data in, matplotlib Axes out. Nothing here shows, saves, or sets a global style."""

from twodmse.plots.compare import comparison, difference_heatmap
from twodmse.plots.costs import front, latency, speed_up
from twodmse.plots.grids import curves, heatmap, heatmaps, terms
from twodmse.plots.idea import idea
from twodmse.plots.probes import (
    cell_map,
    cka_matrix,
    conflict_map,
    control_curves,
    kl_curves,
    layer_curves,
    neighbours_map,
    shape_curves,
    side_by_side,
)
from twodmse.plots.recipes import trained_by_recipe, trained_cells
from twodmse.plots.study import difference_dots, heatmap_rows, tradeoff

__all__ = [
    "cell_map",
    "cka_matrix",
    "comparison",
    "conflict_map",
    "control_curves",
    "curves",
    "difference_dots",
    "difference_heatmap",
    "front",
    "heatmap",
    "heatmap_rows",
    "heatmaps",
    "idea",
    "kl_curves",
    "latency",
    "layer_curves",
    "neighbours_map",
    "shape_curves",
    "side_by_side",
    "speed_up",
    "terms",
    "tradeoff",
    "trained_by_recipe",
    "trained_cells",
]
