"""The shape of each cell's cloud of vectors: alignment and uniformity, anisotropy, and outlier coordinates."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from tqdm.auto import tqdm

from twodmse.encoder.encoder import normalise
from twodmse.evaluation.grid import cell_cosines, rank_scores
from twodmse.probes.checks import centred, check_dims, check_pairs, check_states, ordered_cosines, row_blocks

SHARPNESS = 2.0  # t of the uniformity


def alignment_uniformity(
    states: np.ndarray,
    left: Sequence[int],
    right: Sequence[int],
    gold: Sequence[float],
    dims: Sequence[int] | None = None,
    positive: float = 4.0,
) -> pd.DataFrame:
    """Alignment of paraphrases and uniformity of all texts, of vectors of length 1; of both, lower is better.

    alignment = mean of |u - v|^2 over the positive pairs; uniformity = log of the mean of exp(-t |u - v|^2) over all
    pairs of two texts, t = 2: 0 where all texts fall together, about -2t for many texts spread evenly. Source: Wang
    and Isola 2020 (2005.10242) section 4, on pairs of a scored set as SimCSE (2104.08821) does.

    Args:
        states: (N+1, n, D) of n different texts.
        left: P row numbers each.
        right: P row numbers each.
        gold: (P,) their scores.
        dims: cut widths; None means the doubling ones and D.
        positive: the score from which a pair is a positive one; 4 suits scores of 0..5.

    Returns:
        One row a layer 0..N and dim: layer, dim, alignment, uniformity; NaN where a vector is zero.

    Raises:
        ValueError: for states, pairs or dims that do not fit, or if no pair is positive.
    """
    check_states(states)
    check_pairs(states, left, right, gold)
    dims = check_dims(states, dims)
    good = positive_pairs(gold, positive)
    first, second = np.asarray(left)[good], np.asarray(right)[good]
    texts, table = states.shape[1], []
    for layer, vectors in enumerate(tqdm(states, desc="uniformity", unit="layer", delay=2)):
        distances = 2 - 2 * cell_cosines(vectors, first, second, dims)  # (positive pairs, K)
        mean = np.zeros(len(dims))  # (K,)
        for rows in row_blocks(texts):
            for k, cosines in enumerate(ordered_cosines(vectors, dims, rows)):  # (b, n)
                nearness = np.exp(-SHARPNESS * (2 - 2 * cosines))
                own = nearness[np.arange(len(nearness)), np.arange(rows.start, rows.stop)]
                mean[k] += (nearness.sum() - own.sum()) / (texts * (texts - 1))
        table += [(layer, *cell) for cell in zip(dims, distances.mean(axis=0), np.log(mean), strict=True)]
    return pd.DataFrame(table, columns=["layer", "dim", "alignment", "uniformity"])


def positive_pairs(gold: Sequence[float], positive: float) -> np.ndarray:
    """Numbers of the pairs whose score is at least ``positive``.

    Raises:
        ValueError: if there are none.
    """
    good = np.flatnonzero(np.asarray(gold) >= positive)
    if not len(good):
        raise ValueError(
            f"no pair has a score of at least {positive:g} (the largest is {max(gold):g}): lower `positive`"
        )
    return good


def anisotropy(states: np.ndarray, dims: Sequence[int] | None = None) -> pd.DataFrame:
    """How unevenly a cell's vectors fill their space.

    mean_cosine: over all pairs of two texts (Ethayarajh 2019, 1909.00512). effective_rank: exp of the
    entropy of the eigenvalues of the covariance over texts, scaled to sum 1 (Roy and Vetterli 2007, EUSIPCO,
    definition 1): as many directions as would carry the spread evenly, at most d. largest_share: the part of the
    squared length that the largest coordinate carries, mean over texts; the same coordinate for all texts, that of the
    largest mean (1/d where all are alike).

    Args:
        states: (N+1, n, D) of n different texts.
        dims: cut widths; None means the doubling ones and D.

    Returns:
        One row a layer 0..N and dim: layer, dim, mean_cosine, effective_rank, largest_share. The rank is NaN where
        every text has the same vector.

    Raises:
        ValueError: for states or dims that do not fit.
    """
    check_states(states)
    dims = check_dims(states, dims)
    texts, table = states.shape[1], []
    with tqdm(total=len(states) * len(dims), desc="anisotropy", unit="cell", delay=2) as bar:
        for layer, vectors in enumerate(states):
            for dim in dims:
                unit = normalise(vectors[:, :dim].astype(np.float64))  # (n, d)
                unit[~unit.any(axis=1)] = np.nan  # a zero vector has no direction
                along = np.square(unit.sum(axis=0)).sum() - np.square(unit).sum()  # of cosines, a text's own left out
                share = np.square(unit).mean(axis=0).max()
                table.append((layer, dim, along / (texts * (texts - 1)), effective_rank(vectors[:, :dim]), share))
                bar.update()
    return pd.DataFrame(table, columns=["layer", "dim", "mean_cosine", "effective_rank", "largest_share"])


def effective_rank(vectors: np.ndarray) -> float:
    """exp(-sum p log p), p the eigenvalues of the covariance of vectors (n, d) scaled to sum 1; NaN if all are 0."""
    moved = centred(vectors)  # (n, d)
    if moved is None:
        return np.nan
    small = moved.T @ moved if moved.shape[1] <= len(moved) else moved @ moved.T  # both have the same eigenvalues > 0
    values = np.maximum(np.linalg.eigvalsh(small), 0)
    p = values[values > 0] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def outliers(
    states: np.ndarray, left: Sequence[int], right: Sequence[int], gold: Sequence[float], dim: int | None = None
) -> pd.DataFrame:
    """The coordinate of each layer whose removal changes the layer's Spearman the most.

    The cosine without coordinate j is (<u, v> - u_j v_j) / sqrt((|u|^2 - u_j^2) (|v|^2 - v_j^2)), for all j at once.
    A few coordinates of very large values are known to rule the cosine of some models (Timkey and van Schijndel 2021,
    2109.04404).

    Args:
        states: (N+1, n, D).
        left: P row numbers each.
        right: P row numbers each.
        gold: (P,) their scores.
        dim: cut width; None means D.

    Returns:
        One row a layer 0..N: layer, coordinate (its index, 0..dim-1), spearman_without, change (without less with),
        both times 100; NaN in all three where no change is defined.

    Raises:
        ValueError: for states, pairs or dim that do not fit, or a dim of 1, of which nothing can be removed.
    """
    check_states(states)
    check_pairs(states, left, right, gold)
    (dim,) = check_dims(states, [states.shape[2] if dim is None else dim])
    if dim < 2:
        raise ValueError("dim is 1: a coordinate can be removed from 2 or more")
    ranks, table = rankdata(gold), []
    for layer, vectors in enumerate(states[..., :dim]):
        products = np.multiply(vectors[left], vectors[right], dtype=np.float64)  # (P, d)
        squares = np.square(vectors, dtype=np.float64)  # (n, d)
        lengths = squares.sum(axis=1, keepdims=True) - squares  # (n, d) squared, each less one coordinate
        floor = np.finfo(np.float64).tiny
        without = products.sum(axis=1, keepdims=True) - products  # (P, d)
        without /= np.sqrt(np.maximum(lengths[left], floor)) * np.sqrt(np.maximum(lengths[right], floor))
        # Without their rounding: cosines that are all 1 but for it have no order.
        scores = rank_scores(without.round(9), ranks)  # (d,)
        change = scores - rank_scores(cell_cosines(vectors, left, right, [dim]).round(9), ranks)
        if np.isnan(change).all():
            table.append((layer, np.nan, np.nan, np.nan))
            continue
        j = int(np.nanargmax(np.abs(change)))
        table.append((layer, j, scores[j], change[j]))
    return pd.DataFrame(table, columns=["layer", "coordinate", "spearman_without", "change"])
