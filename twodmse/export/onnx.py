"""ONNX: a model as one file that starts from token ids, in the folder layout that its readers look for.

    folder/onnx/model.onnx             float32
    folder/onnx/model_quantized.onnx   8-bit weights, where asked for; transformers.js calls it q8
    folder/tokenizer.json ...          cuts and pads by itself; every file here names one maximal length
    folder/modules.json ...            what sentence-transformers does after the file: pool and scale

A cell's file takes ``input_ids`` and ``attention_mask``, both (B, T) int64, and gives ``last_hidden_state`` (B, T, d)
and ``sentence_embedding`` (B, d): readers that pool by themselves use the first, all others the second. The file of all
layers takes the same and gives ``states`` (N+1, B, D), as `Encoder.states` does.
"""

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twodmse.checked import as_path
from twodmse.encoder.encoder import Encoder, normalise
from twodmse.encoder.pooling import pool
from twodmse.encoder.storage import save_tokenizer, write_layout
from twodmse.export.samples import SAMPLES, TOLERANCE, require_equal

MODEL, QUANTISED = "onnx/model.onnx", "onnx/model_quantized.onnx"
CELL_OUTPUTS = {"last_hidden_state": {0: "batch", 1: "tokens"}, "sentence_embedding": {0: "batch"}}  # free axes
STATES_OUTPUTS = {"states": {1: "batch"}}
OPSET = 17  # the first with layer norm as one operation; read by onnxruntime 1.12 and later


class CellGraph(nn.Module):
    """What the file of a cell computes."""

    def __init__(self, small: Encoder) -> None:
        super().__init__()
        self.model, self.head = small.backbone.model, small.backbone.head
        self.pooling, self.dim = small.layout.pooling, small.dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, T); the result is (B, T, d) token vectors and (B, d), each row of length 1."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, H)
        hidden = hidden if self.head is None else self.head(hidden)  # linear: before pooling as well as after
        tokens = hidden[..., : self.dim]  # (B, T, d): the cut comes before pooling, so that readers can pool alike
        return tokens, F.normalize(pool(tokens, attention_mask, self.pooling), dim=-1)


class StatesGraph(nn.Module):
    """What the file of all layers computes."""

    def __init__(self, small: Encoder) -> None:
        super().__init__()
        self.backbone, self.dim = small.backbone, small.dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Both (B, T); the result is (N+1, B, D), raw pooled vectors of every layer."""
        chunk = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self.backbone([chunk])[..., : self.dim]


def write_onnx(small: Encoder, folder: Path, all_layers: bool = False) -> None:
    """Write onnx/model.onnx and, beside it, the tokenizer and every file that its readers ask for.

    Args:
        small: the encoder to write, of the layers and coordinates that the file shall have.
        folder: an existing folder.
        all_layers: give the states of every layer in place of the vectors of the last.

    Raises:
        ValueError: if torch cannot express the model in ONNX.
    """
    write_tokenizer(small, folder)
    config = copy.deepcopy(small.backbone.model.config)
    if getattr(config, "max_position_embeddings", None):
        config.max_position_embeddings = small.layout.max_length  # readers take it for the maximal length
    config.save_pretrained(folder)
    if not all_layers:  # the file's token vectors are cut to d: what is left to do is to pool and to scale
        write_layout(folder, small.layout, small.dim)
    graph, outputs = (StatesGraph, STATES_OUTPUTS) if all_layers else (CellGraph, CELL_OUTPUTS)
    (folder / MODEL).parent.mkdir()
    write_graph(graph(small).cpu().eval(), small, folder / MODEL, outputs)


def write_graph(graph: nn.Module, small: Encoder, path: Path, outputs: dict[str, dict[int, str]]) -> None:
    """Trace a graph of ``input_ids`` and ``attention_mask``; raises as `write_onnx`.

    Args:
        graph: `CellGraph` or `StatesGraph`.
        small: the encoder behind it.
        path: the file.
        outputs: the name of each output, and its axes that are not of a fixed size.
    """
    # Traced with padding in the batch: a batch without any would leave the mask out of the file.
    tokens = small.tokenise(["a", SAMPLES[7]], padding=True, return_tensors="pt")
    inputs = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "tokens"} for name in inputs} | outputs
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, on branches that the check of the file covers
            torch.onnx.export(
                graph, tuple(tokens[name] for name in inputs), str(path), input_names=inputs,
                output_names=list(outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if reason == "unordered_map::at":  # of Gemma 3 with attention to both sides, in transformers' masking_utils
            reason = "its attention mask is made by torch.vmap, which torch's tracer cannot follow: export safetensors"
        raise ValueError(f"{type(small.backbone.model).__name__} cannot be written as ONNX: {reason}") from error


def write_tokenizer(small: Encoder, folder: Path) -> None:
    """Write a tokenizer that cuts at the encoder's maximal length and pads, whichever of its files is read."""
    from tokenizers import Tokenizer

    own, length = small.tokenizer, small.layout.max_length
    save_tokenizer(own, folder, length)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(length, direction=own.truncation_side)
    tokenizer.enable_padding(direction="right", pad_id=own.pad_token_id, pad_token=own.pad_token)
    tokenizer.save(str(folder / "tokenizer.json"))


