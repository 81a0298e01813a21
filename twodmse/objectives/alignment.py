"""The kinds of alignment: what each makes small, for one layer at every wanted width at once.

Letters as in `losses`: B texts column after column, D the width of the layer, E that of the target, K nested dims.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from twodmse.objectives import losses


class Kind(NamedTuple):
    """A kind of alignment.

    ``values(target, student, dims, temperature, rows)``: target (B, E), held fixed already where the plan says so,
    student (B, D), K ascending dims, and how many rows the B texts come from; it gives (K,), one value a dim.
    """

    distance: str  # what is made small
    values: Callable[[Tensor, Tensor, Sequence[int], float, int], Tensor]
    raw: bool = False  # vectors are compared as they are, lengths and all: not with a teacher's, which have length 1


def _coordinates(target: Tensor, student: Tensor, dims: Sequence[int], temperature: float, rows: int) -> Tensor:
    return torch.stack([losses.kl_coordinates(target[:, :d], student[:, :d], temperature) for d in dims])


def _scores(target: Tensor, student: Tensor, dims: Sequence[int], temperature: float, rows: int) -> Tensor:
    return losses.kl_nested_scores(target, student, dims, temperature)


def _pairs(target: Tensor, student: Tensor, dims: Sequence[int], temperature: float, rows: int) -> Tensor:
    return losses.uncorrelated(target, student, dims, rows)


def _vectors(target: Tensor, student: Tensor, dims: Sequence[int], temperature: float, rows: int) -> Tensor:
    return torch.stack([losses.turned(student[:, :d], target[:, :d]) for d in dims])


def _compress(target: Tensor, student: Tensor, dims: Sequence[int], temperature: float, rows: int) -> Tensor:
    pairs = [(student[:, :d], losses.compress(target, d)) for d in dims]  # K x two of (B, d)
    return torch.stack([losses.ese_distance(cut, compressed, temperature) for cut, compressed in pairs])


KINDS: dict[str, Kind] = {
    "coordinates": Kind(
        "KL(teacher || student) of the softmax over coordinates of raw pooled vectors, mean over rows",
        _coordinates,
        raw=True,
    ),
    "scores": Kind(
        "KL(teacher || student) of in-batch score distributions: which texts of the batch each text is close to",
        _scores,
    ),
    "pairs": Kind(
        "How far the pairs within rows are from being ranked as the target ranks them: 1 - Pearson of their cosines",
        _pairs,
    ),
    "vectors": Kind("How far vectors are turned away from their targets: 1 - cosine, mean over rows", _vectors),
    "compress": Kind("ESE's alignment: MSE(student, target) + T * KL_T(target || student)", _compress, raw=True),
}
