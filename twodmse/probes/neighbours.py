"""What a cell changes in the order of texts: nearest neighbours kept, and pairs whose order flips."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from tqdm.auto import tqdm

from twodmse.checked import is_whole
from twodmse.evaluation.grid import cell_cosines
from twodmse.probes.checks import check_dims, check_pairs, check_states, ordered_cosines, row_blocks


def neighbours_kept(states: np.ndarray, dims: Sequence[int] | None = None, k: int = 10) -> pd.DataFrame:
    """Share of the k nearest texts by cosine at (N, D) that are among the k nearest at the cell too.

    A text is not its own neighbour. A random order keeps k / (n-1). Ties, which are the rule at one coordinate, fall
    to either side.

    Args:
        states: (N+1, n, D) of n different texts.
        dims: cut widths; None means the doubling ones and D.
        k: neighbours a text, 1..n-1.

    Returns:
        One row a layer 0..N and dim: layer, dim, kept (0..1, mean over the texts); NaN for k = n-1, when every other
        text is a neighbour and nothing could be lost, and where a text's vector is zero.

    Raises:
        ValueError: for states or dims that do not fit, or k out of range.
    """
    check_states(states)
    dims = check_dims(states, dims)
    layers, texts, width = states.shape
    if not is_whole(k, 1, texts - 1):
        raise ValueError(f"k is {k!r}: with {texts} texts it must be 1..{texts - 1}")
    kept = np.zeros((layers, len(dims)))  # (N+1, K)
    with tqdm(total=layers * len(row_blocks(texts)), desc="neighbours", unit="block", delay=2) as bar:
        for rows in row_blocks(texts):
            wanted = np.zeros((rows.stop - rows.start, texts), dtype=bool)  # (b, n)
            whole = next(ordered_cosines(states[-1], [width], rows))
            np.put_along_axis(wanted, _nearest(whole, rows, k), True, axis=1)
            for layer, vectors in enumerate(states):
                for column, cosines in enumerate(ordered_cosines(vectors, dims, rows)):
                    if np.isnan(cosines).any():
                        kept[layer, column] = np.nan
                    kept[layer, column] += np.take_along_axis(wanted, _nearest(cosines, rows, k), axis=1).sum()
                bar.update()
    kept = kept / (texts * k) if k < texts - 1 else np.full_like(kept, np.nan)
    table = [(layer, dim, kept[layer, column]) for layer in range(layers) for column, dim in enumerate(dims)]
    return pd.DataFrame(table, columns=["layer", "dim", "kept"])


def _nearest(cosines: np.ndarray, rows: slice, k: int) -> np.ndarray:
    """The k texts of largest cosine for each of ``rows``, in no order: (b, n) in, (b, k) out."""
    cosines = cosines.copy()
    cosines[np.arange(len(cosines)), np.arange(rows.start, rows.stop)] = -np.inf  # not its own neighbour
    return np.argpartition(cosines, -k, axis=1)[:, -k:]


def order_flips(
    states: np.ndarray, left: Sequence[int], right: Sequence[int], dims: Sequence[int] | None = None
) -> pd.DataFrame:
    """How far the order of the pairs by the cell's cosine is from that by the cosine at (N, D).

    (1 - tau) / 2 with tau Kendall's rank correlation of the two cosines over the pairs: 0 is the same order, 1/2 a
    random one. Without ties it is the share of all couples of pairs that stand in another order; with ties tau is
    Kendall's tau-b, as scipy has it, which sets both orders beside the couples that they can tell apart.

    Args:
        states: (N+1, n, D).
        left: P row numbers each.
        right: P row numbers each.
        dims: cut widths; None means the doubling ones and D.

    Returns:
        One row a layer 0..N and dim: layer, dim, flipped (0..1); NaN where a cell gives every pair the same cosine.

    Raises:
        ValueError: for states, pairs or dims that do not fit.
    """
    check_states(states)
    check_pairs(states, left, right)
    dims = check_dims(states, dims)
    whole = _rounded(states[-1], left, right, [states.shape[2]])[:, 0]  # (P,)
    table = []
    for layer, vectors in enumerate(tqdm(states, desc="order", unit="layer", delay=2)):
        cosines = _rounded(vectors, left, right, dims)  # (P, K)
        table += [
            (layer, dim, (1 - kendalltau(whole, column).statistic) / 2)
            for dim, column in zip(dims, cosines.T, strict=True)
        ]
    return pd.DataFrame(table, columns=["layer", "dim", "flipped"])


def _rounded(vectors: np.ndarray, left: Sequence[int], right: Sequence[int], dims: Sequence[int]) -> np.ndarray:
    """`cell_cosines` less their rounding, so that equal pairs tie instead of falling in a random order: (P, K)."""
    return cell_cosines(vectors, left, right, dims).round(9)
