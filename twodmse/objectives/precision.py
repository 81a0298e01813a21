"""The precision that losses are computed in: float32 at least, whatever they are called with."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")
HALF = (torch.float16, torch.bfloat16)


def in_float32(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A loss that takes tensors of half precision as float32, autocast or not; wider ones stay as they are.

    The gradient goes back in the type of the tensor that was given.

    Args:
        loss: a function of tensors, the first of which says on what device it runs, and of other values.
    """

    @wraps(loss)
    def widened(*args: P.args, **options: P.kwargs) -> Tensor:
        given = [_wide(value) for value in args]
        named = {name: _wide(value) for name, value in options.items()}
        device = next(value.device.type for value in (*given, *named.values()) if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):  # it would multiply in half precision again
            return loss(*given, **named)  # type: ignore[arg-type]

    return widened


def _wide(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value
