"""The stories of the page: settings that are worth a look, found in the data and told with every cell looked at.

Each is of something that a cell of the second model gains on the first; where nothing is gained there is no story.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from twodmse.evaluation.grid import cell_cosines

KEPT = 0.9  # share of queries for which "the smallest cell that holds" must hold
AMONG = {1: "first", 2: "among the first two", 3: "among the first three"}  # where it keeps the nearest sentence
LEAST = 1e-9  # a smaller gain is the rounding of a sum
Story = dict[str, object]


def similarities(packed: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Cosines of all pairs at every layer and the K dims: (N+1, n, D) in, (N+1, K, n, n) float64 out."""
    everyone = np.arange(packed.shape[1])
    rows = [[cell_cosines(v, everyone, [i], dims).T for i in everyone] for v in packed.astype(np.float32)]
    return np.asarray(rows).transpose(0, 2, 1, 3)  # (N+1, n, K, n) -> (N+1, K, n, n)


def nearest(cosines: np.ndarray) -> np.ndarray:
    """The number of the sentence that comes first for each query at the cell (N, D): (N+1, K, n, n) in, (n,) out."""
    return _others(cosines[-1, -1]).argmax(axis=-1)


def places(cosines: np.ndarray) -> np.ndarray:
    """The place (1 is first) at each cell of the sentence that comes first at the cell (N, D).

    Args:
        cosines: (N+1, K, n, n), the last of the K dims being D.

    Returns:
        (N+1, K, n) whole numbers, one a query.
    """
    others = _others(cosines)
    own = others[..., np.arange(cosines.shape[-1]), nearest(cosines)]  # (N+1, K, n)
    return 1 + (others > own[..., None]).sum(axis=-1)  # (N+1, K, n)


def _others(cosines: np.ndarray) -> np.ndarray:
    """The same (..., n, n), but that a sentence comes after all others for itself."""
    return np.where(np.eye(cosines.shape[-1], dtype=bool), -np.inf, cosines)


def suggestions(
    before: np.ndarray,
    after: np.ndarray,
    dims: Sequence[int],
    sentences: pd.DataFrame,
    unknown: Collection[int] = (),
) -> list[Story]:
    """Up to three interesting settings of the page, found in the data.

    Args:
        before: (N+1, n, D) packed states of one model.
        after: (N+1, n, D) those of the other.
        dims: K widths to look at, the last being D.
        sentences: the n sentences; where they come in sets, one setting is about these.
        unknown: rows of sentences of which a vocabulary knows nothing: their cosines are in no story.

    Returns:
        Dicts with label, text (what to see, in words), view (``pair`` or ``ranking``), layer, dim, and the rows of the
        sentences to choose: first and second, or query.
    """
    cosines = similarities(before, dims), similarities(after, dims)  # (N+1, K, n, n) each
    told = ~np.isin(np.arange(len(sentences)), list(unknown))  # (n,) of which a story may be
    first = places(cosines[0]), places(cosines[1])  # (N+1, K, n) each
    queries = np.flatnonzero(told & told[nearest(cosines[0])] & told[nearest(cosines[1])])  # Q rows
    base, same, decoy = (np.flatnonzero(sentences["role"] == role) for role in ("sentence", "same", "decoy"))
    whole = told[base] & told[same] & told[decoy]  # sets
    sets = base[whole], same[whole], decoy[whole]
    middle = meaning(*cosines, dims, *sets) if len(base) else fall(*first, dims, queries)
    found = slip(*cosines, dims, np.flatnonzero(told)), middle, hold(*first, dims, queries)
    return [story for story in found if story is not None]


def slip(before: np.ndarray, after: np.ndarray, dims: Sequence[int], rows: np.ndarray) -> Story | None:
    """The cell, and there the pair, whose cosine strays furthest from full size before, compared with after.

    Args:
        before: (N+1, K, n, n) cosines of one model.
        after: (N+1, K, n, n) those of the other.
        dims: the K widths.
        rows: of the sentences that the pair may be of.
    """
    if len(rows) < 2:
        return None
    left, right = rows[np.array(np.triu_indices(len(rows), 1))]
    strays = [np.abs(c - c[-1, -1])[..., left, right] for c in (before, after)]  # 2 x (N+1, K, P)
    gain = (strays[0] - strays[1]).mean(axis=-1)  # (N+1, K)
    layer, column = strongest_cell(gain)
    if gain[layer, column] < LEAST:
        return None
    pair = int((strays[0] - strays[1])[layer, column].argmax())
    means, here = ([x[layer, column].mean() for x in strays], [x[layer, column, pair] for x in strays])
    return {
        "label": "The pair that slips",
        "text": f"At layer {layer} with {dims[column]} dims, a pair's cosine is on average {means[0]:.2f} away from "
        f"what the same model says at full size before, and {means[1]:.2f} after: no cell of the "
        f"heatmap from {dims[0]} dims on has a wider gap. {every(gain, dims)} "
        f"These two sentences show it most: {here[0]:.2f} away before, "
        f"{here[1]:.2f} after.",
        "view": "pair", "layer": layer, "dim": dims[column], "first": int(left[pair]), "second": int(right[pair]),
    }  # fmt: skip


