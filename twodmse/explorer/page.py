"""The explorer page: one HTML file in which two sliders choose any cell of two models, without network or kernel."""

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import cell_cosines
from twodmse.files import atomic_file
from twodmse.version import __version__

MOST_BYTES = 5_000_000  # of the whole page
OTHER_BYTES = 150_000  # kept free for everything but the vectors: template, sentences, names
FEWEST, MOST = 3, 300  # sentences: a ranking needs three, and nobody reads a longer list
HEATMAP_COLUMNS = 16  # dims shown in a heatmap
TRIED = 8  # the fewest dims a suggestion is about: what two or three numbers say is mostly chance
KEPT = 0.9  # share of queries for which "the smallest cell that holds" must hold
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
        before: two encoders with the same numbers of layers and dims.
        after: two encoders with the same numbers of layers and dims.
        sentences: as `read_sentences` gives them, and `fit_sentences` keeps them.
        names: what the page calls the two models.

    Raises:
        ValueError: if the encoders differ in N or D, or the page would be larger than 5 MB.
    """
    check_models(before, after)
    kept = len(fit_sentences(sentences, before.num_layers, before.dim))
    if kept < len(sentences):
        raise ValueError(f"{len(sentences)} sentences make a page larger than 5 MB: keep the first {kept}")
    texts = sentences["text"].tolist()
    states = [encoder.states(texts) for encoder in (before, after)]  # 2 x (N+1, n, D)
    packed = [half_states(s) for s in states]
    columns = shown_columns(before.dim)
    tried = [d for d in columns if d >= TRIED or d == before.dim]
    data = {
        "version": __version__,
        "layers": before.num_layers,
        "dim": before.dim,
        "columns": columns,
        "error": max(largest_error(s, p) for s, p in zip(states, packed, strict=True)),
        "models": [
            {"title": title, "name": name, "states": base64.b64encode(p[1:].tobytes()).decode("ascii")}
            for title, name, p in zip(("Before", "After"), names, packed, strict=True)
        ],
        "sentences": sentences.to_dict("records"),
        "tries": suggestions(*packed, tried, sentences),
    }
    template = (RESOURCES / "template.html").read_text(encoding="utf-8")
    return template.replace("/*DATA*/", json.dumps(data, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c"))


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
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}: give a text file with one sentence a line")
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
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
    """The largest difference of cosines between two sets of states, over all pairs, layers 1..N and dims 1..D.

    Args:
        states: (N+1, n, D) each.
        packed: (N+1, n, D) each.
    """
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


def similarities(packed: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Cosines of all pairs at every layer and the K dims: (N+1, n, D) in, (N+1, K, n, n) float64 out."""
    everyone = np.arange(packed.shape[1])
    rows = [[cell_cosines(v, everyone, [i], dims).T for i in everyone] for v in packed.astype(np.float32)]
    return np.asarray(rows).transpose(0, 2, 1, 3)  # (N+1, n, K, n) -> (N+1, K, n, n)


def places(cosines: np.ndarray) -> np.ndarray:
    """The place (1 is first) at each cell of the sentence that comes first at the cell (N, D).

    Args:
        cosines: (N+1, K, n, n), the last of the K dims being D.

    Returns:
        (N+1, K, n) whole numbers, one a query.
    """
    count = cosines.shape[-1]
    others = np.where(np.eye(count, dtype=bool), -np.inf, cosines)  # a sentence is not compared with itself
    nearest = others[-1, -1].argmax(axis=-1)  # (n,)
    own = others[..., np.arange(count), nearest]  # (N+1, K, n)
    return 1 + (others > own[..., None]).sum(axis=-1)  # (N+1, K, n)


def suggestions(
    before: np.ndarray, after: np.ndarray, dims: Sequence[int], sentences: pd.DataFrame
) -> list[dict[str, object]]:
    """Three interesting settings of the page, found in the data.

    Args:
        before: (N+1, n, D) packed states of the two models.
        after: (N+1, n, D) packed states of the two models.
        dims: K widths to look at, the last being D.
        sentences: the n sentences; where they come in sets, one setting is about these.

    Returns:
        Dicts with label, text (what to see, in words), view (``pair`` or ``ranking``), layer, dim, and the rows of the
        sentences to choose: first and second, or query.
    """
    cosines = [similarities(states, dims) for states in (before, after)]  # 2 x (N+1, K, n, n)
    first = [places(c) for c in cosines]  # 2 x (N+1, K, n)
    rows = [np.flatnonzero(sentences["role"] == role) for role in ("sentence", "same", "decoy")]
    return [
        slip(*cosines, dims),
        meaning(*cosines, dims, *rows) if len(rows[0]) else fall(*first, dims),
        hold(*first, dims),
    ]


