"""Pooling: from one vector a token to one vector a text.

Letters used in every shape of this package:

    B  texts in a batch             N  layers of the backbone
    T  tokens of the longest text   D  width of the backbone (its hidden size)
    H  hidden size, where it is the last axis of token vectors (H = D)
    d  a cut width, 1 <= d <= D     n  a layer number, 0 (embedding output) <= n <= N
"""

import torch
from torch import Tensor

POOLINGS = ("mean", "cls", "last")


def pool(hidden: Tensor, mask: Tensor, mode: str = "mean") -> Tensor:
    """Pool token vectors into one vector a text, in float32.

    Args:
        hidden: (B, T, H) token vectors of one layer.
        mask: (B, T) 1 for a token, 0 for padding; padding may stand on either side.
        mode: ``mean`` over the tokens, ``cls`` (the first token) or ``last`` (the last token).

    Returns:
        (B, H) float32.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode == "mean":
        weights = mask.unsqueeze(-1).to(torch.float32)  # (B, T, 1)
        total = (hidden.to(torch.float32) * weights).sum(dim=1)  # (B, H)
        return total / weights.sum(dim=1).clamp(min=1)  # (B, H)
    if mode in ("cls", "last"):
        positions = torch.arange(mask.shape[1], device=mask.device)  # (T,)
        outside = -1 if mode == "last" else mask.shape[1]
        candidates = positions.where(mask.bool(), outside)  # (B, T)
        index = candidates.max(dim=1).values if mode == "last" else candidates.min(dim=1).values  # (B,)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return hidden[rows, index].to(torch.float32)  # (B, H)
    raise ValueError(f"unknown pooling {mode!r}: choose one of {', '.join(POOLINGS)}")