def closing_token(encoder: Encoder) -> int | None:
    """The special token that ends every text, also one that is cut; None where the tokenizer adds none."""
    ids = encoder.tokenise([SAMPLES[0], SAMPLES[-1]])["input_ids"]
    last = {own[-1] for own in ids}
    return last.pop() if len(last) == 1 and last <= set(encoder.tokenizer.all_special_ids) else None


def run_onnx(folder: str | Path, texts: list[str], output: str, file: str = MODEL, batch_size: int = 32) -> np.ndarray:
    """An output of an exported ONNX file for n texts, by onnxruntime and the folder's own tokenizer alone.

    Args:
        folder: as `write_onnx` leaves it.
        texts: n texts.
        output: ``sentence_embedding``, of which the result is (n, d), or ``states``: (N+1, n, D).
        file: which file of the folder.
        batch_size: texts a run.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    folder = as_path(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    parts = []
    for start in range(0, len(texts), batch_size):
        tokens = tokenizer.encode_batch(texts[start : start + batch_size])
        ids = np.array([t.ids for t in tokens], dtype=np.int64)  # (b, T)
        mask = np.array([t.attention_mask for t in tokens], dtype=np.int64)  # (b, T)
        parts += session.run([output], {"input_ids": ids, "attention_mask": mask})  # (b, d) or (N+1, b, D)
    return np.concatenate(parts, axis=-2)


def onnx_vectors(folder: str | Path, texts: list[str], file: str = MODEL, batch_size: int = 32) -> np.ndarray:
    """The vectors (n, d) that an exported cell gives; the arguments are those of `run_onnx`."""
    return run_onnx(folder, texts, "sentence_embedding", file, batch_size)


def onnx_states(folder: str | Path, texts: list[str], file: str = MODEL, batch_size: int = 32) -> np.ndarray:
    """The states (N+1, n, D) that an exported file of all layers gives; the arguments are those of `run_onnx`."""
    return run_onnx(folder, texts, "states", file, batch_size)


def check_onnx(folder: Path, texts: list[str], expected: np.ndarray) -> float:
    """Run onnx/model.onnx on texts one by one and all at once, and compare; see `require_equal`.

    Args:
        folder: as `write_onnx` leaves it.
        texts: n texts.
        expected: (n, d) vectors of the cell, or (N+1, n, D) states of all layers; of those a difference is measured in
            lengths of the state.

    Raises:
        ValueError: if the file does not run, or gives other vectors.
    """
    limit, run = TOLERANCE["onnx"], onnx_vectors if expected.ndim == 2 else onnx_states
    try:
        found = [run(folder, texts, batch_size=size) for size in (1, len(texts))]
    except Exception as error:  # onnxruntime raises kinds of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the model was written as ONNX and does not run ({reason}): export safetensors") from error
    if expected.ndim == 2:
        return max(require_equal(f, expected, texts, limit, "onnxruntime") for f in found)
    lengths = np.linalg.norm(expected, axis=-1, keepdims=True)  # (N+1, n, 1)
    rows = [flat(states / lengths) for states in (expected, *found)]
    return max(require_equal(f, rows[0], texts, limit, "onnxruntime") for f in rows[1:])


def flat(states: np.ndarray) -> np.ndarray:
    """States (N+1, n, D) as one row a text: (n, (N+1) * D)."""
    return states.swapaxes(0, 1).reshape(states.shape[1], -1)


def quantise_weights(folder: Path) -> None:
    """Write onnx/model_quantized.onnx: 8-bit weights; activations are quantised as it runs (dynamic quantisation).

    One scale a column of each weight matrix: of MiniLM at (6, 384), one a matrix costs three times as much cosine.
    Unsigned weights: products of signed ones overflow on processors without the newer 8-bit instructions (onnxruntime,
    "Quantize ONNX models", on U8S8).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = folder / "ready.onnx"
    quant_pre_process(folder / MODEL, ready, skip_optimization=True, skip_symbolic_shape=True)
    quantize_dynamic(ready, folder / QUANTISED, per_channel=True, weight_type=QuantType.QUInt8)
    ready.unlink()


def check_int8(folder: Path, expected: np.ndarray) -> np.ndarray:
    """Cosines of what the quantised file gives for `SAMPLES` with what the encoder gives.

    Args:
        folder: with onnx/model_quantized.onnx.
        expected: (n, d) vectors of a cell, or (N+1, n, D) states of all layers.

    Returns:
        (n,) or (N+1, n).

    Raises:
        ValueError: if one is no number: the file is useless.
    """
    found = (onnx_vectors if expected.ndim == 2 else onnx_states)(folder, list(SAMPLES), QUANTISED)
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise ValueError("the quantised model gives vectors that are no numbers; nothing was written")
    return (normalise(found) * normalise(expected)).sum(axis=-1)
