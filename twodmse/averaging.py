"""The mean of the weights of encoders that were trained from one start: one encoder, as fast as each of them."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from twodmse.checked import is_finite
from twodmse.encoder.encoder import Encoder

RELATED = 0.5  # cosine of two encoders' matrices above which they can come from one start; of strangers it is near 0


def average(encoders: Sequence[Encoder], shares: Sequence[float] | None = None) -> Encoder:
    """The encoder whose weights are the weighted mean of those of several encoders trained from one start.

    Trainings of one start often meet in the middle: a mean over runs is a model soup, one with the start itself
    draws a tuned model back to what it was. Encoders that were not trained from the same weights have no mean that
    means anything; neither have those of which one had its coordinates reordered (``order_dims``).

    Args:
        encoders: of the same shape, from one start; they stay as they are.
        shares: each one's part, 0 or more, with the sum 1; None is equal parts.

    Returns:
        An encoder of its own, with tokenizer, layout and dtype of the first. Source: Wortsman et al. 2022, Model soups
        (2203.05482, section 2, uniform soup), and WiSE-FT (2109.01903, eq. 1), with the start among the encoders.

    Raises:
        ValueError: if there is none, one is no encoder, shares do not fit, or shapes, layouts or vocabularies differ,
            or if the weights point different ways, so that they do not come from one start.
    """
    encoders = list(encoders) if isinstance(encoders, Iterable) and not isinstance(encoders, str) else [encoders]
    for place, one in enumerate(encoders):
        if not isinstance(one, Encoder):
            raise ValueError(f"encoders[{place}] is {one!r}: give encoders, as Encoder.load gives them")
    parts = _shares(len(encoders), shares)
    first, *others = encoders
    for place, other in enumerate(others, start=1):
        _check_alike(first, other, f"encoders[{place}]")
    made = first.submodel()
    weights = [one.backbone.state_dict() for one in encoders]
    for name, mean in made.backbone.state_dict().items():  # these are the encoder's own memory
        if mean.is_floating_point():
            tensors = [own[name].to(mean.device, torch.float64) for own in weights]
            mean.copy_(sum(part * tensor for part, tensor in zip(parts, tensors, strict=True)))
    made.backbone.model.config._name_or_path = ""  # of no folder: a card must not name one of the parts for the whole
    return made


def _shares(count: int, shares: Sequence[float] | None) -> list[float]:
    """One share an encoder, checked."""
    if not count:
        raise ValueError("there are no encoders to average: give at least one")
    if shares is None:
        return [1 / count] * count
    if not isinstance(shares, Iterable):
        raise ValueError(f"shares is {shares!r}: give one share for each encoder")
    parts = list(shares)
    if len(parts) != count:
        raise ValueError(f"there are {count} encoders and {len(parts)} shares: give one share for each")
    for place, part in enumerate(parts):
        if not is_finite(part) or not 0 <= part <= 1:
            raise ValueError(f"shares[{place}] is {part!r}: it must be a number from 0 to 1")
    if not math.isclose(sum(parts), 1, abs_tol=1e-6):
        raise ValueError(f"the shares sum to {sum(parts):g}: they must sum to 1")
    return [float(part) for part in parts]


def _check_alike(first: Encoder, other: Encoder, name: str) -> None:
    """Refuse two encoders whose weights have no common meaning."""
    ours, theirs = first.backbone.state_dict(), other.backbone.state_dict()
    for key in [*ours, *theirs]:
        shapes = [list(one[key].shape) if key in one else None for one in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{name} has not the shape of encoders[0]: of {key}, the one has {shapes[1] or 'none'} and the other "
                f"{shapes[0] or 'none'}"
            )
    layouts = [one.layout._replace(max_length=None) for one in (first, other)]
    if layouts[0] != layouts[1]:
        raise ValueError(f"{name} makes its vectors otherwise than encoders[0]: {layouts[1]}, {layouts[0]}")
    if first.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise ValueError(f"{name} has another vocabulary than encoders[0]: they do not come from one start")
    if (cosine := _cosine(ours, theirs)) < RELATED:
        raise ValueError(
            f"{name} and encoders[0] do not come from one start: the cosine of their weights is {cosine:.2f}; if one "
            "was trained with order_dims, its coordinates are in another order"
        )


def _cosine(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Of all matrices of two encoders, each as one long vector: norms and biases are much alike in any two."""
    sums = torch.zeros(3, dtype=torch.float64)  # <x, y>, <x, x>, <y, y>
    for name, weight in ours.items():
        if weight.ndim > 1 and weight.is_floating_point():
            x, y = weight.double().flatten(), theirs[name].to(weight.device, torch.float64).flatten()
            sums += torch.stack([x @ y, x @ x, y @ y]).cpu()
    return float(sums[0] / (sums[1] * sums[2]).sqrt())
