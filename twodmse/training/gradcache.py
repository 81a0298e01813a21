"""Gradient caching: a batch of any size in the memory of one chunk, for any objective on the states of all layers.

Three passes (Gao et al., 2101.06983): every chunk forward without a graph, keeping its states; the objective on the
states of the whole batch and its gradient with respect to them; every chunk forward again, with the same dropout, and
backward from its share of that gradient. The states of all layers are one small tensor (N+1, B, D), so this works for
every recipe.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

Chunk = dict[str, Tensor]
M_MMAP_THRESHOLD, LARGE = -3, 2**19  # mallopt's number for it; bytes, fewer than a block of `mean_over_rows` has


def cached_step(
    backbone: nn.Module,
    chunks: list[Chunk],
    loss_of: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], None] = Tensor.backward,
    no_sync: Callable[[], AbstractContextManager] = nullcontext,
) -> Tensor:
    """Add the gradients of one step to the parameters, chunk by chunk.

    Args:
        backbone: maps a list of chunks to states (N+1, b, D); may be wrapped for distribution.
        chunks: the token batches.
        loss_of: the loss of states (N+1, B, D), the chunks' texts in order.
        backward: runs a backward pass.
        no_sync: holds back gradient averaging for all chunks but the last.

    Returns:
        The loss, detached. The gradients are those of one plain step on all chunks.
    """
    dice, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            dice.append(_rng_state(chunk))
            parts.append(backbone([chunk]))  # (N+1, b, D)
    sizes = [part.shape[1] for part in parts]
    states = torch.cat(parts, dim=1).requires_grad_()  # (N+1, B, D)
    del parts
    loss = loss_of(states)
    loss.backward()
    gradients = states.grad.split(sizes, dim=1)
    after = _rng_state(chunks[0])
    for i, (chunk, gradient) in enumerate(zip(chunks, gradients, strict=True)):
        _set_rng_state(dice[i])
        with nullcontext() if i == len(chunks) - 1 else no_sync():
            backward((backbone([chunk]) * gradient).sum())
    _set_rng_state(after)
    return loss.detach()


def return_large_blocks() -> None:
    """Have the C library give every large block of memory back to the system when it is freed, from now on.

    Left alone, glibc keeps freed blocks below a limit that it raises as it goes, and before version 2.38 often fails to
    use them again for aligned tensors: a step in chunks then ends up with the memory of one without. Other C libraries
    are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def _rng_state(chunk: Chunk) -> tuple[Tensor, torch.device, Tensor | None]:
    device = next(iter(chunk.values())).device
    own = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state()
    return torch.get_rng_state(), device, own


def _set_rng_state(state: tuple[Tensor, torch.device, Tensor | None]) -> None:
    everywhere, device, own = state
    torch.set_rng_state(everywhere)
    if own is not None:
        torch.get_device_module(device).set_rng_state(own)
