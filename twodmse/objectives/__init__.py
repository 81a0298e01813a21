"""Which cells a step trains, and what that costs: losses, recipes, and the objective that computes any plan."""

from twodmse.objectives.objective import BaseLoss
from twodmse.objectives.recipes import RECIPES, TEACHER, Alignment, Cell, Draw, Plan, Recipe

__all__ = ["RECIPES", "TEACHER", "Alignment", "BaseLoss", "Cell", "Draw", "Plan", "Recipe"]