def slip(before: np.ndarray, after: np.ndarray, dims: Sequence[int]) -> dict[str, object]:
    """The cell, and there the pair, whose cosine strays furthest from full size before, compared with after."""
    left, right = np.triu_indices(before.shape[-1], 1)
    strays = [np.abs(c - c[-1, -1])[..., left, right] for c in (before, after)]  # 2 x (N+1, K, P)
    layer, column = strongest_cell((strays[0] - strays[1]).mean(axis=-1))
    pair = int((strays[0] - strays[1])[layer, column].argmax())
    means, here = ([x[layer, column].mean() for x in strays], [x[layer, column, pair] for x in strays])
    return {
        "label": "The pair that slips",
        "text": f"At layer {layer} with {dims[column]} dims, a pair's cosine is on average {means[0]:.2f} away from "
        f"what the same model says at full size before training, and {means[1]:.2f} after: no cell of the "
        f"heatmap from {TRIED} dims on has a wider gap. These two sentences show it most: {here[0]:.2f} away before, "
        f"{here[1]:.2f} after.",
        "view": "pair", "layer": layer, "dim": dims[column], "first": int(left[pair]), "second": int(right[pair]),
    }  # fmt: skip


def meaning(
    before: np.ndarray, after: np.ndarray, dims: Sequence[int], base: np.ndarray, same: np.ndarray, decoy: np.ndarray
) -> dict[str, object]:
    """The cell, and there the set, at which training helped most to put the same meaning before shared words."""
    leads = [c[..., base, same] - c[..., base, decoy] for c in (before, after)]  # 2 x (N+1, K, sets)
    won = [(lead > 0).mean(axis=-1) for lead in leads]  # 2 x (N+1, K)
    layer, column = strongest_cell(won[1] - won[0])
    chosen = int(np.minimum(-leads[0], leads[1])[layer, column].argmax())  # the clearest turn from words to meaning
    query, pair = int(base[chosen]), [int(same[chosen]), int(decoy[chosen])]
    here = [c[layer, column, query, pair] for c in (before, after)]  # 2 x (2,)
    return {
        "label": "Same meaning or same words?",
        "text": f"Each query has a partner with the same meaning in other words, and a decoy that shares its words. At "
        f"layer {layer} with {dims[column]} dims the partner is nearer in {won[0][layer, column]:.0%} of {len(base)} "
        f"sets before training, and in {won[1][layer, column]:.0%} after. Here: partner {here[0][0]:.2f} and decoy "
        f"{here[0][1]:.2f} before, {here[1][0]:.2f} and {here[1][1]:.2f} after.".replace("-", "−"),
        "view": "ranking", "layer": layer, "dim": dims[column], "query": query,
    }  # fmt: skip


def fall(before: np.ndarray, after: np.ndarray, dims: Sequence[int]) -> dict[str, object]:
    """The cell, and there the query, where the sentence that should be first falls furthest before, but not after."""
    layer, column = strongest_cell((1 / after - 1 / before).mean(axis=-1))
    query = int((before - after)[layer, column].argmax())
    kept = [(x[layer, column] == 1).mean() for x in (before, after)]
    return {
        "label": "The ranking that falls apart",
        "text": f"At layer {layer} with {dims[column]} dims, the sentence that is first at full size is still first "
        f"for {kept[0]:.0%} of all queries before training, and for {kept[1]:.0%} after. For this query it is at place "
        f"{before[layer, column, query]} before and {after[layer, column, query]} after.",
        "view": "ranking", "layer": layer, "dim": dims[column], "query": query,
    }  # fmt: skip


def hold(before: np.ndarray, after: np.ndarray, dims: Sequence[int]) -> dict[str, object]:
    """The smallest cell (layers times dims) that keeps nine in ten nearest sentences among the first three, after."""
    kept = [(x <= 3).mean(axis=-1) for x in (before, after)]  # 2 x (N+1, K)
    size = np.arange(len(after))[:, None] * np.asarray(dims)[None, :]  # (N+1, K)
    cells = [strongest_cell(np.where(k >= KEPT, -size, -np.inf)) for k in kept]
    layer, column = cells[1]
    query = int(np.where(after[layer, column] <= 3, before[layer, column], 0).argmax())
    return {
        "label": "The smallest cell that holds",
        "text": f"After training, layer {layer} with {dims[column]} dims is the smallest of the heatmap's cells "
        f"(layers times dims, from {TRIED} dims on) that keeps the sentence that is first at full size among the first "
        f"three for nine queries in ten; before training, layer {cells[0][0]} with {dims[cells[0][1]]} dims. For this "
        f"query it is at place {before[layer, column, query]} before and {after[layer, column, query]} after.",
        "view": "ranking", "layer": layer, "dim": dims[column], "query": query,
    }  # fmt: skip


def strongest_cell(scores: np.ndarray) -> tuple[int, int]:
    """Layer number and column of the largest score, layer 0 left out. ``scores``: (N+1, K)."""
    kept = np.where(np.arange(len(scores))[:, None] == 0, -np.inf, scores)
    layer, column = np.unravel_index(kept.argmax(), kept.shape)
    return int(layer), int(column)
