"""The grid: Spearman of every cell (layer, dim) on STS tasks, from one encoding pass a task."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from twodmse.checked import is_whole
from twodmse.data.sets import TextSet, distinct
from twodmse.data.tasks import load_tasks
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.loading import check_encoder, listed
from twodmse.evaluation.resampling import RESAMPLES, area_under_curve, bootstrap, resamples_of
from twodmse.objectives.recipes import doubling

METRICS = ("spearman", "auc")


def sts_grid(
    encoder: Encoder,
    tasks: Sequence[Any] = ("mini-sts",),
    dims: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    metric: str = "spearman",
) -> pd.DataFrame:
    """Score every wanted cell on every task.

    Args:
        encoder: the encoder.
        tasks: names that `load_texts` knows, or paths; ``"paper"`` stands for the seven sets of the paper,
            ``"senteval"`` for the same with SICK-R on its own test split; or sets in memory, as `as_texts`.
        dims: cut widths; None means the doubling ones from 8 and the full width. ``range(1, D + 1)`` is allowed.
        layers: layer numbers; None means 1..N. Layer 0 may be probed.
        resamples: of the bootstrap behind ``low`` and ``high``; 0 leaves them out (NaN).
        metric: ``spearman``, or for sets whose scores have two values (0 and 1) ``auc``: the area under the ROC curve.
            Ties cap Spearman there: at two equal halves even a perfect order of the pairs gets no more than 86.6.

    Returns:
        One row a task, layer and dim, columns task, layer, dim, spearman, low, high, n. ``spearman`` is times 100, of
        the cosine, pooled over the task's n pairs; low..high is its 95% interval (see `bootstrap`). NaN is what is not
        defined: of a cell that gives all pairs one cosine. With ``auc`` that is what the column holds, 50 for such a
        cell, and the column ``metric`` says so.

    Raises:
        ValueError: for a layer or dim out of range, an unknown task, or scores that the metric is not defined for,
            before anything is encoded.
        FileNotFoundError: for a task that is a missing file, or a hub that cannot be reached.
    """
    layers, dims = check_grid(encoder, layers, dims)
    sets = load_tasks(tasks)
    for pairs in sets:
        gold_ranks(pairs, metric)
    tables = [pairs_grid(encoder, pairs, dims, layers, resamples, metric) for pairs in sets]
    return pd.concat(tables, ignore_index=True)


def check_grid(
    encoder: Encoder, layers: Sequence[int] | None, dims: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    """The wanted layers and dims, ascending, with None read as the default.

    Raises:
        ValueError: for what is no encoder, a layer outside 0..N, a dim outside 1..D, or none of either.
    """
    check_encoder(encoder)
    wanted_layers = set(listed("layer", range(1, encoder.num_layers + 1) if layers is None else layers))
    wanted_dims = set(listed("dim", default_dims(encoder.dim) if dims is None else dims))
    if not wanted_layers or not wanted_dims:
        raise ValueError("no cell to score: give at least one layer and one dim")
    for dim in wanted_dims:
        encoder.check_cell(None, dim)
    for layer in wanted_layers - {0}:
        encoder.check_cell(layer, None)
    return sorted(map(int, wanted_layers)), sorted(map(int, wanted_dims))


def checked_cells(cells: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The cells in order, each once.

    Raises:
        ValueError: if there is none, or for what is no pair of whole numbers.
    """
    given: list[Any] = (list(cells) or [()]) if isinstance(cells, Iterable) else [cells]
    for cell in given:
        if not isinstance(cell, tuple | list) or len(cell) != 2 or not all(is_whole(n, -math.inf) for n in cell):
            raise ValueError(f"cells is {str(cells)[:80]}: give a list of layers and dims, such as [(2, 64), (6, 384)]")
    return sorted({(int(layer), int(dim)) for layer, dim in cells})


def default_dims(dim: int) -> list[int]:
    """8, 16, 32, ... below D, and D."""
    return sorted({*doubling(dim), dim})


