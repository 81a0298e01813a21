"""The pooled states of every layer of a SentenceTransformer, from one pass of its own forward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from twodmse.encoder.backbone import each_state, final_norm, layers_of
from twodmse.encoder.pooling import pool
from twodmse.encoder.reading import evaluating

POOLINGS = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # their name -> ours


def unwrapped(model: nn.Module) -> SentenceTransformer:
    """The SentenceTransformer inside what a trainer wraps around it to distribute or compile it.

    Raises:
        TypeError: if there is none.
    """
    while not isinstance(model, SentenceTransformer):
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            raise TypeError(f"{type(model).__name__} is no SentenceTransformer: load the model with that class")
        model = inner
    return model


def check_model(model: nn.Module) -> tuple[int, int]:
    """N and D of a model that can be cut in depth and width.

    Raises:
        TypeError: for anything but a SentenceTransformer.
        ValueError: if it has a module besides Transformer, Pooling and Normalize, pools in another way than by mean,
            first or last token, leaves the prompt out of the pooling, has a truncate_dim, or keeps its layers in no
            known place.
    """
    modules = list(unwrapped(model))
    kinds = [type(module).__name__ for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Normalize"}:
        raise ValueError(
            f"this model has the modules {', '.join(kinds)}: cells need Transformer, Pooling and at most Normalize"
        )
    pooling_of(model)
    if not getattr(modules[1], "include_prompt", True):
        raise ValueError("this model pools without its prompt (include_prompt=False): set it to True to train cells")
    backbone = modules[0].auto_model
    width, kept = backbone.config.hidden_size, unwrapped(model).truncate_dim
    if kept is not None and kept < width:
        raise ValueError(f"this model keeps {kept} of its {width} dims: set its truncate_dim to None, cells have all")
    return len(layers_of(backbone)), width


def pooling_of(model: nn.Module) -> str:
    """How the model pools, in this package's word.

    Raises:
        ValueError: for a way that this package does not know.
    """
    module = unwrapped(model)[1]
    mode = module.pooling_mode if hasattr(module, "pooling_mode") else module.get_pooling_mode_str()
    if mode not in POOLINGS:
        raise ValueError(f"this model pools by {mode!r}: cells need one of {', '.join(POOLINGS)}")
    return POOLINGS[mode]


def layer_states(model: nn.Module, features: dict[str, Any]) -> Tensor:
    """The pooled states of every layer, from one forward pass.

    Args:
        model: a SentenceTransformer that `check_model` accepts, or one wrapped by a trainer.
        features: ``input_ids`` and ``attention_mask``, both (B, T), as the model's own preprocessing gives them.

    Returns:
        (N+1, B, D) float32, raw (not normalised); slice n is the output of layer n, slice 0 that of the embedding
        layer. A pre-norm backbone's final norm is applied to every layer.

    Raises:
        ValueError: if the texts are packed into one row without padding.
    """
    if "cu_seq_lens_q" in features:
        raise ValueError("the texts are packed into one row without padding: set model[0].unpad_inputs = False")
    backbone = unwrapped(model)[0].auto_model
    norm, mode, mask = final_norm(backbone), pooling_of(model), features["attention_mask"]
    hidden: list[Tensor] = []  # pooled after the pass: a layer computed again for its gradient has no hooks then
    with each_state(backbone, hidden.append):
        model(dict(features))
    return torch.stack([pool(norm(tokens), mask, mode) for tokens in hidden])


def stack_columns(columns: Sequence[dict[str, Any]], padding_side: str = "right") -> dict[str, Tensor]:
    """The tokens of all columns as one batch, column after column, padded to one length.

    Args:
        columns: one dictionary a column, each with tensors (b, T) of its own T.
        padding_side: right or left.

    Returns:
        The tensors (C*b, T) that the columns have of input_ids, attention_mask and token_type_ids.
    """
    length = max(column["input_ids"].shape[1] for column in columns)
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in columns[0]]

    def padded(tokens: Tensor) -> Tensor:  # what stands in a place that the mask leaves out does not matter
        missing = length - tokens.shape[1]
        return F.pad(tokens, (missing, 0) if padding_side == "left" else (0, missing))

    return {name: torch.cat([padded(column[name]) for column in columns]) for name in names}


def parts_by_length(
    features: dict[str, Tensor], parts: int, padding_side: str = "right"
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """The tokens of a batch in parts, the longest texts first, each padded to its own longest text alone.

    Args:
        features: tensors (B, T), ``attention_mask`` among them.
        parts: how many.
        padding_side: right or left.

    Returns:
        The parts, and (B,) the place of each text among them.
    """
    if parts == 1:
        return [features], torch.arange(len(features["input_ids"]))
    lengths = features["attention_mask"].sum(dim=1)  # (B,)
    order = lengths.argsort(descending=True, stable=True)  # (B,)
    cut = []
    for rows in order.chunk(parts):
        longest = int(lengths[rows[0]])
        kept = slice(-longest, None) if padding_side == "left" else slice(longest)
        cut.append({name: tokens[rows, kept] for name, tokens in features.items()})
    return cut, order.argsort()


def preprocess(model: SentenceTransformer, texts: list[str]) -> dict[str, Any]:
    """Tokens of texts on the model's device, by its own preprocessing."""
    features = model.preprocess(texts) if hasattr(model, "preprocess") else model.tokenize(texts)
    return {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in features.items()}


class LayerReader:
    """Reads the states of a SentenceTransformer for texts, as `Encoder.states` does for an encoder.

    Args:
        model: a SentenceTransformer that `check_model` accepts.
        batch_size: texts a forward pass.
    """

    def __init__(self, model: SentenceTransformer, batch_size: int = 64) -> None:
        self.model, self.batch_size = model, batch_size
        self.num_layers, self.dim = check_model(model)

    def states(self, texts: Sequence[str], layers: Sequence[int] | None = None) -> np.ndarray:
        """The pooled states of n texts, each with the model's default prompt before it; all layers are computed.

        Args:
            texts: n texts.
            layers: L of the layers, 0..N; None is all of them.

        Returns:
            (N+1, n, D) float32, or (L, n, D) for ``layers``.
        """
        layers = list(range(self.num_layers + 1) if layers is None else layers)
        prompt = self.model.prompts.get(self.model.default_prompt_name) or ""
        out = np.empty((len(layers), len(texts), self.dim), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        with torch.inference_mode(), evaluating(self.model):
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                features = preprocess(self.model, [prompt + texts[i] for i in rows])
                out[:, rows] = layer_states(self.model, features)[layers].cpu().numpy()  # (L, b, D)
        return out
