"""Validation during training: chosen cells scored on a set of pairs."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from numbers import Real
from typing import Any

from torch import Tensor

from twodmse.config import TrainConfig, is_default
from twodmse.data.sets import TextSet
from twodmse.data.tasks import load_tasks
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import check_grid, gold_ranks, pairs_grid
from twodmse.names import unknown

MEAN = "spearman"  # of the cells that are scored
Evaluator = Callable[[Encoder], Mapping[str, float]]


def cell_evaluator(
    pairs: TextSet, encoder: Encoder, cells: Sequence[tuple[int, int]] = (), metric: str = MEAN
) -> Evaluator:
    """An evaluator of cells: ``spearman_3_64`` of cell (3, 64) and so on, and their mean ``spearman``, all times 100.

    Where a cell has no score (NaN), as it gives all pairs one cosine, the mean has none either.

    Args:
        pairs: scored pairs.
        encoder: the encoder to be trained, whose cells they are.
        cells: (layer, dim) of each; () stands for every layer at the default dims of `sts_grid`.
        metric: the score that tells the best model.

    Raises:
        ValueError: for a cell that the encoder does not have, a metric that is none of those scores, or pairs by which
            nothing can be told: fewer than two, or of one score.
    """
    gold_ranks(pairs)
    layers, dims = check_grid(encoder, [n for n, _ in cells] or None, [d for _, d in cells] or None)
    names = [MEAN, *(score_name(n, d) for n, d in cells or product(layers, dims))]
    if metric not in names:
        raise ValueError(unknown("eval_metric", metric, names))

    def evaluate(encoder: Encoder) -> dict[str, float]:
        grid = pairs_grid(encoder, pairs, dims, layers, resamples=0).set_index(["layer", "dim"])["spearman"]
        chosen = grid.loc[list(cells)] if cells else grid
        return {MEAN: chosen.mean(skipna=False)} | {score_name(n, d): score for (n, d), score in chosen.items()}

    return evaluate


def evaluator_of(config: TrainConfig, encoder: Encoder, own: Evaluator | None = None) -> Evaluator | None:
    """What scores the encoder while it trains; None if nothing does.

    Raises:
        ValueError: for a cell that the encoder does not have, a metric that no cell has, pairs that cannot be read, an
            evaluator never called, or settings that it would not look at.
    """
    if not config.eval_every:
        if own is not None:
            raise ValueError("an evaluator was given and eval_every is 0: say after how many steps it is to be called")
        return None
    for name in ("eval_data", "eval_cells"):
        if own is not None and not is_default(name, getattr(config, name)):
            raise ValueError(f"{name} is {getattr(config, name)!r}, and the evaluator given does not look at it")
    return own or cell_evaluator(load_tasks([config.eval_data])[0], encoder, config.eval_cells, config.eval_metric)


def score_name(layer: int, dim: int) -> str:
    """What the score of a cell is called: ``spearman_3_64``."""
    return f"{MEAN}_{layer}_{dim}"


def check_scores(scores: Any, metric: str, step: int) -> Mapping[str, float]:
    """What an evaluator gave, if the best model can be told by it.

    Raises:
        ValueError: if it is no dictionary, has a score of a name that the table has already, has none of that name,
            or one that is not finite.
    """
    if not isinstance(scores, Mapping):
        raise ValueError(f"the evaluator gave {scores!r}: it must give a dictionary of scores, {metric!r} among them")
    if taken := [name for name in scores if not isinstance(name, str) or name in ("step", "epoch")]:
        raise ValueError(f"the evaluator calls a score {taken[0]!r}: give it a text that is neither step nor epoch")
    if metric not in scores:
        raise ValueError(f"the evaluator gave {', '.join(scores)}: eval_metric {metric!r} is none of them")
    if none := [name for name, score in scores.items() if not isinstance(score, Real | Tensor)]:
        raise ValueError(f"the evaluator gave {none[0]} {scores[none[0]]!r}: every score must be a number")
    if not math.isfinite(scores[metric]):
        raise ValueError(
            f"the evaluator gave {metric} {scores[metric]} at step {step}, by which no best model can be told: "
            "evaluate on pairs whose scores and cosines differ"
        )
    return scores
