"""Exporting: one cell as a model of its own, compared with the encoder before it appears.

Two formats. ``safetensors`` is a sentence-transformers folder. ``onnx`` is one file from token ids to the final vector,
with a tokenizer that cuts and pads by itself. A README.md (see `cards`) lies beside either.
"""

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twodmse.encoder.encoder import Encoder, quiet_transformers
from twodmse.encoder.pooling import pool
from twodmse.export.cards import CardFacts, check_grid_fits, find_origin, model_card
from twodmse.files import atomic_folder

WEIGHTS = {"safetensors": "model.safetensors", "onnx": "model.onnx"}  # format -> its weights file
TOLERANCE = {"safetensors": 1e-5, "onnx": 1e-4}  # largest difference of a coordinate: rounding in float32
OPSET = 17  # the first with layer norm as one operation; read by onnxruntime 1.12 and later
SAMPLES = (
    "Why?",
    "A man plays the guitar.",
    "Nobody is playing anything.",
    "The train was late again, so they walked.",
    "Shares fell by 3.5% on Monday, traders said; the bank's were not among them.",
    "HOW MUCH IS IT? 12 or 20 (with tax)?",
    "Der Zug hält heute nicht in Köln.",
    "She put the kettle on, opened the window, and listened to the rain until the water boiled.",
    "Water boils at a lower temperature on a mountain because the air presses less on it there.",
    " ".join(
        ["The river rose all night, and in the morning the bridge was closed to everything but people on foot."] * 4
    ),
    "the cat sat on the mat and " * 200,  # longer than encoders commonly read: it is cut
)


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    folder: Path
    layer: int
    dim: int
    size: int  # bytes of the weights file
    full_size: int  # bytes of the whole encoder's weights in float32
    difference: float  # largest difference of a coordinate from the encoder's vectors, before any quantisation
    cosines: np.ndarray | None  # (len(SAMPLES),) of the int8 vectors with the encoder's; None without int8


def export(
    encoder: Encoder,
    folder: str | Path,
    layer: int | None = None,
    dim: int | None = None,
    format: str = "safetensors",
    int8: bool = False,
    overwrite: bool = False,
    grid: pd.DataFrame | None = None,
) -> Exported:
    """Write the cell (layer, dim) of an encoder as a model of its own, with a model card.

    The folder appears only when what lies in it, loaded anew, has given the encoder's vectors for texts short and long:
    to 1e-5 from safetensors (by `Encoder.load`, and by sentence-transformers where that is installed), to 1e-4 from
    ONNX (by onnxruntime, from the folder's own tokenizer, in batches of one and of many).

    Args:
        encoder: the encoder.
        folder: where to write.
        layer: the cell; None is the largest.
        dim: the cell; None is the largest.
        format: ``safetensors`` or ``onnx``.
        int8: quantise the ONNX weights to 8 bits, after the check in float32; the result says what that moved.
        overwrite: replace an earlier export or model in ``folder``.
        grid: scores of the encoder for the card, columns task, layer, dim, spearman as `sts_grid` gives.

    Raises:
        ValueError: for a cell out of range, an unknown format, a grid of another model, an encoder that cannot be
            exported, or vectors that differ; nothing is written then.
        FileExistsError: if ``folder`` holds anything and ``overwrite`` is false, or holds anything but a model, or the
            weights that ``encoder`` was loaded from.
        FileNotFoundError: if a package that ONNX needs is not installed.
    """
    layer, dim = encoder.check_cell(layer, dim)
    check_request(encoder, format, int8, grid)
    check_export_folder(encoder, Path(folder), overwrite)
    cosines = None
    with atomic_folder(folder, overwrite) as work:
        small, texts = encoder.submodel(layer, dim), sample_texts(encoder)
        expected = encoder.encode(texts, layer, dim, progress=False)  # (n, d)
        if format == "safetensors":
            small.write(work)
            difference = check_safetensors(work, texts, expected)
        else:
            write_onnx(small, work)
            difference = check_onnx(work, texts, expected)
        if int8:
            quantise_weights(work / WEIGHTS["onnx"])
            cosines = check_int8(work, expected[: len(SAMPLES)])
        size = (work / WEIGHTS[format]).stat().st_size
        full_size = 4 * sum(p.numel() for p in encoder.backbone.parameters())
        facts = CardFacts(
            format, layer, dim, encoder.num_layers, encoder.dim, small.layout.pooling, small.layout.max_length,
            size, full_size, len(texts), difference, cosines,
        )  # fmt: skip
        card = model_card(facts, find_origin(source(encoder)), grid)
        (work / "README.md").write_text(card, encoding="utf-8")
    return Exported(Path(folder), layer, dim, size, full_size, difference, cosines)


