"""Exporting: one cell as a model of its own, compared with the encoder before it appears.

Two formats. ``safetensors`` is a sentence-transformers folder. ``onnx`` is a file from token ids to the final vector,
or to the states of all layers, in a folder that the readers of ONNX open as it is (see `onnx`). A README.md (see
`cards`) lies beside either.
"""

import copy
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from twodmse.checked import as_path
from twodmse.encoder.encoder import Encoder, quiet_transformers
from twodmse.encoder.loading import check_encoder
from twodmse.encoder.storage import write_own_config
from twodmse.export.cards import CardFacts, find_origin, model_card
from twodmse.export.onnx import MODEL, QUANTISED, check_int8, check_onnx, closing_token, quantise_weights, write_onnx
from twodmse.export.samples import SAMPLES, TOLERANCE, require_equal, sample_texts
from twodmse.export.scores import check_grid_fits
from twodmse.files import atomic_folder

WEIGHTS = {"safetensors": "model.safetensors", "onnx": MODEL}  # format -> its weights file


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    folder: Path
    layer: int
    dim: int
    size: int  # bytes of the weights file: with int8, of the quantised one
    full_size: int  # bytes of the whole encoder's weights in float32
    difference: float  # largest difference of a coordinate from the encoder's vectors, before any quantisation
    cosines: (
        np.ndarray | None
    )  # of the int8 vectors of `SAMPLES` with the encoder's, as `check_int8`; None without int8


def export(
    encoder: Encoder,
    folder: str | Path,
    layer: int | None = None,
    dim: int | None = None,
    format: str = "safetensors",
    int8: bool = False,
    overwrite: bool = False,
    grid: pd.DataFrame | None = None,
    all_layers: bool = False,
) -> Exported:
    """Write the cell (layer, dim) of an encoder as a model of its own, with a model card.

    The folder appears only when what lies in it, loaded anew, has given the encoder's vectors for texts short and long:
    to 1e-5 from safetensors (by `Encoder.load`, and by sentence-transformers where that is installed), to 1e-4 from
    ONNX (by onnxruntime, from the folder's own tokenizer, in batches of one and of many).

    An ONNX file of all layers, ``all_layers``, is one from which a page or a service takes every cell:

    - inputs ``input_ids`` and ``attention_mask``, (B, T) int64 each, cut at the maximal length, with padding where rows
      differ: the folder's tokenizer gives both (and maybe token_type_ids, which the file does not take). Of a text that
      transformers.js cut, the closing token must be put back first, as the card shows.
    - output ``states``, (N+1, B, D) float32: the pooled output of layer n at n, that of the embedding layer at 0, raw
      as from `Encoder.states`. Cell (n, d) is ``states[n, :, :d]``, each row divided by its length.

    With ``layer`` or ``dim`` given it holds the layers up to that one, and as many coordinates.

    Args:
        encoder: the encoder.
        folder: where to write.
        layer: the cell; None is the largest.
        dim: the cell; None is the largest.
        format: ``safetensors`` or ``onnx``.
        int8: write a second ONNX file with 8-bit weights, after the check in float32; the result says what that moved.
        overwrite: replace an earlier export or model in ``folder``.
        grid: scores of the encoder for the card, columns task, layer, dim, spearman as `sts_grid` gives.
        all_layers: write the states of layers 0 to ``layer`` in place of the vectors of one cell; ONNX only.

    Raises:
        ValueError: for what is no encoder, a cell out of range, an unknown format, a grid of another model, an encoder
            that cannot be exported, what is no path, or vectors that differ; nothing is written then.
        FileExistsError: if ``folder`` holds anything and ``overwrite`` is false, or holds anything but a model, or the
            weights that ``encoder`` was loaded from.
        FileNotFoundError: if a package that ONNX needs is not installed.
    """
    folder = as_path(folder)
    check_request(encoder, format, int8, grid, all_layers)
    encoder = in_float32(encoder)
    layer, dim = encoder.check_cell(layer, dim)
    check_export_folder(encoder, folder, overwrite)
    cosines = None
    with atomic_folder(folder, overwrite) as work:
        small, texts = encoder.submodel(layer, dim), sample_texts(encoder)
        if all_layers:
            expected = encoder.states(texts, progress=False)[: layer + 1, :, :dim]  # (N+1, n, D)
        else:
            expected = encoder.encode(texts, layer, dim, progress=False)  # (n, d)
        if format == "safetensors":
            small.write(work)
            difference = check_safetensors(work, texts, expected)
        else:
            write_onnx(small, work, all_layers)
            write_own_config(work, small.layout, encoder.backbone.dim)
            difference = check_onnx(work, texts, expected)
        if int8:
            quantise_weights(work)
            cosines = check_int8(work, expected[..., : len(SAMPLES), :])
        size = (work / (QUANTISED if int8 else WEIGHTS[format])).stat().st_size
        full_size = 4 * sum(p.numel() for p in encoder.backbone.parameters())
        facts = CardFacts(
            format, layer, dim, encoder.num_layers, encoder.dim, small.layout.pooling, small.layout.max_length,
            size, full_size, len(texts), difference, cosines, all_layers,
            closing_token(encoder), encoder.tokenizer.truncation_side,
        )  # fmt: skip
        card = model_card(facts, find_origin(source(encoder)), grid)
        (work / "README.md").write_text(card, encoding="utf-8")
    return Exported(folder, layer, dim, size, full_size, difference, cosines)


