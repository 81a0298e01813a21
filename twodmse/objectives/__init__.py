"""Which cells a step trains, and what that costs: losses, recipes, and the objective that computes any plan.

Recipes know nothing of tensors: their names are at hand without loading torch.
"""

from typing import TYPE_CHECKING, Any

from twodmse.objectives.plan import TEACHER, Alignment, Cell, Draw, Plan, RecipeSpec
from twodmse.objectives.recipes import RECIPES, Recipe, register_recipe

if TYPE_CHECKING:
    from twodmse.objectives.objective import BaseLoss

__all__ = [
    "RECIPES",
    "TEACHER",
    "Alignment",
    "BaseLoss",
    "Cell",
    "Draw",
    "Plan",
    "Recipe",
    "RecipeSpec",
    "register_recipe",
]


def __getattr__(name: str) -> Any:
    if name != "BaseLoss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from twodmse.objectives.objective import BaseLoss

    return BaseLoss
