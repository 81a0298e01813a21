"""Training a recipe: batches, steps, checkpoints, runs, and the grid over training time."""

from twodmse.training.replay import replay_grid
from twodmse.training.runs import Run, train, train_encoder
from twodmse.training.trainer import CellTrainer, NotFiniteError

__all__ = ["CellTrainer", "NotFiniteError", "Run", "replay_grid", "train", "train_encoder"]
