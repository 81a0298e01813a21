"""A transformers encoder seen as a stack of layers: read every layer in one pass, or cut it to n layers.

Post-norm encoders (BERT, RoBERTa, MPNet, DistilBERT) end each layer with a norm, so the output of layer n is what a
model cut to n layers gives. Pre-norm encoders (ModernBERT, T5, decoders) apply one norm after the last layer; here it
is applied to the output of every layer, so that the same equality holds for them. ALBERT runs one block N times: each
time is a layer. `trial` checks that the equality does hold for a model at hand.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

# Where known architectures keep their layers: BERT, RoBERTa, MPNet, ELECTRA; DistilBERT; ModernBERT and decoders;
# text towers; T5; GPT-2, BLOOM, Falcon; OPT.
LAYER_PATHS = ("encoder.layer", "transformer.layer", "layers", "encoder.layers", "encoder.block", "h", "decoder.layers")
HEADS = ("pooler", "contact_head")  # on top of the layers: no layer uses them
SHARED_BLOCK = "encoder.albert_layer_groups"
# The norm after the last layer, beside the layers or at the top.
FINAL_NORMS = (
    "final_norm", "norm", "final_layer_norm", "ln_f", "norm_f", "ln", "final_layernorm", "embedding_norm",
    "emb_layer_norm_after",
)  # fmt: skip
TOP_NORMS = ("final_layer_norm", "LayerNorm")
LISTS_OF_LAYERS = (
    "layer_types",
    "mlp_layer_types",
    "attention_window",
    "no_rope_layers",
)  # in a config: one each layer


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


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers, first to last; a block that is shared by all stands in every place.

    Raises:
        ValueError: as `layer_path`, and for several shared blocks.
    """
    try:
        blocks = model.get_submodule(SHARED_BLOCK)
    except AttributeError:
        return list(model.get_submodule(layer_path(model)))
    if len(blocks) != 1:
        raise ValueError(
            f"{type(model).__name__} shares {len(blocks)} blocks among its layers: it cannot be cut in depth"
        )
    return [blocks[0]] * model.config.num_hidden_layers


def final_norm(model: nn.Module) -> nn.Module:
    """The norm a pre-norm model applies after its last layer; the identity for a post-norm model."""
    if not hasattr(model, "config") or _is_shared(model):
        return nn.Identity()
    parent = model.get_submodule(layer_path(model).rpartition(".")[0])
    places = [(parent, name) for name in FINAL_NORMS] + [(model, name) for name in TOP_NORMS]
    found = (getattr(place, name, None) for place, name in places)
    return next((norm for norm in found if isinstance(norm, nn.Module)), nn.Identity())


def _is_shared(model: nn.Module) -> bool:
    return hasattr(getattr(model, "encoder", None), SHARED_BLOCK.rpartition(".")[2])


def cut(model: nn.Module, n: int, first: int = 0) -> nn.Module:
    """A view of ``model`` that runs its layers ``first`` + 1 to ``n`` and shares every weight with it.

    ``copy.deepcopy(cut(model, n))`` is a model of its own, with the other layers gone.
    """
    shared = _is_shared(model)
    *parents, leaf = (SHARED_BLOCK if shared else layer_path(model)).split(".")
    view = _shallow(model)
    view.config = _cut_config(model.config, n, first)
    owner = view
    for name in parents:
        child = _shallow(getattr(owner, name))
        if hasattr(child, "config"):
            child.config = view.config
        setattr(owner, name, child)
        owner = child
    if not shared:
        setattr(owner, leaf, nn.ModuleList(layers_of(model)[first:n]))
    return view


def _shallow(module: nn.Module) -> nn.Module:
    """A copy of a module that shares its children, parameters and buffers, but not the tables that name them."""
    twin = copy.copy(module)
    for table in ("_modules", "_parameters", "_buffers"):
        twin.__dict__[table] = dict(module.__dict__[table])
    return twin


def _cut_config(config: Any, n: int, first: int) -> Any:
    layers, twin = config.num_hidden_layers, copy.deepcopy(config)
    twin.num_hidden_layers = n - first  # DistilBERT maps this name to its own, n_layers
    for name in LISTS_OF_LAYERS:
        values = getattr(config, name, None)
        if isinstance(values, list) and len(values) == layers:
            setattr(twin, name, values[first:n])
    return twin


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, deaf to the passes of other threads: an encoder may serve several at once."""
    mine = threading.get_ident()

    def hear(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == mine else None

    return hear


@contextmanager
def each_state(model: nn.Module, keep: Callable[[Tensor], None]) -> Iterator[None]:
    """While this is open, hand the token vectors of every layer to ``keep`` as ``model`` computes them, layer 0 first.

    Only of passes of this thread.

    Args:
        model: a transformers encoder with a list of layers.
        keep: takes token vectors (b, T, H), before the final norm of a pre-norm model.
    """
    started = False

    def before_first(_: nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal started
        if not started:  # a shared block comes by once a layer
            keep(args[0] if args else kwargs["hidden_states"])
        started = True

    def after_layer(_: nn.Module, __: tuple, output: Any) -> None:
        keep(first_output(output))

    layers = layers_of(model)
    hooks = [layers[0].register_forward_pre_hook(in_this_thread(before_first), with_kwargs=True)]
    hooks += [layer.register_forward_hook(in_this_thread(after_layer)) for layer in dict.fromkeys(layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def first_output(output: Any) -> Tensor:
    """The token vectors among what a layer returns."""
    return output[0] if isinstance(output, tuple) else output
