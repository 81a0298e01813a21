"""What the probes share: checks of their input, and cosines between all texts at nested dims."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from twodmse.checked import is_whole
from twodmse.encoder.loading import listed
from twodmse.evaluation.grid import default_dims

ROWS = 512  # texts compared with all others at a time: memory grows with the number of texts, not with its square
STILL = 1e-12  # share of the squared length below which a layer's spread over texts is rounding


def check_states(states: np.ndarray, texts: int = 2) -> None:
    """Refuse an array that is not the states of some texts.

    Raises:
        ValueError: if it is not (N+1, n, D) with at least one layer and ``texts`` texts, or holds NaN or infinity.
    """
    if not isinstance(states, np.ndarray):
        raise ValueError(f"states are a {type(states).__name__}: give a NumPy array (N+1, n, D), as Encoder.states")
    if states.ndim != 3:
        raise ValueError(f"states have shape {np.shape(states)}: they must be an array (N+1, n, D), as Encoder.states")
    if states.shape[0] < 2 or states.shape[1] < texts:
        had = f"{states.shape[0] - 1} layers and {states.shape[1]} texts"
        raise ValueError(f"the states are of {had}: at least one layer and {texts} texts are needed")
    if not np.isfinite(states).all():
        raise ValueError("states hold NaN or infinite values: the model that made them is broken")


def check_dims(states: np.ndarray, dims: Sequence[int] | None) -> list[int]:
    """The wanted dims, ascending, with None read as the doubling ones and D.

    Raises:
        ValueError: for a dim outside 1..D, or none.
    """
    most = states.shape[2]
    wanted = default_dims(most) if dims is None else sorted(set(listed("dim", dims)))
    if not wanted:
        raise ValueError("no dims given: give at least one")
    for dim in wanted:
        if not is_whole(dim, 1, most):
            raise ValueError(f"dim {dim!r} is out of range: these states have dims 1..{most}")
    return [int(dim) for dim in wanted]


def check_pairs(
    states: np.ndarray, left: Sequence[int], right: Sequence[int], gold: Sequence[float] | None = None
) -> None:
    """Refuse pairs that do not fit the states.

    Raises:
        ValueError: for sides (or scores) of unequal number, fewer than two pairs, a row outside 0..n-1, or a score
            that is no finite number.
    """
    sizes = [len(left), len(right)] + ([] if gold is None else [len(gold)])
    if len(set(sizes)) > 1 or sizes[0] < 2:
        raise ValueError(
            f"the pairs have {' and '.join(map(str, sizes))} entries: equal numbers of at least 2 are needed"
        )
    if gold is not None and not np.isfinite(scores := np.asarray(gold, dtype=float)).all():
        raise ValueError(f"pair {np.flatnonzero(~np.isfinite(scores))[0]} has no score: it must be a finite number")
    rows = np.concatenate([left, right])
    if rows.min() < 0 or rows.max() >= states.shape[1]:
        wrong = rows.min() if rows.min() < 0 else rows.max()
        raise ValueError(f"a pair names text {wrong}: these states have texts 0..{states.shape[1] - 1}")


def centred(vectors: np.ndarray) -> np.ndarray | None:
    """Vectors (n, D) less their mean, in float64; None if every text has the same vector, rounding aside."""
    vectors = vectors.astype(np.float64)
    moved = vectors - vectors.mean(axis=0)  # (n, D)
    return moved if np.square(moved).sum() > STILL * np.square(vectors).sum() else None


def row_blocks(texts: int) -> list[slice]:
    """The rows 0..texts-1 in blocks of `ROWS`."""
    return [slice(start, min(start + ROWS, texts)) for start in range(0, texts, ROWS)]


def ordered_cosines(vectors: np.ndarray, dims: Sequence[int], rows: slice) -> Iterator[np.ndarray]:
    """Cosines of some texts with all texts at each nested dim, by running sums of block products.

    Args:
        vectors: (n, D) raw vectors of one layer.
        dims: ascending.
        rows: the b texts to compare with all.

    Yields:
        (b, n) float64 a dim, NaN where a vector is zero.
    """
    vectors = vectors.astype(np.float64)
    squares = np.cumsum(np.square(vectors), axis=1)  # (n, D)
    products = np.zeros((rows.stop - rows.start, len(vectors)))  # (b, n)
    for start, stop in pairwise([0, *dims]):
        products += vectors[rows, start:stop] @ vectors[:, start:stop].T
        lengths = np.sqrt(squares[:, stop - 1])  # (n,)
        lengths[lengths == 0] = np.nan
        yield products / lengths[rows, None] / lengths
