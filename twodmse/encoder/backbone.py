"""A transformers encoder seen as a stack of layers: read every layer in one pass, or cut it to n layers.

Post-norm encoders (BERT, RoBERTa, MPNet, DistilBERT) end each layer with a norm, so the output of layer n is what a
model cut to n layers gives. Pre-norm encoders (ModernBERT) apply one norm after the last layer; here it is applied to
the output of every layer, so that the same equality holds for them.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from twodmse.encoder.pooling import POOLINGS, pool

# Where known architectures keep their layers: BERT, RoBERTa, MPNet, ELECTRA; DistilBERT; ModernBERT and decoders.
LAYER_PATHS = ("encoder.layer", "transformer.layer", "layers", "encoder.layers")
FINAL_NORMS = ("final_norm", "norm", "final_layer_norm")


def layer_path(model: nn.Module) -> str:
    """The dotted path of the model's list of layers.

    Raises:
        ValueError: if the model keeps its layers in no known place.
    """
    for path in LAYER_PATHS:
        try:
            found = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList) and len(found):
            return path
    raise ValueError(
        f"{type(model).__name__} has no list of layers in a known place ({', '.join(LAYER_PATHS)}): "
        "twodmse works with encoders such as BERT, RoBERTa, MPNet, DistilBERT and ModernBERT"
    )


def final_norm(model: nn.Module) -> nn.Module:
    """The norm a pre-norm model applies after its last layer; the identity for a post-norm model."""
    parent = model.get_submodule(layer_path(model).rpartition(".")[0])
    found = (getattr(parent, name, None) for name in FINAL_NORMS)
    return next((norm for norm in found if isinstance(norm, nn.Module)), nn.Identity())


def cut(model: nn.Module, n: int, first: int = 0) -> nn.Module:
    """A view of ``model`` that runs its layers ``first`` + 1 to ``n`` and shares every weight with it.

    ``copy.deepcopy(cut(model, n))`` is a model of its own, with the other layers gone.
    """
    *parents, leaf = layer_path(model).split(".")
    layers = model.get_submodule(layer_path(model))
    view = _shallow(model)
    view.config = _cut_config(model.config, n, first)
    owner = view
    for name in parents:
        child = _shallow(getattr(owner, name))
        if hasattr(child, "config"):
            child.config = view.config
        setattr(owner, name, child)
        owner = child
    setattr(owner, leaf, nn.ModuleList(list(layers)[first:n]))
    return view


def _shallow(module: nn.Module) -> nn.Module:
    """A copy of a module that shares its children, parameters and buffers, but not the tables that name them."""
    twin = copy.copy(module)
    for table in ("_modules", "_parameters", "_buffers"):
        twin.__dict__[table] = dict(module.__dict__[table])
    return twin


def _cut_config(config: Any, n: int, first: int) -> Any:
    twin = copy.deepcopy(config)
    twin.num_hidden_layers = n - first  # DistilBERT maps this name to its own, n_layers
    if getattr(config, "layer_types", None):
        twin.layer_types = list(config.layer_types)[first:n]
    return twin


def _last_output(model: nn.Module, words: Tensor, attention_mask: Tensor) -> Tensor:
    """What the last layer of ``model`` gives for word vectors (b, T, H): (b, T, H), before any final norm."""
    kept: list[Tensor] = []
    last = model.get_submodule(layer_path(model))[-1]
    hook = last.register_forward_hook(lambda _, __, output: kept.append(_first(output)))
    try:
        model(inputs_embeds=words, attention_mask=attention_mask)
    finally:
        hook.remove()
    return kept[0]


@contextmanager
def each_state(model: nn.Module, keep: Callable[[Tensor], None]) -> Iterator[None]:
    """While this is open, hand the token vectors of every layer to ``keep`` as ``model`` computes them, layer 0 first.

    Args:
        model: a transformers encoder with a list of layers.
        keep: takes token vectors (b, T, H), before the final norm of a pre-norm model.
    """

    def before_first(_: nn.Module, args: tuple, kwargs: dict) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    def after_layer(_: nn.Module, __: tuple, output: Any) -> None:
        keep(_first(output))

    layers = model.get_submodule(layer_path(model))
    hooks = [layers[0].register_forward_pre_hook(before_first, with_kwargs=True)]
    hooks += [layer.register_forward_hook(after_layer) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(output: Any) -> Tensor:
    """The token vectors among what a layer returns."""
    return output[0] if isinstance(output, tuple) else output


class Backbone(nn.Module):
    """A transformers encoder whose forward pass gives the pooled output of every layer.

    Args:
        model: a transformers encoder with a list of layers. Its pooling head, if any, is dropped: no layer uses it.
        pooling: ``mean``, ``cls`` or ``last``.
    """

    def __init__(self, model: nn.Module, pooling: str = "mean") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.model = model
        self.pooling = pooling
        self.training = model.training  # a fresh module says it trains; this one is in the mode its model is in
        layer_path(model)  # raises now, not at the first text, where the layers cannot be found

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, first to last."""
        return self.model.get_submodule(layer_path(self.model))

    @property
    def num_layers(self) -> int:
        """N, the number of layers."""
        return len(self.layers)

    @property
    def dim(self) -> int:
        """D, the width of every layer."""
        return self.model.config.hidden_size

    def cut(self, n: int) -> "Backbone":
        """A view that runs the first ``n`` layers and shares every weight."""
        return Backbone(cut(self.model, n), self.pooling)

    def forward(self, chunks: list[dict[str, Tensor]]) -> Tensor:
        """Pooled states of the texts of all chunks, in the order given.

        Args:
            chunks: token batches, each with ``input_ids`` and ``attention_mask`` of its own shape (b, T); a large batch
                is split into chunks of like length so that little padding is computed.

        Returns:
            (N+1, B, D) float32; slice n is the output of layer n, slice 0 that of the embedding layer.
        """
        words = self._word_vectors(chunks)
        states = [self.read(c["attention_mask"], inputs_embeds=w) for w, c in zip(words, chunks, strict=True)]
        return torch.cat(states, dim=1)  # (N+1, B, D)

    def start(self, chunk: dict[str, Tensor], n: int) -> Tensor:
        """Token vectors after layer ``n`` of the texts of one chunk, for `resume` to go on from.

        Args:
            chunk: ``input_ids`` and ``attention_mask``, both (b, T).
            n: the layer to stop at, 1..N.

        Returns:
            (b, T, H), before the final norm of a pre-norm model.
        """
        view = cut(self.model, n)
        return _last_output(view, self._word_vectors([chunk])[0], chunk["attention_mask"])

    def resume(self, hidden: Tensor, attention_mask: Tensor, n: int, last: int) -> Tensor:
        """Token vectors after layer ``last`` from those after layer ``n``: only the layers between are computed.

        Args:
            hidden: (b, T, H) as `start` gives them.
            attention_mask: (b, T).
            n: layers, 1 <= n <= last <= N.
            last: layers, 1 <= n <= last <= N.

        Returns:
            (b, T, H), before the final norm of a pre-norm model.
        """
        if n == last:
            return hidden
        view = cut(self.model, last, first=n)

        # The model makes its masks and positions from the shape of what it embeds; the embeddings are then replaced.
        def replace(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

        hook = self.layers[n].register_forward_pre_hook(replace, with_kwargs=True)
        try:
            return _last_output(view, hidden, attention_mask)
        finally:
            hook.remove()

    def pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector a text from token vectors (b, T, H) of any layer: (b, D) float32, as in a slice of `forward`."""
        return pool(final_norm(self.model)(hidden), attention_mask, self.pooling)

    def _word_vectors(self, chunks: list[dict[str, Tensor]]) -> list[Tensor]:
        """Word vectors (b, T, H) of every chunk from one look-up.

        The gradient of a look-up is as large as the vocabulary: one of them a step, not one a chunk.
        """
        ids = [chunk["input_ids"] for chunk in chunks]
        flat = self.model.get_input_embeddings()(torch.cat([i.flatten() for i in ids]))  # (sum of b*T, H)
        parts = flat.split([i.numel() for i in ids])
        return [part.unflatten(0, i.shape) for part, i in zip(parts, ids, strict=True)]

    def read(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Pooled states of one padded batch.

        Args:
            attention_mask: (b, T).
            inputs: ``input_ids`` (b, T), or ``inputs_embeds`` (b, T, H), as the model takes them.

        Returns:
            (N+1, b, D) float32, as of `forward`.
        """
        pooled: list[Tensor] = []
        norm = final_norm(self.model)

        def keep(hidden: Tensor) -> None:
            pooled.append(pool(norm(hidden), attention_mask, self.pooling))  # (b, D)

        with each_state(self.model, keep):
            self.model(attention_mask=attention_mask, **inputs)
        return torch.stack(pooled)  # (N+1, b, D)
