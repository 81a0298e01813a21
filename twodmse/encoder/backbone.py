"""The backbone: a stack of layers whose forward pass gives the pooled output of every layer; see `stack`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from twodmse.encoder.pooling import POOLINGS, pool
from twodmse.encoder.stack import (
    HEADS,
    cut,
    each_state,
    final_norm,
    first_output,
    in_this_thread,
    layer_path,
    layers_of,
)

__all__ = ["Backbone", "cut", "each_state", "final_norm", "layer_path", "layers_of"]


@contextmanager
def _looked_up(model: nn.Module, words: Tensor | None) -> Iterator[None]:
    """While this is open, ``model`` uses these word vectors (b, T, H) and not its own look-up; None changes nothing."""
    if words is None:
        yield
        return

    def replace(_: nn.Module, __: tuple, own: Tensor) -> Tensor:
        more = own.shape[1] - words.shape[1]  # a model may pad further by itself
        return torch.cat([words, own[:, -more:]], dim=1) if more else words

    hook = model.get_input_embeddings().register_forward_hook(in_this_thread(replace))
    try:
        yield
    finally:
        hook.remove()


def _last_output(model: nn.Module, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What the last layer of ``model`` gives for token ids (b, T): (b, T, H), before any final norm."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple, output: Any) -> None:
        kept.append(first_output(output))

    hook = layers_of(model)[-1].register_forward_hook(in_this_thread(keep))
    try:
        model(input_ids=ids, attention_mask=attention_mask)
    finally:
        hook.remove()
    return kept[-1][:, : ids.shape[1]]


class Backbone(nn.Module):
    """A transformers encoder whose forward pass gives the pooled output of every layer.

    Args:
        model: a transformers encoder with a list of layers. Its pooling head, if any, is dropped: no layer uses it.
        pooling: ``mean``, ``cls`` or ``last``.
        head: a linear module that pooled vectors go through, if there is one.
    """

    def __init__(self, model: nn.Module, pooling: str = "mean", head: nn.Linear | None = None) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
        for name in HEADS:
            if getattr(model, name, None) is not None:
                setattr(model, name, nn.Identity())  # some models call it, whatever it is
        self.model = model
        self.pooling = pooling
        self.head = head
        self.training = model.training  # a fresh module says it trains; this one is in the mode its model is in
        layers_of(model)  # raises now, not at the first text, where the layers cannot be found

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, first to last."""
        return layers_of(self.model)

    @property
    def num_layers(self) -> int:
        """N, the number of layers."""
        return len(self.layers)

    @property
    def width(self) -> int:
        """H, the width of token vectors."""
        return self.model.config.hidden_size

    @property
    def dim(self) -> int:
        """D, the width of every layer's pooled vectors."""
        return self.width if self.head is None else self.head.out_features

    def cut(self, n: int) -> "Backbone":
        """A view that runs the first ``n`` layers and shares every weight."""
        return Backbone(cut(self.model, n), self.pooling, self.head)

    def forward(self, chunks: list[dict[str, Tensor]], layers: Sequence[int] | None = None) -> Tensor:
        """Pooled states of the texts of all chunks, in the order given.

        Args:
            chunks: token batches, each with ``input_ids`` and ``attention_mask`` of its own shape (b, T), and a
                ``pooling_mask`` (b, T) where not all tokens are pooled; a large batch is split into chunks of like
                length so that little padding is computed.
            layers: the layers to keep, in rising order; None keeps all, 0..N.

        Returns:
            (N+1, B, D) float32, or one slice a layer kept; slice n is the output of layer n, slice 0 that of the
            embedding layer.
        """
        words = self._word_vectors(chunks) if torch.is_grad_enabled() else [None] * len(chunks)
        wanted = set(range(self.num_layers + 1) if layers is None else layers)
        states = [self._states(chunk, own, wanted) for chunk, own in zip(chunks, words, strict=True)]
        return torch.cat(states, dim=1)  # (N+1, B, D)

    def start(self, chunk: dict[str, Tensor], n: int) -> Tensor:
        """Token vectors after layer ``n`` of the texts of one chunk, for `resume` to go on from.

        Args:
            chunk: ``input_ids`` and ``attention_mask``, both (b, T).
            n: the layer to stop at, 1..N.

        Returns:
            (b, T, H), before the final norm of a pre-norm model.
        """
        return _last_output(cut(self.model, n), chunk["input_ids"], chunk["attention_mask"])

    def resume(self, hidden: Tensor, attention_mask: Tensor, n: int, last: int) -> Tensor:
        """Token vectors after layer ``last`` from those after layer ``n``: only the layers between are computed.

        Args:
            hidden: (b, T, H) as `start` gives them.
            attention_mask: (b, T).
            n: layers, 1 <= n <= last <= N.
            last: layers, 1 <= n <= last <= N.

        Returns:
            (b, T, H), before the final norm of a pre-norm model.

        Raises:
            ValueError: as `check_resumes`.
        """
        self.check_resumes(n, last)
        if n == last:
            return hidden
        view = cut(self.model, last, first=n)

        # The model makes its masks and positions from the shape of what it embeds; the embeddings are then replaced.
        def replace(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            hook.remove()  # a shared block comes by again
            return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

        hook = self.layers[n].register_forward_pre_hook(in_this_thread(replace), with_kwargs=True)
        try:
            return _last_output(view, torch.zeros_like(attention_mask), attention_mask)
        finally:
            hook.remove()

    def check_resumes(self, n: int, last: int) -> None:
        """Refuse to go on from layer ``n`` to layer ``last`` where later layers need what the first one computes.

        Raises:
            ValueError: if they do, as in T5.
        """
        if n < last and hasattr(self.model.config, "attention_window"):  # Longformer
            raise ValueError(f"{type(self.model).__name__} pads texts to its window: no pass can go on from layer {n}")
        first = self.layers[0].modules()
        if n < last and any(getattr(module, "has_relative_attention_bias", False) for module in first):
            raise ValueError(
                f"{type(self.model).__name__} makes its positions in layer 1: no pass can go on from layer {n}"
            )

    def pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector a text from token vectors (b, T, H) of any layer: (b, D) float32, as in a slice of `forward`."""
        return self.vectors(final_norm(self.model)(hidden), attention_mask)

    def vectors(self, hidden: Tensor, pooling_mask: Tensor) -> Tensor:
        """One vector a text from token vectors (b, T, H) that a final norm has seen: (b, D) float32."""
        vectors = pool(hidden[:, : pooling_mask.shape[1]], pooling_mask, self.pooling)  # (b, H)
        return vectors if self.head is None else self.head(vectors.to(self.head.weight.dtype)).float()  # (b, D)

    def _word_vectors(self, chunks: list[dict[str, Tensor]]) -> list[Tensor]:
        """Word vectors (b, T, H) of every chunk from one look-up.

        The gradient of a look-up is as large as the vocabulary: one of them a step, not one a chunk.
        """
        ids = [chunk["input_ids"] for chunk in chunks]
        flat = self.model.get_input_embeddings()(torch.cat([i.flatten() for i in ids]))  # (sum of b*T, H)
        parts = flat.split([i.numel() for i in ids])
        return [part.unflatten(0, i.shape) for part, i in zip(parts, ids, strict=True)]

    def _states(self, chunk: dict[str, Tensor], words: Tensor | None, wanted: set[int]) -> Tensor:
        pooled: list[Tensor] = []
        norm, mask = final_norm(self.model), chunk["attention_mask"]
        numbers = iter(range(self.num_layers + 1))

        def keep(hidden: Tensor) -> None:
            if next(numbers) in wanted:
                pooled.append(self.vectors(norm(hidden), chunk.get("pooling_mask", mask)))  # (b, D)

        with each_state(self.model, keep), _looked_up(self.model, words):
            self.model(input_ids=chunk["input_ids"], attention_mask=mask)
        return torch.stack(pooled)  # (N+1, b, D)
