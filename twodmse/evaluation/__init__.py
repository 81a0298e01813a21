"""Tables of scores: the layer x dim grid, comparisons, published numbers, quantised vectors, search over two cells."""

from typing import TYPE_CHECKING, Any

from twodmse.evaluation.cascade import Cascade, cascade_table
from twodmse.evaluation.compare import compare_models
from twodmse.evaluation.grid import pairs_grid, sts_grid
from twodmse.evaluation.published import minus_published, published_grid, published_names

if TYPE_CHECKING:
    from twodmse.evaluation.mteb_cells import mteb_grid

__all__ = [
    "Cascade",
    "cascade_table",
    "compare_models",
    "minus_published",
    "mteb_grid",
    "pairs_grid",
    "published_grid",
    "published_names",
    "sts_grid",
]


def __getattr__(name: str) -> Any:
    """``mteb_grid``, imported when it is asked for: the library mteb is an extra, and slow to import."""
    if name != "mteb_grid":
        raise AttributeError(f"module 'twodmse.evaluation' has no attribute {name!r}")
    from twodmse.evaluation.mteb_cells import mteb_grid

    return mteb_grid
