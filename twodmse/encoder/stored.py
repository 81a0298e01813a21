"""Vectors of many texts straight into a file, in parts: what was stopped goes on where it stopped."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from twodmse.checked import read_json
from twodmse.encoder.reading import as_texts, prompt_of
from twodmse.files import atomic_file, check_file, locked

PART = 4096  # texts encoded, written and counted as done in one go
KINDS = (".npy", ".parquet")
# The settings of a model that no vector comes from: where it was read, by what, and how it is trained.
PASSING = r"_|transformers_version|architectures|(torch_)?dtype|use_cache|.*dropout"


def encode_to(
    encoder: Any,
    texts: Sequence[str],
    out: str | Path,
    layer: int | None = None,
    dim: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> Path:
    """Encode texts into a file, holding one part of them at a time.

    Beside the file two hidden ones hold what is done; a later call for the same texts, model and cell goes on from it.

    Args:
        encoder: the `Encoder`.
        texts: n texts.
        out: a .npy file, of one array (n, dim) float32, or a .parquet file, of one column ``vector`` of n lists.
        layer: as of `Encoder.encode`.
        dim: as of `Encoder.encode`.
        overwrite: replace a file that is there.
        progress: show a progress bar; None shows one.
        options: more of `Encoder.encode`.

    Returns:
        Where the file is.

    Raises:
        ValueError: for a file of another kind, and as `Encoder.encode`.
        FileExistsError: if the file exists and is not to be replaced, or another process writes it.
    """
    target = check_file(out, overwrite)
    if target.suffix not in KINDS:
        raise ValueError(f"{out} is to hold vectors: end its name in one of {', '.join(KINDS)}")
    texts = as_texts(texts)
    layer, dim = encoder.check_cell(layer, dim)
    with locked(target):
        _encode_parts(encoder, texts, target, layer, dim, overwrite, progress, options)
    return target


def _encode_parts(
    encoder: Any,
    texts: Sequence[str],
    target: Path,
    layer: int,
    dim: int,
    overwrite: bool,
    progress: bool | None,
    options: dict[str, Any],
) -> None:
    part, note = (target.with_name(f".{target.name}.part{suffix}") for suffix in (".npy", ".json"))
    job = {"job": _digest(encoder, texts, layer, dim, options), "rows": len(texts), "dim": dim}
    done, found = _done(part, note, job)
    target.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(texts), dim)
    vectors = np.lib.format.open_memmap(part, "r+" if done else "w+", np.float32, None if done else shape)
    with tqdm(total=len(texts), initial=done, desc="encode", unit="text", disable=progress is False) as bar:
        for start in range(done, len(texts), PART):
            some = texts[start : start + PART]
            try:
                vectors[start : start + len(some)] = encoder.encode(some, layer, dim, progress=False, **options)
            except ValueError as error:  # it counts texts from the part's first
                place = re.search(r"(?<=texts\[)\d+", str(error))
                if place is None:
                    raise
                told = str(error).replace(f"texts[{place[0]}]", f"texts[{start + int(place[0])}]")
                raise ValueError(told) from error
            vectors.flush()
            found.update(vectors[start : start + len(some)])
            with atomic_file(note) as path:
                path.write_text(json.dumps(job | {"done": start + len(some), "sha256": found.hexdigest()}))
            bar.update(len(some))
    if target.suffix == ".npy":
        check_file(target, overwrite)
        os.replace(part, target)
    else:
        _write_parquet(vectors, target, overwrite)
        part.unlink()
    note.unlink()


def _digest(encoder: Any, texts: Sequence[str], layer: int, dim: int, options: dict[str, Any]) -> str:
    """What tells one job from another: texts, cell, prompt, and the model, by `identity` and a vector that it gives."""
    prompt = prompt_of(encoder.layout, options.get("prompt"), options.get("prompt_name"))
    found = hashlib.sha256(json.dumps([layer, dim, prompt, identity(encoder)]).encode())
    found.update(np.round(encoder.encode(texts[0], layer, dim, **options), 3).tobytes())
    for text in texts:
        found.update(text.encode() + b"\0")
    return found.hexdigest()


def identity(encoder: Any) -> str:
    """A hash of all that an encoder's vectors come from: layout, weights, the model's settings, and its tokenizer.

    It is the same whatever the encoder has encoded before, and, with a fast tokenizer, once it is saved and loaded.

    Args:
        encoder: the `Encoder`.
    """
    settings = encoder.backbone.model.config.to_diff_dict()
    kept = {name: value for name, value in settings.items() if not re.match(PASSING, name)}
    facts = [str(encoder.layout), json.dumps(kept, sort_keys=True, default=str)]
    found = hashlib.sha256(json.dumps(facts).encode())
    for name, weight in encoder.backbone.state_dict().items():
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    found.update(_rules_of(encoder.tokenizer))
    return found.hexdigest()


def _rules_of(tokenizer: Any) -> bytes:
    """All by which a tokenizer makes tokens of a text, without how it cut and padded the batch before."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        sides = [tokenizer.truncation_side, tokenizer.split_special_tokens]
        return json.dumps([rules, sides], sort_keys=True).encode()
    with tempfile.TemporaryDirectory(prefix="twodmse-") as folder:  # one without a backend is what its files say
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in files)


def _done(part: Path, note: Path, job: dict[str, Any]) -> tuple[int, Any]:
    """How many texts an earlier call for the same job has done, if their vectors are whole, and the hash of these."""
    nothing = 0, hashlib.sha256()
    try:
        kept = read_json(note, dict[str, Any])
        vectors = np.load(part, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return nothing
    done, whole = kept.get("done"), vectors.dtype == np.float32 and vectors.shape == (job["rows"], job["dim"])
    if not whole or not isinstance(done, int) or not 0 < done <= job["rows"] or not vectors.flags.c_contiguous:
        return nothing
    found = hashlib.sha256(vectors[:done])
    return (done, found) if kept == job | {"done": done, "sha256": found.hexdigest()} else nothing


def _write_parquet(vectors: np.ndarray, out: str | Path, overwrite: bool) -> None:
    """Write an array (n, d) as a column of lists, a part at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), vectors.shape[1])
    with atomic_file(out, overwrite) as path, pq.ParquetWriter(path, pa.schema([("vector", kind)])) as file:
        for start in range(0, len(vectors), PART):
            flat = pa.array(np.asarray(vectors[start : start + PART]).ravel())
            file.write_table(pa.table({"vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}))