def check_request(encoder: Encoder, format: str, int8: bool, grid: pd.DataFrame | None) -> None:
    """Refuse what cannot be exported, before any work; raises as `export`."""
    if format not in WEIGHTS:
        raise ValueError(f"unknown format {format!r}: choose one of {', '.join(WEIGHTS)}")
    if int8 and format != "onnx":
        raise ValueError(f"int8 needs the format onnx: {format} holds float32 weights")
    if grid is not None:
        check_grid_fits(grid, encoder.num_layers, encoder.dim)
    if format == "onnx":
        check_onnx_packages()
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
    """Refuse to replace a folder that holds anything but a model, or the very weights that are to be cut.

    Raises:
        FileExistsError: naming the folder. (Without ``overwrite``, `atomic_folder` refuses every used one.)
    """
    if not (overwrite and folder.is_dir() and any(folder.iterdir())):
        return
    loaded = Path(source(encoder)).resolve()
    if source(encoder) and loaded.is_relative_to(folder.resolve()):
        raise FileExistsError(f"{folder} holds the weights that are being exported: choose another folder")
    if not any((folder / name).is_file() for name in WEIGHTS.values()):
        raise FileExistsError(f"{folder} holds files but no model, so it is not replaced: choose another folder")


def source(encoder: Encoder) -> str:
    """The folder the encoder's weights were loaded from; empty for one made in memory."""
    return getattr(encoder.backbone.model.config, "_name_or_path", "") or ""


def sample_texts(encoder: Encoder) -> list[str]:
    """`SAMPLES`, then texts of the encoder's own vocabulary, whatever its language, the last longer than it reads."""
    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids)
    ids = [i for i in np.random.default_rng(0).permutation(len(tokenizer)) if i not in special]
    lengths = (1, 3, 10, 30, 2 * encoder.layout.max_length)
    own = [tokenizer.decode(np.resize(ids, length).tolist()) for length in lengths]
    return [*SAMPLES, *(text for text in own if text.strip())]


def require_equal(found: np.ndarray, expected: np.ndarray, texts: list[str], tolerance: float, reader: str) -> float:
    """The largest difference of a coordinate; both arrays are (n, d), row i that of ``texts[i]``.

    Raises:
        ValueError: if it is above ``tolerance`` or no number, or the shapes differ; says where and by how much.
    """
    if found.shape != expected.shape:
        raise ValueError(f"{reader} gives vectors of shape {found.shape}, not {expected.shape}: nothing was written")
    apart = np.abs(found - expected).max(axis=1)  # (n,)
    if not (apart <= tolerance).all():
        worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
        raise ValueError(
            f"{reader} gives other vectors than the encoder: they differ by {apart[worst]:.1e}, above {tolerance:.0e}, "
            f"for the text {texts[worst][:40]!r}; nothing was written"
        )
    return float(apart.max())


def check_safetensors(folder: Path, texts: list[str], expected: np.ndarray) -> float:
    """Load a folder anew, here and in sentence-transformers if that is installed, and compare; see `require_equal`."""
    limit = TOLERANCE["safetensors"]
    reloaded = Encoder.load(folder)
    largest = require_equal(reloaded.encode(texts, progress=False), expected, texts, limit, "twodmse")
    if importlib.util.find_spec("sentence_transformers") is None:
        return largest
    from sentence_transformers import SentenceTransformer

    with quiet_transformers():
        peer = SentenceTransformer(str(folder), device=str(next(reloaded.backbone.parameters()).device))
    found = peer.encode(texts, show_progress_bar=False)  # (n, d)
    return max(largest, require_equal(found, expected, texts, limit, "sentence-transformers"))


