"""Comparing grids: two encoders over the same resamples of pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from twodmse.checked import is_whole
from twodmse.data.sets import TextSet
from twodmse.data.tasks import load_tasks
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.loading import check_encoder
from twodmse.evaluation.grid import check_grid, default_dims, gold_ranks, rank_correlation, ranked_cells
from twodmse.evaluation.published import MEAN, MEANS
from twodmse.evaluation.resampling import (
    MOST_RESAMPLES,
    RESAMPLES,
    interval,
    resampled_correlations,
    resamples_of,
)


def compare_models(
    first: Encoder,
    second: Encoder,
    tasks: Sequence[Any] = ("mini-sts",),
    dims: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Paired bootstrap between the same cells of two encoders: which differences are not noise of the pairs drawn.

    Both models are scored on the same resamples of each task's pairs, so that what makes a pair hard for both cancels.
    The mean over tasks resamples every task on its own. Source: Efron and Tibshirani, An Introduction to the Bootstrap
    (1993), percentile intervals; pooled Spearman as `sts_grid`.

    Args:
        first: an encoder.
        second: the encoder it is compared with.
        tasks: as `sts_grid`.
        dims: as `sts_grid`; None means the doubling ones that both have.
        layers: as `sts_grid`; None means those that both have.
        resamples: of the bootstrap, at least 100.

    Returns:
        One row a task, layer and dim, then the rows of the mean over tasks (task "mean"). Columns task, layer, dim,
        first and second (Spearman x 100), difference (second - first), low and high (its 95% interval), p (two-sided,
        at least 2 / (resamples + 1)), significant (0 lies outside low..high). Cells are tested one by one: of 36
        equal ones about two are expected to be marked. Where a model has no score, or there are fewer than `FEWEST`
        pairs, what cannot be told is NaN and not significant.

    Raises:
        ValueError: for a layer or dim that one of them lacks, an unknown task, scores that are all the same, or fewer
            than 100 resamples, before anything is encoded.
    """
    if not is_whole(resamples, 100, MOST_RESAMPLES):
        most = f"as a whole number up to {MOST_RESAMPLES}"
        raise ValueError(f"resamples is {resamples!r}: an interval needs at least 100, {most}")
    for encoder in (first, second):
        check_encoder(encoder)
    if layers is None:
        layers = range(1, min(first.num_layers, second.num_layers) + 1)
    if dims is None:
        dims = default_dims(min(first.dim, second.dim))
    for encoder in (first, second):
        wanted = check_grid(encoder, layers, dims)
    layers, dims = wanted
    tables, every, sets = [], [], load_tasks(tasks)
    for pairs in sets:
        gold_ranks(pairs)  # refuses scores that are all the same
    for pairs in sets:
        counts = resamples_of(pairs, resamples)
        scores, draws = zip(*(cell_draws(e, pairs, layers, dims, counts) for e in (first, second)), strict=True)
        every.append((*scores, draws[1] - draws[0]))
        tables.append(_difference_rows(pairs.name, layers, dims, *every[-1]))
    means = [np.mean(part, axis=0) for part in zip(*every, strict=True)]
    return pd.concat([*tables, _difference_rows(MEAN, layers, dims, *means)], ignore_index=True)


def cell_draws(
    encoder: Encoder, pairs: TextSet, layers: Sequence[int], dims: Sequence[int], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spearman x 100 of every cell, on all pairs and in each resample, from one encoding.

    Args:
        encoder: the encoder.
        pairs: P scored pairs.
        layers: L of them.
        dims: K of them.
        counts: (R, P), as `resamples_of`.

    Returns:
        (L, K) and (L, R, K).
    """
    gold = gold_ranks(pairs)  # (P,)
    scores, draws = [], []
    for _, ranks in ranked_cells(encoder, pairs, layers, dims):  # (P, K)
        scores.append(100 * rank_correlation(ranks, gold))  # (K,)
        draws.append(100 * resampled_correlations(ranks, gold, counts))  # (R, K)
    return np.stack(scores), np.stack(draws)


def _difference_rows(
    task: str, layers: Sequence[int], dims: Sequence[int], first: np.ndarray, second: np.ndarray, draws: np.ndarray
) -> pd.DataFrame:
    """Rows of `compare_models` from scores (L, K) and resampled differences (L, R, K)."""
    low, high = interval(draws, axis=1)  # (L, K) each
    beyond = np.minimum((draws <= 0).sum(axis=1), (draws >= 0).sum(axis=1))  # (L, K) resamples on the other side of 0
    defined = (~np.isnan(draws)).sum(axis=1)  # (L, K)
    p = np.minimum(1, 2 * (beyond + 1) / (defined + 1))  # + 1: the sample itself counts as a resample
    p = np.where(np.isnan(low) | np.isnan(first) | np.isnan(second), np.nan, p)
    table = pd.DataFrame({"task": task, "layer": np.repeat(layers, len(dims)), "dim": np.tile(dims, len(layers))})
    values = {"first": first, "second": second, "difference": second - first, "low": low, "high": high, "p": p}
    table = table.assign(**{name: value.ravel() for name, value in values.items()})
    return table.assign(significant=(table["low"] > 0) | (table["high"] < 0))


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: those of the mean over tasks where the table has them, else the mean of its number columns.

    The table is one of `compare_models`, or of `minus_published` for one published model.
    """
    means = table[table["task"].isin(MEANS)]
    if not means.empty:
        return means.reset_index(drop=True)
    if table["task"].nunique() == 1:
        return table.reset_index(drop=True)
    return table.groupby(["layer", "dim"], as_index=False)[["ours", "published", "difference"]].mean()
