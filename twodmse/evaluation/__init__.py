"""Tables of scores: the layer x dim grid, comparisons, published numbers, quantised vectors, search over two cells."""

from twodmse.evaluation.cascade import Cascade, cascade_table
from twodmse.evaluation.compare import compare_models
from twodmse.evaluation.grid import pairs_grid, sts_grid
from twodmse.evaluation.published import minus_published, published_grid, published_names

__all__ = [
    "Cascade",
    "cascade_table",
    "compare_models",
    "minus_published",
    "pairs_grid",
    "published_grid",
    "published_names",
    "sts_grid",
]
