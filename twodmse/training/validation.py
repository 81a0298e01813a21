"""Validation during training: chosen cells scored on a set of pairs."""

from collections.abc import Callable, Mapping, Sequence

from twodmse.data.sets import TextSet
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import check_grid, pairs_grid

Evaluator = Callable[[Encoder], Mapping[str, float]]


def cell_evaluator(pairs: TextSet, encoder: Encoder, cells: Sequence[tuple[int, int]] = ()) -> Evaluator:
    """An evaluator of cells: ``spearman_3_64`` of cell (3, 64) and so on, and their mean ``spearman``, all times 100.

    Args:
        pairs: scored pairs.
        encoder: the encoder to be trained, whose cells they are.
        cells: (layer, dim) of each; () stands for every layer at the default dims of `sts_grid`.

    Raises:
        ValueError: for a cell that the encoder does not have.
    """
    layers, dims = check_grid(encoder, [n for n, _ in cells] or None, [d for _, d in cells] or None)

    def evaluate(encoder: Encoder) -> dict[str, float]:
        grid = pairs_grid(encoder, pairs, dims, layers, resamples=0).set_index(["layer", "dim"])["spearman"]
        chosen = grid.loc[list(cells)] if cells else grid
        return {"spearman": chosen.mean()} | {f"spearman_{n}_{d}": score for (n, d), score in chosen.items()}

    return evaluate
