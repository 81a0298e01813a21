"""2D Matryoshka sentence embeddings: encoders that can be cut in depth and in width."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from twodmse.version import __version__

if TYPE_CHECKING:
    from twodmse.averaging import average
    from twodmse.config import TrainConfig
    from twodmse.data import load_pairs, load_texts
    from twodmse.encoder import Encoder
    from twodmse.evaluation import sts_grid
    from twodmse.objectives import RECIPES, Alignment, Cell, Draw, Plan, Recipe, register_recipe
    from twodmse.training import Run, train

HOMES = {
    "RECIPES": "objectives",
    "Alignment": "objectives",
    "Cell": "objectives",
    "Draw": "objectives",
    "Encoder": "encoder",
    "Plan": "objectives",
    "Recipe": "objectives",
    "Run": "training",
    "TrainConfig": "config",
    "average": "averaging",
    "load_pairs": "data",
    "load_texts": "data",
    "register_recipe": "objectives",
    "sts_grid": "evaluation",
    "train": "training",
}
__all__ = [
    "RECIPES",
    "Alignment",
    "Cell",
    "Draw",
    "Encoder",
    "Plan",
    "Recipe",
    "Run",
    "TrainConfig",
    "__version__",
    "average",
    "load_pairs",
    "load_texts",
    "register_recipe",
    "sts_grid",
    "train",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for (PEP 562): ``twodmse --help`` needs no torch."""
    if name not in HOMES:
        raise AttributeError(f"module 'twodmse' has no attribute {name!r}")
    return getattr(import_module(f"twodmse.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
