"""Encoder: texts in, one vector a text for any cell (layer, dim) out."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from twodmse.encoder.backbone import Backbone
from twodmse.encoder.storage import Layout, read_layout, resolve, write_layout
from twodmse.files import atomic_folder

PROGRESS_FROM = 2000  # distinct texts from which on a progress bar is shown


class Encoder:
    """A sentence encoder of which every cell (layer, dim) can be used.

    Args:
        model: a transformers encoder with a list of layers.
        tokenizer: its fast tokenizer.
        layout: pooling, maximal length in tokens, and the number of coordinates kept.

    Raises:
        ValueError: if the model has no list of layers, or the layout does not fit it.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: Any, layout: Layout = Layout()) -> None:
        self.backbone = Backbone(model, layout.pooling)
        self.tokenizer = tokenizer
        positions = getattr(model.config, "max_position_embeddings", None) or layout.max_length
        self.layout = layout._replace(
            max_length=min(layout.max_length, positions, tokenizer.model_max_length),
            dim=self.backbone.dim if layout.dim is None else layout.dim,
        )
        if not 1 <= self.dim <= self.backbone.dim:
            raise ValueError(f"dim {self.dim} is out of range: this backbone has dims 1..{self.backbone.dim}")

    @classmethod
    def load(cls, name: str | Path, *, pooling: str | None = None, max_length: int | None = None) -> "Encoder":
        """Load an encoder: ``bundled``, a hub id, or a folder (ours, sentence-transformers' or plain transformers').

        Only safetensors weights are read and no code from the model's repository is run.

        Args:
            name: which model.
            pooling: overrides the pooling the folder asks for (``mean`` where it says nothing).
            max_length: overrides the folder's maximal length in tokens (128 where it says nothing).

        Raises:
            FileNotFoundError: if there is no such model, it has no safetensors weights, or no hub can be reached.
            ValueError: if the model is of a kind that cannot be cut in depth.
        """
        folder = resolve(str(name))
        if not any(folder.glob("model*.safetensors")):
            raise FileNotFoundError(f"{name} has no model.safetensors: twodmse reads safetensors weights only")
        layout = read_layout(folder)
        layout = layout._replace(pooling=pooling or layout.pooling, max_length=max_length or layout.max_length)
        model, tokenizer = _load_parts(folder, name)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device).eval(), tokenizer, layout)

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
        return self.layout.dim

    def check_cell(self, layer: int | None, dim: int | None) -> tuple[int, int]:
        """The cell, with None read as the largest.

        Raises:
            ValueError: if the layer is outside 1..N or the dim outside 1..D.
        """
        layer = self.num_layers if layer is None else layer
        dim = self.dim if dim is None else dim
        for word, value, most in (("layer", layer, self.num_layers), ("dim", dim, self.dim)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= most:
                raise ValueError(f"{word} {value!r} is out of range: this encoder has {word}s 1..{most}")
        return int(layer), int(dim)

    def states(self, texts: Sequence[str], batch_size: int = 64, progress: bool | None = None) -> np.ndarray:
        """The pooled output of every layer, from one pass over the distinct texts.

        Args:
            texts: n texts; a text that occurs twice is computed once.
            batch_size: texts a forward pass, taken in order of length so that little padding is computed.
            progress: show a progress bar; None shows one on long input.

        Returns:
            (N+1, n, D) float32, raw (not normalised), in the order of ``texts``; layer 0 is the embedding layer.

        Raises:
            ValueError: for an empty list, or an item that is not a text or holds none; the item is named.
        """
        return self._states(self.backbone, texts, batch_size, progress)[..., : self.dim]

    def encode(
        self,
        texts: Sequence[str],
        layer: int | None = None,
        dim: int | None = None,
        batch_size: int = 64,
        progress: bool | None = None,
    ) -> np.ndarray:
        """The vectors of cell (layer, dim): run ``layer`` layers, keep ``dim`` coordinates, normalise.

        Only ``layer`` layers are computed. The arguments are those of `states`; None means the largest.

        Returns:
            (n, dim) float32, each row of length 1.

        Raises:
            ValueError: as `states`, and for a layer or dim out of range.
        """
        layer, dim = self.check_cell(layer, dim)
        backbone = self.backbone if layer == self.num_layers else self.backbone.cut(layer)
        vectors = self._states(backbone, texts, batch_size, progress)[-1, :, :dim]  # (n, d), cut before normalising
        return normalise(vectors)

    def submodel(self, layer: int | None = None, dim: int | None = None) -> "Encoder":
        """An encoder of its own with the first ``layer`` layers and a ``dim``-wide output; saved, it is smaller.

        Raises:
            ValueError: for a layer or dim out of range.
        """
        layer, dim = self.check_cell(layer, dim)
        model = copy.deepcopy(self.backbone.cut(layer).model)
        return Encoder(model.eval(), self.tokenizer, self.layout._replace(dim=dim))

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Save as a folder that `load` and sentence-transformers read, with the same vectors there.

        The folder appears whole or not at all.

        Raises:
            FileExistsError: if the folder exists, is not empty and ``overwrite`` is false.
        """
        with atomic_folder(folder, overwrite) as work:
            self.write(work)
        return Path(folder)

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
        self.tokenizer.save_pretrained(folder)
        headed = "add_pooling_layer" in inspect.signature(type(self.backbone.model)).parameters
        write_layout(folder, self.layout, self.backbone.dim, headed)
        for weights in folder.rglob("*.safetensors"):
            weights.chmod(0o644)  # safetensors writes files that their owner alone may read

    def tokenise(self, texts: Sequence[str], **options: Any) -> dict[str, Any]:
        """``input_ids`` and ``attention_mask`` of texts, cut at the encoder's maximal length."""
        return self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.layout.max_length,
            return_token_type_ids=False,
            return_attention_mask=True,
            **options,
        )

    def _states(self, backbone: Backbone, texts: Sequence[str], batch_size: int, progress: bool | None) -> np.ndarray:
        check_texts(texts)
        distinct = list(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(distinct)}
        tokens = self.tokenise(distinct)["input_ids"]
        order = sorted(range(len(distinct)), key=lambda i: -len(tokens[i]))  # longest first: memory peaks at once
        out = np.empty((backbone.num_layers + 1, len(distinct), backbone.dim), dtype=np.float32)
        show = len(distinct) >= PROGRESS_FROM if progress is None else progress
        was_training = backbone.training
        backbone.eval()
        with torch.inference_mode(), tqdm(total=len(distinct), desc="encode", unit="text", disable=not show) as bar:
            for rows in _batches(order, batch_size):
                chunk = self.tokenizer.pad({"input_ids": [tokens[i] for i in rows]}, return_tensors="pt").to(
                    self.device
                )
                out[:, rows] = backbone([dict(chunk)]).cpu().numpy()  # (N+1, b, D)
                bar.update(len(rows))
        backbone.train(was_training)
        if len(distinct) == len(texts):
            return out
        return out[:, [place[text] for text in texts]]


def _load_parts(folder: Path, name: str | Path) -> tuple[torch.nn.Module, Any]:
    """Model and tokenizer of a folder, refusing weights that do not fill the model its config describes."""
    settings = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, **settings)
            model, report = AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **settings
            )
    except Exception as error:  # transformers raises many kinds for a damaged folder
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{name} could not be loaded as a transformers encoder: {reason}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} weights that its config.json asks for (first: {missing[0]}): "
            "they would be filled with random numbers; the folder is damaged or its config was not cut with its layers"
        )
    return model, tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bars and load reports, and restore its settings afterwards."""
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Scale the last axis to length 1; a zero vector stays zero. Any shape (..., d) in, the same out."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse input that cannot be encoded.

    Raises:
        ValueError: for a single string, an empty list, or an item that is not a text or holds none.
    """
    if isinstance(texts, str):
        raise ValueError(f"texts must be a list of texts, not one text: write [{texts[:40]!r}]")
    if len(texts) == 0:
        raise ValueError("texts is empty: give at least one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}] is {text!r} ({type(text).__name__}): every item must be a string")
        if not text.strip():
            raise ValueError(f"texts[{i}] is {text!r}: a text must hold at least one character that is not a space")


def _batches(order: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
