"""What cells cost: time, bytes, the best cell for a budget, and side-by-side timings."""

from twodmse.efficiency.costs import best_cell, cell_costs, dim_costs, layer_costs, pareto_front, quantised_grid

__all__ = ["best_cell", "cell_costs", "dim_costs", "layer_costs", "pareto_front", "quantised_grid"]
