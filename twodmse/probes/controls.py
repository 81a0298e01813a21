"""Controls: other ways to get d coordinates from a layer, beside keeping the first d."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from tqdm.auto import tqdm

from twodmse.evaluation.grid import cell_cosines, rank_scores
from twodmse.probes.checks import check_dims, check_pairs, check_states


def controls(
    states: np.ndarray,
    left: Sequence[int],
    right: Sequence[int],
    gold: Sequence[float],
    dims: Sequence[int] | None = None,
    seed: int = 0,
    draws: int = 5,
) -> pd.DataFrame:
    """Spearman of every cell with its first d coordinates, the last d, d random ones, and PCA to d.

    What the first d have over the random ones is what Matryoshka training put there; PCA is what can be had without
    training. At d = D all four are the same vectors, turned. PCA is fitted on the texts' own states, which favours it:
    the eigenvectors of their covariance, onto which the raw vectors are projected (no mean is taken off, as where
    sentence-transformers reduces a model by PCA).

    Args:
        states: (N+1, n, D).
        left: P row numbers each.
        right: P row numbers each.
        gold: (P,) their scores.
        dims: cut widths; None means the doubling ones and D.
        seed: of the random coordinates.
        draws: random orders of the coordinates, the mean of which is given; the same ones for every layer.

    Returns:
        One row a control (first, last, random, pca), layer 0..N and dim: control, layer, dim, spearman (times 100).

    Raises:
        ValueError: for states, pairs or dims that do not fit, or no draws.
    """
    check_states(states)
    check_pairs(states, left, right, gold)
    dims = check_dims(states, dims)
    if draws < 1:
        raise ValueError(f"draws is {draws!r}: at least 1 is needed")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(states.shape[2]) for _ in range(draws)]
    ranks, table = rankdata(gold), []
    for layer, vectors in enumerate(tqdm(states, desc="controls", unit="layer", delay=2)):
        ways = {
            "first": [vectors],
            "last": [vectors[:, ::-1]],
            "random": [vectors[:, order] for order in orders],
            "pca": [vectors @ principal_directions(vectors)],
        }
        for control, arrays in ways.items():
            scores = np.mean([rank_scores(cell_cosines(a, left, right, dims), ranks) for a in arrays], axis=0)  # (K,)
            table += [(control, layer, dim, score) for dim, score in zip(dims, scores, strict=True)]
    return pd.DataFrame(table, columns=["control", "layer", "dim", "spearman"])


def principal_directions(vectors: np.ndarray) -> np.ndarray:
    """Eigenvectors of the covariance of vectors (n, D), as columns, largest eigenvalue first: (D, D) float64."""
    moved = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)  # (n, D)
    return np.linalg.eigh(moved.T @ moved)[1][:, ::-1]