class Deployed(nn.Module):
    """What the ONNX file computes: token ids in, the final vector out."""

    def __init__(self, small: Encoder) -> None:
        super().__init__()
        self.model = small.backbone.model
        self.pooling, self.dim = small.layout.pooling, small.dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Both (B, T); the result is (B, d), each row of length 1."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, H)
        return F.normalize(pool(hidden, attention_mask, self.pooling)[:, : self.dim], dim=-1)  # (B, d)


def write_onnx(small: Encoder, folder: Path) -> None:
    """Write model.onnx, config.json and a tokenizer.json that cuts at the maximal length and pads.

    Raises:
        ValueError: if torch cannot express the model in ONNX.
    """
    from tokenizers import Tokenizer

    small.tokenizer.save_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own = small.tokenizer
    tokenizer.enable_truncation(small.layout.max_length, direction=own.truncation_side)
    tokenizer.enable_padding(direction=own.padding_side, pad_id=own.pad_token_id, pad_token=own.pad_token)
    tokenizer.save(str(folder / "tokenizer.json"))
    small.backbone.model.config.save_pretrained(folder)
    deployed = Deployed(small).cpu().eval()
    # Traced with padding in the batch: a batch without any would leave the mask out of the file.
    tokens = small.tokenise(["a", SAMPLES[7]], padding=True, return_tensors="pt")
    inputs = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "tokens"} for name in inputs} | {"sentence_embedding": {0: "batch"}}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, on branches that the check below covers
            torch.onnx.export(
                deployed, tuple(tokens[name] for name in inputs), str(folder / WEIGHTS["onnx"]), input_names=inputs,
                output_names=["sentence_embedding"], dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{type(small.backbone.model).__name__} cannot be written as ONNX: {reason}") from error


def onnx_vectors(folder: str | Path, texts: list[str], batch_size: int = 32) -> np.ndarray:
    """The vectors (n, d) that an exported ONNX folder gives, by onnxruntime and the folder's own tokenizer alone."""
    import onnxruntime
    from tokenizers import Tokenizer

    folder = Path(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / WEIGHTS["onnx"]), providers=["CPUExecutionProvider"])
    parts = []
    for start in range(0, len(texts), batch_size):
        tokens = tokenizer.encode_batch(texts[start : start + batch_size])
        ids = np.array([t.ids for t in tokens], dtype=np.int64)  # (b, T)
        mask = np.array([t.attention_mask for t in tokens], dtype=np.int64)  # (b, T)
        parts += session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})  # (b, d)
    return np.concatenate(parts)  # (n, d)


def check_onnx(folder: Path, texts: list[str], expected: np.ndarray) -> float:
    """Run model.onnx on texts one by one and all at once, and compare; see `require_equal`."""
    found = [onnx_vectors(folder, texts, size) for size in (1, len(texts))]
    return max(require_equal(f, expected, texts, TOLERANCE["onnx"], "onnxruntime") for f in found)


def quantise_weights(path: Path) -> None:
    """Replace an ONNX file by one with 8-bit weights; activations are quantised as it runs (dynamic quantisation).

    One scale a column of each weight matrix: of MiniLM at (6, 384), one a matrix costs three times as much cosine.
    Unsigned weights: products of signed ones overflow on processors without the newer 8-bit instructions (onnxruntime,
    "Quantize ONNX models", on U8S8).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready, small = path.with_suffix(".ready"), path.with_suffix(".int8")
    quant_pre_process(path, ready, skip_optimization=True, skip_symbolic_shape=True)
    quantize_dynamic(ready, small, per_channel=True, weight_type=QuantType.QUInt8)
    ready.unlink()
    small.replace(path)


def check_int8(folder: Path, expected: np.ndarray) -> np.ndarray:
    """Cosine (n,) of the quantised vectors of `SAMPLES` with the encoder's (n, d).

    Raises:
        ValueError: if one is no number: the file is useless.
    """
    found = onnx_vectors(folder, list(SAMPLES))  # (n, d)
    cosines = (found * expected).sum(axis=1)  # (n,), both of length 1
    if found.shape != expected.shape or not np.isfinite(cosines).all():
        raise ValueError("the quantised model gives vectors that are no numbers; nothing was written")
    return cosines
