"""The explorer page: one HTML file in which two sliders choose any cell of two models, without network or kernel."""

import base64
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from twodmse.checked import as_path
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import cut_texts
from twodmse.evaluation.grid import cell_cosines
from twodmse.explorer.stories import suggestions
from twodmse.files import atomic_file
from twodmse.probes.shares import unknown_texts
from twodmse.version import __version__

MOST_BYTES = 5_000_000  # of the whole page
OTHER_BYTES = 150_000  # kept free for everything but the vectors: template, sentences, names
FEWEST, MOST = 3, 300  # sentences: a ranking needs three, and nobody reads a longer list
HEATMAP_COLUMNS = 16  # dims shown in a heatmap
TRIED = 8  # the fewest dims a suggestion is about: what two or three numbers say is mostly chance
TITLES = ("Before", "After")
STORED = {  # the passages of the page that holds vectors and loads nothing
    "POLICY": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    "NUMBERS": "The cosines are computed here, in your browser, from stored half-precision vectors: over all pairs, "
    'layers and dims they differ from the library\'s by at most <span data-fill="error"></span>.',
    "LOADS": "The page loads nothing from anywhere.",
    "LIVE": "",
}
ROLES = ("sentence", "same", "opposite", "decoy")
RESOURCES = files("twodmse") / "resources" / "explorer"


def write_explorer(
    before: Encoder,
    after: Encoder,
    sentences: pd.DataFrame,
    names: tuple[str, str],
    out: str | Path,
    overwrite: bool = True,
) -> int:
    """Write the page whole or not at all; arguments and errors as `explorer_page`. Returns its size in bytes."""
    page = explorer_page(before, after, sentences, names).encode("utf-8")
    with atomic_file(out, overwrite) as work:
        work.write_bytes(page)
    return len(page)


def explorer_page(before: Encoder, after: Encoder, sentences: pd.DataFrame, names: tuple[str, str]) -> str:
    """The page as HTML text.

    Args:
        before: an encoder.
        after: an encoder with the same numbers of layers and dims.
        sentences: as `read_sentences` gives them, and `fit_sentences` keeps them.
        names: what the page calls the two models.

    Raises:
        ValueError: if the encoders differ in N or D, the sentences are no such table, or the page would be larger than
            5 MB.
    """
    check_models(before, after)
    columns = ("text", "theme", "set", "role")
    if missing := [name for name in columns if name not in getattr(sentences, "columns", ())]:
        raise ValueError(f"sentences has no column {missing[0]!r}: give a table of them, as read_sentences does")
    if len(sentences) < 2:
        raise ValueError(f"a page of {len(sentences)} sentences has nothing to compare: give two or more")
    kept = len(fit_sentences(sentences, before.num_layers, before.dim))
    if kept < len(sentences):
        raise ValueError(f"{len(sentences)} sentences make a page larger than 5 MB: keep the first {kept}")
    texts = sentences["text"].tolist()
    states = [encoder.states(texts) for encoder in (before, after)]  # 2 x (N+1, n, D)
    packed = half_states(states[0]), half_states(states[1])
    tried = [d for d in shown_columns(before.dim) if d >= TRIED or d == before.dim]
    models: list[dict[str, Any]] = [
        {
            "title": title,
            "name": name,
            "packed": base64.b64encode(p[1:].tobytes()).decode("ascii"),
            "unknown": [texts.index(text) for text in unknown_texts(encoder, texts)],
            "cut": [texts.index(text) for text in cut_texts(encoder, texts)],
            "max_length": encoder.max_length,
        }
        for title, name, p, encoder in zip(TITLES, names, packed, (before, after), strict=True)
    ]
    data = {
        "error": max(largest_error(s, p) for s, p in zip(states, packed, strict=True)),
        "models": models,
        "sentences": sentences.to_dict("records"),
        "tries": suggestions(*packed, tried, sentences, {row for model in models for row in model["unknown"]}),
    }
    return filled(before, data, STORED)


def filled(encoder: Encoder, data: dict[str, Any], parts: Mapping[str, str]) -> str:
    """The page's template with data and passages filled in.

    Args:
        encoder: one of the models, for their shape.
        data: what the page's script reads, but for version, layers, dim and columns.
        parts: name -> passage: POLICY (what the page may load), NUMBERS (where its numbers come from), LOADS, LIVE.
    """
    shape = {"layers": encoder.num_layers, "dim": encoder.dim, "columns": shown_columns(encoder.dim)}
    page = (RESOURCES / "template.html").read_text(encoding="utf-8")
    for name, passage in parts.items():
        page = page.replace(f"<!--{name}-->" if name == "LIVE" else f"/*{name}*/", passage)
    written = json.dumps({"version": __version__, **shape, **data}, allow_nan=False, ensure_ascii=False)
    return page.replace("/*DATA*/", written.replace("<", "\\u003c"))


