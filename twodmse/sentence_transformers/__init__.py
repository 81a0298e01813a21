"""The recipes as a loss, and the grid as an evaluator, for the trainer of the library sentence-transformers."""

import importlib.util

if importlib.util.find_spec("sentence_transformers") is None:
    raise ImportError(
        "twodmse.sentence_transformers needs the library it works with: pip install 'twodmse[sentence-transformers]'"
    )

from twodmse.sentence_transformers.evaluator import GridEvaluator
from twodmse.sentence_transformers.loss import CellsLoss
from twodmse.training.batches import noised_copies

__all__ = ["CellsLoss", "GridEvaluator", "noised_copies"]
