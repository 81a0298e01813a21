"""Encoder: texts in, one vector a text for any cell (layer, dim) out."""

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BatchEncoding

from twodmse.checked import as_path
from twodmse.encoder.backbone import Backbone
from twodmse.encoder.hub import resolve
from twodmse.encoder.loading import (
    cell_wanted,
    check_placement,
    found_device,
    layers_wanted,
    load_parts,
    quiet_transformers,
    usable_length,
)
from twodmse.encoder.reading import as_texts, directions, normalise, padded, prompt_of, read_layers
from twodmse.encoder.settings import read_folder
from twodmse.encoder.storage import Layout, save_tokenizer, write_layout
from twodmse.encoder.trial import trial
from twodmse.files import atomic_folder

__all__ = ["Encoder", "normalise", "quiet_transformers"]


class Encoder:
    """A sentence encoder of which every cell (layer, dim) can be used.

    Args:
        model: a transformers encoder with a list of layers.
        tokenizer: its tokenizer.
        layout: pooling, maximal length in tokens, prompts, and the number of coordinates kept.
        head: a linear module that pooled vectors go through, if there is one.

    Raises:
        ValueError: if the model has no list of layers, or the layout does not fit it.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, layout: Layout = Layout(), head: nn.Linear | None = None
    ) -> None:
        self.backbone = Backbone(model, layout.pooling, head)
        self.tokenizer = tokenizer
        self.name: str | None = None
        self.dtype: torch.dtype | None = None
        if tokenizer.pad_token is None:  # padding is masked: any token serves
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        self.layout = layout._replace(
            max_length=usable_length(model, tokenizer, layout.max_length),
            dim=self.backbone.dim if layout.dim is None else layout.dim,
            prompts=dict(layout.prompts),  # of its own, and one that can be pickled
        )
        if head is not None and head.in_features != self.backbone.width:
            raise ValueError(f"the linear module takes {head.in_features} coordinates, not {self.backbone.width}")
        if layout.prompts.get(layout.default_prompt_name) and not layout.include_prompt:
            raise ValueError("a default prompt is pooled too (include_prompt): give it by prompt_name where it is not")
        if not 1 <= self.dim <= self.backbone.dim:
            raise ValueError(f"dim {self.dim} is out of range: this backbone has dims 1..{self.backbone.dim}")

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        pooling: str | None = None,
        max_length: int | None = None,
    ) -> "Encoder":
        """Load an encoder: ``bundled``, a hub id, or a folder (ours, sentence-transformers' or plain transformers').

        Only safetensors weights are read and no code from the model's repository is run. What the folder says of its
        vectors is applied or refused by name, and a trial shows that every layer is read rightly (see `trial`).

        Args:
            name: which model; ``owner/name@revision`` is one revision of a hub model.
            device: where it runs; None is the accelerator that torch finds (CUDA, MPS, XPU), else the CPU.
            dtype: of the weights. None keeps them in float32, and `encode` and `states` compute in half precision on
                an accelerator; float32 computes in float32 everywhere.
            pooling: overrides the pooling the folder asks for (``mean`` where it says nothing).
            max_length: overrides the folder's maximal length in tokens.

        Raises:
            FileNotFoundError: if there is no such model, it has no safetensors weights, or no hub answers.
            ValueError: if the model is damaged, cannot be cut in depth or asks for what twodmse does not do, or for a
                device that is not there or a dtype that weights cannot have.
        """
        check_placement(device, dtype)
        layout, weights, head = read_folder(resolve(name))
        layout = layout._replace(pooling=pooling or layout.pooling)
        layout = layout if max_length is None else layout._replace(max_length=max_length)
        model, tokenizer = load_parts(weights, name, layout.lower_case)
        encoder = cls(model.eval(), tokenizer, layout, head)
        encoder.name = str(name)
        encoder.to(found_device() if device is None else device)
        trial(encoder)
        return encoder if dtype is None else encoder.to(dtype=dtype)

    def __repr__(self) -> str:
        name, length = self.name or type(self.backbone.model).__name__, self.layout.max_length
        return (
            f"Encoder({name}: {self.num_layers} layers x {self.dim} dims, {self.layout.pooling} pooling, "
            f"{length} tokens, {self.device})"
        )

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "Encoder":
        """Move the weights to a device or into another dtype, in place; a ValueError names what is neither."""
        check_placement(device, dtype)
        self.backbone.to(device=device, dtype=dtype)
        self.dtype = self.dtype if dtype is None else dtype
        return self

    @property
    def num_layers(self) -> int:
        """N, the number of layers."""
        return self.backbone.num_layers

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    @property
    def dim(self) -> int:
        """The number of coordinates kept: D, or less for a sub-model."""
        return cast(int, self.layout.dim)  # since __init__

    @property
    def max_length(self) -> int:
        """The number of tokens read of a text; longer ones are cut."""
        return cast(int, self.layout.max_length)  # since __init__

    def check_cell(self, layer: int | None, dim: int | None) -> tuple[int, int]:
        """The cell, with None read as the largest.

        Raises:
            ValueError: if the layer is outside 1..N or the dim outside 1..D.
        """
        return cell_wanted(layer, dim, self.num_layers, self.dim)

    def states(
        self,
        texts: Sequence[str] | str,
        batch_size: int = 64,
        progress: bool | None = None,
        layers: Sequence[int] | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """The pooled output of layers, from one pass over the distinct texts.

        Args:
            texts: n texts, or one; a text that occurs twice is computed once.
            batch_size: texts a forward pass, taken in order of length so that little padding is computed.
            progress: show a progress bar; None shows one on long input.
            layers: L layers, 0..N, in any order; None is all of them. Only the largest and those below are computed.
            prompt: put before every text.
            prompt_name: the model's own prompt of that name; with neither, its default prompt if it has one.

        Returns:
            (N+1, n, D) float32, or (L, n, D) for ``layers``: raw (not normalised), in the order of ``texts``; layer 0
            is the embedding layer. Without the axis n for one text.

        Raises:
            ValueError: for an empty list, an item that is not a text or holds none (the item is named), a layer out of
                range, a batch size below 1, or vectors that are no numbers.
        """
        layers = layers_wanted(layers, self.num_layers)
        wanted = sorted(set(layers))
        given = as_texts([texts] if isinstance(texts, str) else texts)
        out = np.empty((len(wanted), len(given), self.dim), dtype=np.float32)

        def keep(rows: np.ndarray, states: np.ndarray) -> None:
            out[:, rows] = states[..., : self.dim]

        if wanted:
            read_layers(self, wanted, given, keep, batch_size, progress, prompt_of(self.layout, prompt, prompt_name))
        out = out if layers == wanted else out[[wanted.index(layer) for layer in layers]]
        return out[:, 0] if isinstance(texts, str) else out

    @overload
    def encode(
        self, texts: Sequence[str] | str, layer: int | None = None, dim: int | None = None, batch_size: int = 64,
        progress: bool | None = None, prompt: str | None = None, prompt_name: str | None = None, out: None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def encode(self, texts: Sequence[str] | str, *args: Any, out: str | Path, **options: Any) -> Path: ...

    def encode(
        self,
        texts: Sequence[str] | str,
        layer: int | None = None,
        dim: int | None = None,
        batch_size: int = 64,
        progress: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        out: str | Path | None = None,
    ) -> np.ndarray | Path:
        """The vectors of cell (layer, dim): run ``layer`` layers, keep ``dim`` coordinates, normalise.

        Only ``layer`` layers are computed and only ``dim`` coordinates are kept. The arguments are those of `states`;
        None means the largest. With ``out``, a new .npy or .parquet file, the vectors go there a part at a time and are
        never all in memory; a later call for the same texts goes on where one was stopped.

        Returns:
            (n, dim) float32, each row of length 1; (dim,) for one text. With ``out``, the file's path.

        Raises:
            ValueError: as `states`, for a layer or dim out of range, and for a vector of zeros, which has no direction.
            FileExistsError: if ``out`` is there already.
        """
        if out is not None:
            from twodmse.encoder.stored import encode_to

            options = {"batch_size": batch_size, "prompt": prompt, "prompt_name": prompt_name}
            return encode_to(self, texts, out, layer, dim, progress=progress, **options)
        layer, dim = self.check_cell(layer, dim)
        listed = as_texts([texts] if isinstance(texts, str) else texts)
        vectors = np.empty((len(listed), dim), dtype=np.float32)

        def keep(rows: np.ndarray, states: np.ndarray) -> None:
            vectors[rows] = directions(states[0, :, :dim], (layer, dim), rows)  # (b, d), cut before normalising

        read_layers(self, [layer], listed, keep, batch_size, progress, prompt_of(self.layout, prompt, prompt_name))
        return vectors[0] if isinstance(texts, str) else vectors

    def submodel(self, layer: int | None = None, dim: int | None = None) -> "Encoder":
        """An encoder of its own with the first ``layer`` layers and a ``dim``-wide output; saved, it is smaller.

        Raises:
            ValueError: for a layer or dim out of range.
        """
        layer, dim = self.check_cell(layer, dim)
        view = copy.deepcopy(self.backbone.cut(layer))
        small = Encoder(view.model.eval(), copy.deepcopy(self.tokenizer), self.layout._replace(dim=dim), view.head)
        small.dtype = self.dtype
        return small

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Save as a folder that `load` and sentence-transformers read, with the same vectors there in float32.

        Weights of half precision are stored as they are: `load` computes with them in float32 unless a dtype is given.
        The folder appears whole or not at all.

        Raises:
            FileExistsError: if the folder exists, is not empty and ``overwrite`` is false.
        """
        with atomic_folder(folder, overwrite) as work:
            self.write(work)
        return as_path(folder)

    def write(self, folder: Path) -> None:
        """Write weights, tokenizer and layout into an existing folder.

        Raises:
            OSError: if they cannot be written, for example because the disk is full.
        """
        try:
            with quiet_transformers():
                self.backbone.model.save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(
                f"the weights could not be written into {folder} ({error}): make room and try again"
            ) from error
        save_tokenizer(self.tokenizer, folder, self.layout.max_length)
        headed = "add_pooling_layer" in inspect.signature(type(self.backbone.model)).parameters
        write_layout(folder, self.layout, self.backbone.width, headed, self.backbone.head)
        for weights in folder.rglob("*.safetensors"):
            weights.chmod(0o644)  # safetensors writes files that their owner alone may read

    def tokenise(self, texts: Sequence[str], prompt: str | None = None, **options: Any) -> BatchEncoding:
        """``input_ids`` and ``attention_mask`` of texts, each after a prompt (None: the default), cut at the length."""
        prompt = prompt_of(self.layout, prompt, None)
        return self.tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            max_length=self.layout.max_length,
            return_token_type_ids=False,
            return_attention_mask=True,
            **options,
        )

    def batch(self, ids: Sequence[Sequence[int]], unpooled: int = 0) -> dict[str, Tensor]:
        """Token ids of b texts as a batch where the weights are, padded on the right: no token loses its position."""
        batch = padded(ids, self.tokenizer.pad_token_id, unpooled)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}
