"""How far each layer is from the last: the two alignment terms of training, and CKA between all layers."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

from twodmse.encoder.encoder import normalise as to_length_one
from twodmse.objectives import losses
from twodmse.probes.checks import centred, check_dims, check_states


def kl_to_last(
    states: np.ndarray, dims: Sequence[int] | None = None, temperature: float = 1.0, normalise: bool = False
) -> pd.DataFrame:
    """KL(last layer || layer) of the softmax over coordinates, exactly as `losses.kl_coordinates` trains it.

    KL = sum_j p_j (log p_j - log q_j), p = softmax(h_N[:d] / T), q = softmax(h_n[:d] / T), mean over texts; the vectors
    are raw and pooled, and the softmax runs over the d coordinates of one vector. The ``alignment`` term that the
    recipe 2dmse logs is T^2 times this value at d = D. The entropies say how much of a distribution there is to match:
    log d is flat, 0 is all weight on one coordinate. Source: 2DMSE (2402.14776v1) eq. 5.

    Args:
        states: (N+1, n, D).
        dims: cut widths; None means the doubling ones and D. With raw vectors all dims together cost little more than D
            alone.
        temperature: T.
        normalise: scale each cut vector to length 1 first, which training does not do.

    Returns:
        One row a layer 0..N and dim: layer, dim, kl, entropy_last, entropy_layer, in nats.

    Raises:
        ValueError: for states or dims that do not fit, or a temperature that is not above 0.
    """
    check_states(states, texts=1)
    dims = check_dims(states, dims)
    _check_temperature(temperature)
    last, rows = states[-1].astype(np.float64), []
    for layer, raw in enumerate(states):
        vectors = raw.astype(np.float64)
        if normalise:  # the length depends on the dim, so that nothing runs on from one dim to the next
            parts = [(to_length_one(last[:, :d]), to_length_one(vectors[:, :d]), [d]) for d in dims]
        else:
            parts = [(last, vectors, dims)]
        values = np.concatenate([_nested_kl(a / temperature, b / temperature, cut) for a, b, cut in parts])  # (K, 3)
        rows += [(layer, dim, *value) for dim, value in zip(dims, values, strict=True)]
    return pd.DataFrame(rows, columns=["layer", "dim", "kl", "entropy_last", "entropy_layer"])


def _nested_kl(last: np.ndarray, layer: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """KL, entropy of the last layer and entropy of the layer at every nested dim, each a mean over texts: (K, 3).

    With A = log sum_j exp(a_j) and B that of b: KL = E_p[a - b] - A + B and H(p) = A - E_p[a]. Sums and means run on
    from one block of coordinates to the next.

    Args:
        last: (n, D) float64 logits a and b.
        layer: (n, D) float64 logits a and b.
        dims: ascending.
    """
    texts = len(last)
    total_a, total_b = np.full(texts, -np.inf), np.full(texts, -np.inf)  # A and B, (n,)
    gap, mean_a, mean_b = np.zeros(texts), np.zeros(texts), np.zeros(texts)  # E_p[a - b], E_p[a], E_q[b]
    rows = []
    for start, stop in pairwise([0, *dims]):
        block_a, block_b = last[:, start:stop], layer[:, start:stop]  # (n, width of the block)
        total_a, (gap, mean_a) = _add(total_a, (gap, mean_a), block_a, (block_a - block_b, block_a))
        total_b, (mean_b,) = _add(total_b, (mean_b,), block_b, (block_b,))
        rows.append([(gap - total_a + total_b).mean(), (total_a - mean_a).mean(), (total_b - mean_b).mean()])
    return np.array(rows)


def _add(
    total: np.ndarray, means: Sequence[np.ndarray], logits: np.ndarray, values: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Take a block of coordinates into a running log-sum (n,) and into running softmax-weighted means (n,)."""
    block = logsumexp(logits, axis=1)  # (n,)
    weights = np.exp(logits - block[:, None])  # (n, width of the block)
    new = np.logaddexp(total, block)
    share = np.exp(block - new)  # (n,) of the weight so far, in this block
    return new, [mean + share * ((weights * v).sum(axis=1) - mean) for mean, v in zip(means, values, strict=True)]


def score_kl(
    states: np.ndarray, dims: Sequence[int] | None = None, temperature: float = 0.05, batch_size: int = 64
) -> pd.DataFrame:
    """KL((N, D) || cell) of in-batch score distributions, as `losses.kl_scores` trains it.

    For each text, the softmax of its cosines with the other texts of its batch, over the temperature: which texts the
    cell sees close to it. Source: the alignment of the recipe ``grid``.

    Args:
        states: (N+1, n, D).
        dims: as `kl_to_last`.
        temperature: divides the cosines.
        batch_size: texts a batch, taken in order; texts that fill no last batch are left out. The value grows with it.

    Returns:
        One row a layer 0..N and dim: layer, dim, kl in nats, mean over the texts.

    Raises:
        ValueError: for states or dims that do not fit, or a temperature or batch size that cannot work.
    """
    check_states(states, texts=3)
    dims = check_dims(states, dims)
    _check_temperature(temperature)
    if batch_size < 3:
        raise ValueError(f"batch_size is {batch_size}: a text must have at least 2 others to compare it with")
    size = min(batch_size, states.shape[1])
    total = np.zeros((len(states), len(dims)))  # (N+1, K)
    starts = range(0, states.shape[1] - size + 1, size)
    for start in starts:
        batch = torch.from_numpy(states[:, start : start + size].astype(np.float64))  # (N+1, b, D)
        target = losses.cosines(batch[-1], batch[-1])  # (b, b)
        for layer, vectors in enumerate(batch):
            total[layer] += losses.kl_scores(target, losses.nested_cosines(vectors, vectors, dims), temperature).numpy()
    mean = np.maximum(total / len(starts), 0)  # the last cell's own is 0 but for rounding
    rows = [(layer, dim, mean[layer, k]) for layer in range(len(states)) for k, dim in enumerate(dims)]
    return pd.DataFrame(rows, columns=["layer", "dim", "kl"])


def cka(states: np.ndarray) -> pd.DataFrame:
    """Linear centred kernel alignment between all pairs of layers: 1 where they differ by a rotation and a scale.

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), HSIC(K, L) = tr(K H L H) / (n-1)^2 with K = X X^T, L = Y Y^T and H
    the centring matrix; for centred X and Y that is |Y^T X|^2 / (|X^T X| |Y^T Y|) in Frobenius norms. Source:
    Kornblith et al. 2019 (1905.00414) eq. 1-4. With few texts and many coordinates all values are high.

    Args:
        states: (N+1, n, D); cut them for other widths.

    Returns:
        One row an ordered pair of layers 0..N: layer_a, layer_b, cka; NaN for a layer that gives every text the same
        vector, as the first token does at layer 0.
    """
    check_states(states, texts=3)
    count = len(states)
    hsic = np.full((count, count), np.nan)  # times (n-1)^2
    for i in range(count):
        x = centred(states[i])  # (n, D)
        for j in range(i, count):
            y = centred(states[j])
            if x is not None and y is not None:
                hsic[i, j] = hsic[j, i] = np.square(y.T @ x).sum()
    own = np.sqrt(np.diag(hsic))
    values = hsic / own[:, None] / own
    rows = [(a, b, values[a, b]) for a in range(count) for b in range(count)]
    return pd.DataFrame(rows, columns=["layer_a", "layer_b", "cka"])


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature!r}: it must be a number above 0")
