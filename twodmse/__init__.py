"""2D Matryoshka sentence embeddings: encoders that can be cut in depth and in width."""

from twodmse.config import TrainConfig
from twodmse.data import load_pairs, load_texts
from twodmse.encoder import Encoder
from twodmse.evaluation import sts_grid
from twodmse.recipes import RECIPES, Recipe
from twodmse.training import Run, train
from twodmse.version import __version__

__all__ = [
    "RECIPES",
    "Encoder",
    "Recipe",
    "Run",
    "TrainConfig",
    "__version__",
    "load_pairs",
    "load_texts",
    "sts_grid",
    "train",
]
