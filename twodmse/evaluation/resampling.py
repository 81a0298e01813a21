"""The bootstrap over the pairs of a set: resamples that every cell and model share, and what a score is in each."""

import warnings
import zlib
from collections.abc import Iterator

import numpy as np

from twodmse.checked import is_whole
from twodmse.data.sets import NAMES, TextSet

RESAMPLES, MOST_RESAMPLES, FEWEST = 1000, 100_000, 5  # of fewer pairs any order may be chance at the 5% level (2 / 4!)
RANKED_ANEW = 500  # below so many pairs each resample is ranked anew
BLOCK = 4_000_000  # numbers of one array where resamples are ranked anew
ROUNDING = 1e-7  # a variance of ranks, as shares of their number, that float32 cannot tell from 0


def resamples_of(pairs: TextSet, resamples: int) -> np.ndarray:
    """How often each of P pairs occurs in each of R resamples, as `resample_counts` gives them: (R, P) float32.

    Every cell of every model sees the same resamples of a set. They go by the name of a set that `load_texts` names,
    and by the rows of any other, wherever its file lies and whatever it is called.
    """
    return resample_counts(len(pairs), resamples, pairs.name if pairs.name in NAMES else pairs.sha256())


def resample_counts(pairs: int, resamples: int, name: str) -> np.ndarray:
    """How often each pair occurs in each resample: (R, P) float32.

    The draws depend on the task's name and size alone, so that every cell of every model sees the same resamples: the
    comparisons of two cells, or of two models, are paired. Fewer than `FEWEST` pairs are not resampled: NaN.

    Raises:
        ValueError: for fewer resamples than 0, or more than `MOST_RESAMPLES`.
    """
    if not is_whole(resamples, 0, MOST_RESAMPLES):
        raise ValueError(f"resamples is {resamples!r}: it must be a whole number, 0 to {MOST_RESAMPLES}")
    if pairs < FEWEST:
        return np.full((resamples, pairs), np.nan, np.float32)  # and so is all that is worked out from them
    rng = np.random.default_rng((zlib.crc32(name.encode()), pairs))
    counts = np.empty((resamples, pairs), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(rng.integers(pairs, size=pairs), minlength=pairs)
    return counts


def resampled_correlations(ranks: np.ndarray, gold: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman of each column in each resample.

    Of `RANKED_ANEW` pairs and more, the ranks are those of the whole sample: a resample weighs the pairs but does not
    rank them anew, which changes an interval's ends by less than the bootstrap's own noise. Of fewer it would change
    them by more: each resample has ranks of its own.

    Args:
        ranks: (P, K).
        gold: (P,) ranks.
        counts: (R, P).

    Returns:
        (R, K) correlations, NaN where a resample holds one score, or one cosine, alone.
    """
    return (_ranked_anew if len(gold) < RANKED_ANEW else _weighed)(ranks, gold, counts)


def _weighed(ranks: np.ndarray, gold: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`resampled_correlations` of the whole sample's ranks, by three matrix products instead of R sortings."""
    scale = len(gold)
    x = ((ranks - ranks.mean(axis=0)) / scale).astype(np.float32)  # (P, K), centred: float32 sums stay exact enough
    y = ((gold - gold.mean()) / scale).astype(np.float32)[:, None]  # (P, 1)
    share = counts / counts.shape[1]
    mean_x, mean_y = share @ x, share @ y  # (R, K), (R, 1)
    var_x, var_y = share @ np.square(x) - mean_x**2, share @ np.square(y) - mean_y**2
    covariance = share @ (x * y) - mean_x * mean_y
    defined = (var_x > ROUNDING) & (var_y > ROUNDING)
    return np.where(defined, covariance / np.sqrt(np.where(defined, var_x * var_y, 1)), np.nan)


def _ranked_anew(ranks: np.ndarray, gold: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`resampled_correlations` of each resample's own ranks."""
    found = np.full((len(counts), ranks.shape[1]), np.nan)
    for rows in _blocks(counts):
        middle = (counts[rows].sum(axis=1, dtype=float, keepdims=True) + 1) / 2  # (B, 1), the mean of any ranks
        y = ranks_in(gold, counts[rows]) - middle  # (B, P)
        for k, column in _defined(ranks):
            x = ranks_in(column, counts[rows]) - middle  # (B, P)
            covariance, var_x, var_y = ((counts[rows] * part).sum(axis=1) for part in (x * y, x * x, y * y))  # (B,)
            np.divide(covariance, np.sqrt(var_x * var_y), out=found[rows, k], where=var_x * var_y > 0)
    return found


def ranks_in(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The ranks of P values within each resample, ties sharing their mean rank: (R, P) of counts (R, P)."""
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)  # (P,), (G,) of G distinct values
    order, starts = np.argsort(place, kind="stable"), np.cumsum(sizes) - sizes
    groups = np.add.reduceat(counts[:, order], starts, axis=1, dtype=float)  # (R, G)
    return (np.cumsum(groups, axis=1) - (groups - 1) / 2)[:, place]


def _defined(ranks: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The number and the ranks (P,) of each column without NaN."""
    return ((k, column) for k, column in enumerate(ranks.T) if not np.isnan(column).any())


def _blocks(counts: np.ndarray) -> Iterator[slice]:
    """Slices of the resamples, such that an array of a slice's counts stays small."""
    rows = max(1, BLOCK // counts.shape[1])
    return (slice(start, start + rows) for start in range(0, len(counts), rows))


def area_under_curve(ranks: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (K,) of each column of ``ranks`` (P, K), of two values of ``gold`` (P,)."""
    return resampled_areas(ranks, gold, np.ones((1, len(gold)), dtype=np.float64))[0]


def resampled_areas(ranks: np.ndarray, gold: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of each column in each resample, from its own ranks.

    By the rank sum of the upper class: Hanley and McNeil (1982), after Mann and Whitney. Shapes as
    `resampled_correlations`; NaN where a resample holds one class alone.
    """
    found = np.full((len(counts), ranks.shape[1]), np.nan)
    for rows in _blocks(counts):
        upper = counts[rows] * (gold == gold.max())  # (B, P)
        above, all_of = (part.sum(axis=1, dtype=float) for part in (upper, counts[rows]))  # (B,)
        pairs = above * (all_of - above)
        for k, column in _defined(ranks):
            wins = (upper * ranks_in(column, counts[rows])).sum(axis=1) - above * (above + 1) / 2  # (B,)
            np.divide(wins, pairs, out=found[rows, k], where=pairs > 0)
    return found


def bootstrap(
    ranks: np.ndarray, gold: np.ndarray, counts: np.ndarray, metric: str = "spearman"
) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval of each column's score, times 100: percentiles 2.5 and 97.5 over the resamples.

    Shapes as `resampled_correlations`; resamples without a score are left out, and NaN is what no resample has.
    """
    draws = resampled_areas(ranks, gold, counts) if metric == "auc" else resampled_correlations(ranks, gold, counts)
    if np.isnan(draws).all():
        nothing = np.full(ranks.shape[1], np.nan)
        return nothing, nothing
    low, high = interval(draws, axis=0)
    return 100 * low, 100 * high


def interval(draws: np.ndarray, axis: int) -> np.ndarray:
    """Percentiles 2.5 and 97.5 (2, ...) over the resamples on an axis; those that are NaN are left out."""
    if not np.isnan(draws).any():
        return np.percentile(draws, [2.5, 97.5], axis=axis)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all are NaN, so is the interval
        return np.nanpercentile(draws, [2.5, 97.5], axis=axis)