def meaning(
    before: np.ndarray, after: np.ndarray, dims: Sequence[int], base: np.ndarray, same: np.ndarray, decoy: np.ndarray
) -> Story | None:
    """The cell, and there the set, at which the second model gains most in putting meaning before shared words."""
    if not len(base):
        return None
    leads = [c[..., base, same] - c[..., base, decoy] for c in (before, after)]  # 2 x (N+1, K, sets)
    won = [(lead > 0).mean(axis=-1) for lead in leads]  # 2 x (N+1, K)
    layer, column = strongest_cell(won[1] - won[0])
    if (won[1] - won[0])[layer, column] < LEAST:
        return None
    chosen = int(np.minimum(-leads[0], leads[1])[layer, column].argmax())  # the clearest turn from words to meaning
    query, pair = int(base[chosen]), [int(same[chosen]), int(decoy[chosen])]
    here = [c[layer, column, query, pair] for c in (before, after)]  # 2 x (2,)
    return {
        "label": "Same meaning or same words?",
        "text": f"Each query has a partner with the same meaning in other words, and a decoy that shares its words. At "
        f"layer {layer} with {dims[column]} dims the partner is nearer in {won[0][layer, column]:.0%} of "
        f"{counted(len(base), 'set')} before, and in {won[1][layer, column]:.0%} after; over all cells looked at, in "
        f"{won[0][1:].mean():.0%} before and {won[1][1:].mean():.0%} after. {every(won[1] - won[0], dims)} "
        f"Here: partner {here[0][0]:.2f} and decoy "
        f"{here[0][1]:.2f} before, {here[1][0]:.2f} and {here[1][1]:.2f} after.".replace("-", "−"),
        "view": "ranking", "layer": layer, "dim": dims[column], "query": query,
    }  # fmt: skip


def fall(before: np.ndarray, after: np.ndarray, dims: Sequence[int], queries: np.ndarray) -> Story | None:
    """The cell, and there the query, where the sentence that should be first falls furthest before, but not after.

    Args:
        before: (N+1, K, n) `places` of one model.
        after: (N+1, K, n) those of the other.
        dims: the K widths.
        queries: Q rows of sentences that a query may be.
    """
    if not len(queries):
        return None
    gain = (1 / after - 1 / before)[..., queries].mean(axis=-1)  # (N+1, K)
    layer, column = strongest_cell(gain)
    if gain[layer, column] < LEAST:
        return None
    query = int(queries[(before - after)[layer, column, queries].argmax()])
    kept = [(x[layer, column, queries] == 1).mean() for x in (before, after)]
    return {
        "label": "The ranking that falls apart",
        "text": f"At layer {layer} with {dims[column]} dims, the sentence that is first at full size is still first "
        f"for {kept[0]:.0%} of {counted(len(queries), 'query', 'queries')} before, and for {kept[1]:.0%} after. "
        f"{every(gain, dims)} "
        f"For this query it is at place "
        f"{before[layer, column, query]} before and {after[layer, column, query]} after.",
        "view": "ranking", "layer": layer, "dim": dims[column], "query": query,
    }  # fmt: skip


def hold(before: np.ndarray, after: np.ndarray, dims: Sequence[int], queries: np.ndarray) -> Story | None:
    """The smallest cell (layers times dims) that keeps nine in ten nearest sentences among the first, after.

    Args:
        before: (N+1, K, n) `places` of one model.
        after: (N+1, K, n) those of the other.
        dims: the K widths.
        queries: Q rows of sentences that a query may be.
    """
    among = min(max(AMONG), (before.shape[-1] - 1) // 2)  # of few sentences, more would keep any cell's
    if not len(queries) or not among:
        return None
    kept = [(x[..., queries] <= among).mean(axis=-1) for x in (before, after)]  # 2 x (N+1, K)
    size = np.arange(len(after))[:, None] * np.asarray(dims)[None, :]  # (N+1, K)
    cells = [strongest_cell(np.where(k >= KEPT, -size, -np.inf)) for k in kept]
    layer, column = cells[1]
    if size[cells[1]] >= size[cells[0]]:
        return None
    held = np.where(after[layer, column] <= among, before[layer, column], 0)[queries]  # (Q,)
    query = int(queries[held.argmax()])
    return {
        "label": "The smallest cell that holds",
        "text": f"After, layer {layer} with {dims[column]} dims is the smallest of the heatmap's cells "
        f"(layers times dims, from {dims[0]} dims on) that keeps the sentence that is first at full size "
        f"{AMONG[among]} for nine queries in ten; before, layer {cells[0][0]} with {dims[cells[0][1]]} dims. "
        f"{every(kept[1] - kept[0], dims, largest=False)} "
        f"For this query it is at place {before[layer, column, query]} before and {after[layer, column, query]} after.",
        "view": "ranking", "layer": layer, "dim": dims[column], "query": query,
    }  # fmt: skip


def every(gain: np.ndarray, dims: Sequence[int], largest: bool = True) -> str:
    """In how many of all cells that were looked at the second model is better, and in how many worse, in words.

    Args:
        gain: (N+1, K) what is better after than before; layer 0 is left out.
        dims: the K widths.
        largest: whether the cell that is shown is the one with the largest gain, which is then said.
    """
    cells = gain[1:].round(9)
    better, worse = int((cells > 0).sum()), int((cells < 0).sum())
    same = cells.size - better - worse
    shown = "This cell was chosen because it gains most. " if largest else ""
    told = [f"{count} {'is' if count == 1 else 'are'}" for count in (better, worse, same)]
    return (
        f"{shown}Of all {counted(cells.size, 'cell')} looked at (layers 1 to {len(cells)}, {dims[0]} dims or more) "
        f"{told[0]} better after in this respect, {told[1]} worse, {told[2]} the same."
    )


def counted(number: int, word: str, words: str = "") -> str:
    """A number with its word; ``words`` is the plural that is not made by an s."""
    return f"{number} {word if number == 1 else words or word + 's'}"


def strongest_cell(scores: np.ndarray) -> tuple[int, int]:
    """Layer number and column of the largest score, layer 0 left out. ``scores``: (N+1, K)."""
    kept = np.where(np.arange(len(scores))[:, None] == 0, -np.inf, scores)
    layer, column = np.unravel_index(kept.argmax(), kept.shape)
    return int(layer), int(column)
