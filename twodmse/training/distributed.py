"""What several processes need beyond the Trainer: the batch of all of them, and gradients that add up to its own.

Each process encodes its part of a batch; the losses see the whole of it, so that in-batch negatives and score
alignments do not depend on how many processes share the work.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """The number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes; known before the processes have met."""
    return os.environ.get("RANK", "0") == "0"


def gather_rows(part: Tensor, num_columns: int = 1, dim: int = 0) -> Tensor:
    """The rows of all processes, column after column; the gradient flows into this process's own.

    Args:
        part: this process's tensor, whose axis ``dim`` holds num_columns * b rows, column after column.
        num_columns: columns stacked along that axis.
        dim: the axis.

    Returns:
        The same shape with W times as many rows along ``dim``, W the number of processes: the first column of all
        processes, then the second, ...
    """
    if world_size() == 1:
        return part
    own = part.unflatten(dim, (num_columns, -1)).contiguous()  # (..., C, b, ...)
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own.detach())
    parts[dist.get_rank()] = own
    return torch.cat(parts, dim=dim + 1).flatten(dim, dim + 1)  # (..., C*W*b, ...)


def whole_gradient(loss: Tensor) -> Tensor:
    """The same value with W times the gradient.

    Each process differentiates the loss of the whole batch with respect to its own rows only, and the gradients are
    then averaged over the processes; their sum is wanted.
    """
    extra = world_size() - 1
    return loss + extra * (loss - loss.detach()) if extra else loss


def take_off_wrappers(module: nn.Module) -> dict[str, Any]:
    """Take off a module what accelerate has put around its forward, autocast, and give it, to be put on again."""
    return {name: vars(module).pop(name) for name in ("forward", "_original_forward") if name in vars(module)}


def check_processes(batch_size: int) -> None:
    """Refuse a batch that the processes of this run cannot share equally.

    Raises:
        ValueError: naming the batch size and the number of processes.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if batch_size % processes:
        raise ValueError(f"batch_size {batch_size} cannot be shared equally by {processes} processes")