def shown_name(name: str) -> str:
    """What the page calls a model: its name, or of a folder only the run's or its own name, no path of this machine."""
    if not Path(name).is_dir():
        return name
    folder = Path(name).resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def read_sentences(path: str | Path | None = None) -> pd.DataFrame:
    """The sentences of the page: those of a text file, one a line, or the bundled ones.

    Returns:
        One row a distinct sentence, in order: text; theme, what the bundled ones are grouped by; set, a number shared
        by the four sentences that belong together; role in that set: ``sentence``, ``same`` (the same meaning in other
        words), ``opposite``, ``decoy`` (shared words, another meaning). Of a file, the last three are empty or 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8 text, or holds fewer than 3 or more than 300 sentences.
    """
    if path is None:
        sets = json.loads((RESOURCES / "sentences.json").read_text(encoding="utf-8"))
        rows = [(row[role], row["theme"], i, role) for i, row in enumerate(sets, start=1) for role in ROLES]
    else:
        path = as_path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}: give a text file with one sentence a line")
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # of other characters a sentence may hold any
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from None
        rows = [(text, "", 0, "") for text in dict.fromkeys(line.strip() for line in lines) if text]
        if not FEWEST <= len(rows) <= MOST:
            raise ValueError(f"{path} holds {len(rows)} sentences: give {FEWEST} to {MOST} different ones, one a line")
    return pd.DataFrame(rows, columns=["text", "theme", "set", "role"])


def fit_sentences(sentences: pd.DataFrame, layers: int, dim: int) -> pd.DataFrame:
    """The first themes that fit a page of at most 5 MB for two models of this shape; usually all of them.

    Raises:
        ValueError: if not even the first theme fits; the message says how many sentences would.
    """
    each = 2 * layers * dim * 2 * 4 / 3  # two models, two bytes a number, base64 makes four letters of three bytes
    room = int((MOST_BYTES - OTHER_BYTES - sentences["text"].str.encode("utf-8").str.len().sum()) / each)
    ends = np.flatnonzero(sentences["theme"].ne(sentences["theme"].shift(-1))) + 1  # rows up to each theme's end
    fitting = ends[ends <= room]
    if not len(fitting):
        raise ValueError(
            f"{ends[0]} sentences for two models of {layers} layers x {dim} dims make a page larger than 5 MB: "
            f"give a file of at most {room}"
        )
    return sentences.iloc[: fitting[-1]]


def check_models(before: Encoder, after: Encoder) -> None:
    """Refuse two models that have no grid in common.

    Raises:
        ValueError: if they differ in N or D.
    """
    shapes = [f"{e.num_layers} layers x {e.dim} dims" for e in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the models differ in shape ({shapes[0]} before, {shapes[1]} after): compare two of the same backbone"
        )


def half_states(states: np.ndarray) -> np.ndarray:
    """States as float16, each vector scaled so that its largest number is 2**15.

    A cosine does not see the scale, so none is stored. Float16 keeps a relative precision of 2**-11 over 29 powers of
    two; fixed-point bytes would lose the small coordinates, of which the narrow cells may be made.

    Args:
        states: (N+1, n, D) float32.

    Returns:
        (N+1, n, D) float16, little-endian.
    """
    largest = np.abs(states).max(axis=-1, keepdims=True)  # (N+1, n, 1)
    return (states / np.maximum(largest, np.finfo(np.float32).tiny) * 2**15).astype("<f2")


def largest_error(states: np.ndarray, packed: np.ndarray) -> float:
    """The largest difference of cosines between two (N+1, n, D), over all pairs, layers 1..N and dims 1..D."""
    count, dim = states.shape[1:]
    everyone, dims = np.arange(count), range(1, dim + 1)
    return max(
        float(np.abs(cell_cosines(a, everyone, [i], dims) - cell_cosines(b, everyone, [i], dims)).max())
        for a, b in zip(states[1:], packed[1:].astype(np.float32), strict=True)
        for i in range(count)
    )


def shown_columns(dim: int) -> list[int]:
    """The dims that a heatmap shows: 1, 2, 3, 4, 6, 8, 12, 16, ... below D, and D; the 16 largest of them."""
    steps = sorted({width for i in range(32) for width in (2**i, 3 * 2**i) if width < dim})
    return [*steps, dim][-HEATMAP_COLUMNS:]
