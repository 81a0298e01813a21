"""Model folders written: the files beside the weights, in the sentence-transformers layout.

A folder this package writes is a sentence-transformers model: transformer, pooling, a linear module if the encoder has
one or keeps fewer coordinates than it has (then the first d rows of the identity), and normalisation. It loads there
and gives the same vectors. ``twodmse.json`` beside them says the same in this package's words, and what it wrote there.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from twodmse.files import MARK

OWN_CONFIG = MARK
MODULE = "sentence_transformers.models."
POOLING_NAMES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}  # ours -> sentence-transformers'


class Layout(NamedTuple):
    """How a folder's token vectors become sentence vectors."""

    pooling: str = "mean"
    max_length: int | None = None  # tokens; longer texts are cut. None: as the tokenizer and the model say
    dim: int | None = None  # coordinates kept; None keeps all
    prompts: Mapping[str, str] = MappingProxyType({})  # name -> what is put before each text
    default_prompt_name: str | None = None  # the prompt of a text for which none is asked
    include_prompt: bool = True  # whether the tokens of a prompt are pooled too
    lower_case: bool = False  # whether texts are lower-cased, whatever the tokenizer does


def write_layout(folder: Path, layout: Layout, width: int, headed: bool = False, head: nn.Linear | None = None) -> None:
    """Write the files that turn a transformers folder into a sentence-transformers one.

    Args:
        folder: holds the saved model and tokenizer.
        layout: pooling, length, prompts and the cut width.
        width: D, the width of the pooled token vectors.
        headed: whether the model's class adds a pooling head unless told not to. No vector needs it and none is saved:
            sentence-transformers is told, or it would report it missing and fill it with random numbers.
        head: the linear module after the pooling, if there is one.
    """
    dim = layout.dim or width
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    settings: dict[str, Any] = {"max_seq_length": layout.max_length, "do_lower_case": layout.lower_case}
    if headed:
        settings["model_args"] = {"add_pooling_layer": False}
    _write_json(folder / "sentence_bert_config.json", settings)
    pooling = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width}
        | {f"pooling_mode_{flag}": mode == layout.pooling for mode, flag in pooling.items()}
        | {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
        | ({} if layout.include_prompt else {"include_prompt": False}),
    )
    if head is not None or dim < width:
        modules.append(("2_Dense", "Dense"))
        _write_dense(folder / "2_Dense", torch.eye(dim, width) if head is None else head.weight[:dim], head)
    modules.append((f"{len(modules)}_Normalize", "Normalize"))
    (folder / modules[-1][0]).mkdir()
    listing = [{"idx": i, "name": str(i), "path": p, "type": MODULE + kind} for i, (p, kind) in enumerate(modules)]
    _write_json(folder / "modules.json", listing)
    whole: dict[str, Any] = {"similarity_fn_name": "cosine"}
    if layout.prompts:
        whole |= {"prompts": layout.prompts, "default_prompt_name": layout.default_prompt_name}
    _write_json(folder / "config_sentence_transformers.json", whole)
    write_own_config(folder, layout, width)


def write_own_config(folder: Path, layout: Layout, width: int) -> None:
    """Write the file that says how vectors are made here, by which a folder is known as one that this package wrote."""
    own = {"pooling": layout.pooling, "max_length": layout.max_length, "dim": layout.dim or width}
    _write_json(folder / OWN_CONFIG, own)


def _write_dense(folder: Path, weight: torch.Tensor, head: nn.Linear | None) -> None:
    """Write a linear module (d, D), with the bias of ``head`` if it has one."""
    bias = head.bias[: len(weight)] if head is not None and head.bias is not None else None
    activation = "torch.nn.modules.linear.Identity"
    settings = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    _write_json(folder / "config.json", settings | {"activation_function": activation})
    tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    save_file({k: v.detach().float().cpu().contiguous() for k, v in tensors.items()}, folder / "model.safetensors")


def save_tokenizer(tokenizer: Any, folder: Path, max_length: int) -> None:
    """Save a tokenizer that says the encoder's length in every file where readers look for it.

    It pads on the right, as `Encoder` does: where positions are counted from the left, padding there moves them.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length
    tokenizer.init_kwargs.pop("max_length", None)  # another number, in files of old versions
    # transformers saves only what the tokenizer was made with: a side that was set afterwards would be lost.
    tokenizer.init_kwargs |= {"padding_side": "right", "truncation_side": tokenizer.truncation_side}
    tokenizer.save_pretrained(folder)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