def in_float32(encoder: Encoder) -> Encoder:
    """The same encoder, computing in float32 on an accelerator too, as the readers do that it is compared with."""
    precise = copy.copy(encoder)
    precise.dtype = torch.float32
    return precise


def check_request(encoder: Encoder, format: str, int8: bool, grid: pd.DataFrame | None, all_layers: bool) -> None:
    """Refuse what cannot be exported, before any work; raises as `export`."""
    check_encoder(encoder)
    if encoder.dtype not in (None, torch.float32):
        raise ValueError(
            f"an export is compared in float32, and the encoder is in {encoder.dtype}: load it without dtype"
        )
    if format not in WEIGHTS:
        raise ValueError(f"unknown format {format!r}: choose one of {', '.join(WEIGHTS)}")
    if int8 and format != "onnx":
        raise ValueError(f"int8 needs the format onnx: {format} holds float32 weights")
    if all_layers and format != "onnx":
        raise ValueError(f"all layers in one file need the format onnx: from {format} Encoder.states gives them")
    if grid is not None:
        check_grid_fits(grid, encoder.num_layers, encoder.dim)
    if format == "onnx":
        check_onnx_packages()
        if encoder.layout.default_prompt_name:
            raise ValueError(
                f"an ONNX file cannot put the prompt {encoder.layout.default_prompt_name!r} before texts: "
                "export it as safetensors, or take default_prompt_name out of config_sentence_transformers.json"
            )
        if not encoder.tokenizer.is_fast:
            raise ValueError(f"{type(encoder.tokenizer).__name__} has no tokenizer.json: ONNX needs a fast tokenizer")


def check_onnx_packages() -> None:
    """Refuse an ONNX export where its packages are missing.

    Raises:
        FileNotFoundError: with the command that installs them.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise FileNotFoundError(f"{' and '.join(missing)} not installed: pip install 'twodmse[onnx]'")


def check_export_folder(encoder: Encoder, folder: Path, overwrite: bool) -> None:
    """Refuse to replace the very weights that are to be cut.

    Raises:
        FileExistsError: naming the folder. (Without ``overwrite``, `atomic_folder` refuses every used one.)
    """
    if not (overwrite and folder.is_dir() and any(folder.iterdir())):
        return
    loaded = Path(source(encoder)).resolve()
    if source(encoder) and loaded.is_relative_to(folder.resolve()):
        raise FileExistsError(f"{folder} holds the weights that are being exported: choose another folder")


def source(encoder: Encoder) -> str:
    """The folder the encoder's weights were loaded from; empty for one made in memory."""
    return getattr(encoder.backbone.model.config, "_name_or_path", "") or ""


def check_safetensors(folder: Path, texts: list[str], expected: np.ndarray) -> float:
    """Load a folder anew, here and in sentence-transformers if that is installed, and compare; see `require_equal`."""
    limit = TOLERANCE["safetensors"]
    reloaded = Encoder.load(folder, dtype=torch.float32)
    largest = require_equal(reloaded.encode(texts, progress=False), expected, texts, limit, "twodmse")
    if importlib.util.find_spec("sentence_transformers") is None:
        return largest
    from sentence_transformers import SentenceTransformer

    with quiet_transformers():
        peer = SentenceTransformer(str(folder), device=str(next(reloaded.backbone.parameters()).device))
    found = peer.encode(texts, show_progress_bar=False)  # (n, d)
    return max(largest, require_equal(found, expected, texts, limit, "sentence-transformers"))
