"""Vectors of many texts straight into a file, in parts: what was stopped goes on where it stopped."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from twodmse.checked import read_json
from twodmse.encoder.reading import as_texts
from twodmse.files import atomic_file, check_file, locked

PART = 4096  # texts encoded, written and counted as done in one go
KINDS = (".npy", ".parquet")


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
    """What tells one job from another: texts, cell, and the model: weights, layout, its vector of the first text."""
    telling = sorted((name, value) for name, value in options.items() if name != "batch_size")
    found = hashlib.sha256(json.dumps([layer, dim, str(telling), str(encoder.layout)]).encode())
    for weight in encoder.backbone.state_dict().values():
        found.update(weight.float().cpu().numpy().tobytes())
    found.update(np.round(encoder.encode(texts[0], layer, dim, **options), 3).tobytes())
    for text in texts:
        found.update(text.encode() + b"\0")
    return found.hexdigest()


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