def pairs_grid(
    encoder: Encoder,
    pairs: TextSet,
    dims: Sequence[int],
    layers: Sequence[int],
    resamples: int = RESAMPLES,
    metric: str = "spearman",
) -> pd.DataFrame:
    """The grid of one set of scored pairs; arguments and columns as `sts_grid`, dims and layers ascending."""
    gold = gold_ranks(pairs, metric)  # (P,)
    draws = resamples_of(pairs, resamples)
    rows = []
    for layer, ranks in ranked_cells(encoder, pairs, layers, dims):  # (P, K)
        values = 100 * (area_under_curve(ranks, gold) if metric == "auc" else rank_correlation(ranks, gold))  # (K,)
        low, high = bootstrap(ranks, gold, draws, metric)  # (K,) each
        rows += [
            (pairs.name, layer, dim, *cell, len(pairs)) for dim, *cell in zip(dims, values, low, high, strict=True)
        ]
    table = pd.DataFrame(rows, columns=["task", "layer", "dim", "spearman", "low", "high", "n"])
    return table if metric == "spearman" else table.assign(metric=metric)


def gold_ranks(pairs: TextSet, metric: str = "spearman") -> np.ndarray:
    """The ranks (P,) of a set's scores.

    Raises:
        ValueError: for an unknown metric, or scores that it is not defined for: all the same, or for ``auc`` more than
            two values.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: choose one of {', '.join(METRICS)}")
    values = np.unique(pairs.gold)
    if len(values) < 2:
        raise ValueError(
            f"{pairs.name}: its {len(pairs)} scores are all {values[0]:g}, for which {metric} is not defined: "
            "give pairs whose scores differ"
        )
    if metric == "auc" and len(values) > 2:
        raise ValueError(f"{pairs.name} has {len(values)} different scores: auc needs two, such as 0 and 1")
    return rankdata(pairs.gold)


def ranked_cells(
    encoder: Encoder, pairs: TextSet, layers: Sequence[int], dims: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Each layer with the ranks (P, K) of its pairs' cosines at every dim, from one encoding."""
    texts, left, right = distinct(pairs)
    states = encoder.states(texts, layers=layers)  # (L, n, D)
    for layer, vectors in zip(layers, states, strict=True):
        yield layer, column_ranks(cell_cosines(vectors, left, right, dims))


def cell_cosines(vectors: np.ndarray, left: Sequence[int], right: Sequence[int], dims: Sequence[int]) -> np.ndarray:
    """Cosine of each pair at every cut width, by running sums over the coordinates.

    Args:
        vectors: (n, D) raw vectors of one layer.
        left: P row numbers each.
        right: P row numbers each.
        dims: K cut widths.

    Returns:
        (P, K) float64, NaN where a vector is zero: it has no direction. The sums run in float64: lower precision
        drifts.
    """
    columns = np.asarray(dims) - 1
    squares = np.cumsum(np.square(vectors, dtype=np.float64), axis=1)[:, columns]  # (n, K)
    products = np.multiply(vectors[left], vectors[right], dtype=np.float64)  # (P, D)
    products = np.cumsum(products, axis=1, out=products)[:, columns]  # (P, K)
    cosines = products / np.sqrt(np.maximum(squares[left] * squares[right], np.finfo(np.float64).tiny))
    zero = squares == 0  # (n, K)
    return np.where(zero[left] | zero[right], np.nan, cosines) if zero.any() else cosines


def column_ranks(scores: np.ndarray, block: int = 32) -> np.ndarray:
    """Ranks within each column of ``scores`` (P, K), ties sharing their mean rank: (P, K).

    Ranking is what a grid of hundreds of dims spends most of its time on besides encoding; blocks of columns are ranked
    on all cores at once.
    """
    blocks = [scores[:, first : first + block] for first in range(0, scores.shape[1], block)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(partial(rankdata, axis=0), blocks)), axis=1)


def rank_correlation(ranks: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Pearson of each column of ``ranks`` (P, K) with ``gold`` (P,): of ranks, that is Spearman.

    Returns:
        (K,), NaN where all ranks of a column are one: it is not defined there.
    """
    x, y = ranks - ranks.mean(axis=0), gold - gold.mean()
    norms = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum())
    return np.divide(x.T @ y, norms, out=np.full(x.shape[1], np.nan), where=norms > 0)


def rank_scores(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Spearman x 100 (K,) of each column of ``scores`` (P, K) with the ranks ``gold`` (P,)."""
    return 100 * rank_correlation(column_ranks(scores), gold)
