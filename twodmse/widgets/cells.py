"""The numbers behind the widgets: pure functions of states, so that a slider only looks up what is there."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from twodmse.data.sets import TextSet
from twodmse.efficiency.costs import cut_view
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import check_count
from twodmse.evaluation.grid import cell_cosines, rank_correlation
from twodmse.plots.grids import loss_terms

Models = Mapping[str, Encoder] | Encoder  # of a widget: by name, or one alone


def named(models: Models) -> dict[str, Encoder]:
    """The models of a widget by name; one encoder alone is called by its own.

    Raises:
        ValueError: for anything else than encoders.
    """
    models = {models.name or "model": models} if isinstance(models, Encoder) else models
    if not isinstance(models, Mapping) or not all(isinstance(encoder, Encoder) for encoder in models.values()):
        raise ValueError(f"models is {str(models)[:80]!r}: give a dictionary of encoders by name, or one encoder")
    return {str(name): encoder for name, encoder in models.items()}


class StatesOf:
    """States of texts under several models; a text is encoded once a model, however often it is asked for.

    Args:
        models: name -> encoder, or one encoder.

    Raises:
        ValueError: if there is no model, or they differ in their numbers of layers or dims.
    """

    def __init__(self, models: Models) -> None:
        models = named(models)
        shapes = {name: (encoder.num_layers, encoder.dim) for name, encoder in models.items()}
        if len(set(shapes.values())) != 1:
            told = ", ".join(f"{name}: {n} layers x {d} dims" for name, (n, d) in shapes.items()) or "none"
            raise ValueError(f"the models must share one grid of layers and dims, and there must be one: got {told}")
        self.models = models
        self.num_layers, self.dim = next(iter(shapes.values()))
        self.known: dict[str, np.ndarray] = {}  # text -> (M, N+1, D)

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Model name -> (N+1, n, D) float32, in the order of ``texts``.

        Raises:
            ValueError: for an item that is not a text or holds none.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            states = np.stack([encoder.states(new, progress=False) for encoder in self.models.values()])  # (M,N+1,m,D)
            self.known |= {text: states[:, :, i] for i, text in enumerate(new)}
        stacked = np.stack([self.known[text] for text in texts], axis=2)  # (M, N+1, n, D)
        return dict(zip(self.models, stacked, strict=True))


def all_cosines(states: np.ndarray, left: Sequence[int], right: Sequence[int]) -> np.ndarray:
    """Cosine of each pair at every layer and every dim, by running sums.

    Args:
        states: (N+1, n, D) raw states.
        left: P row numbers each.
        right: P row numbers each.

    Returns:
        (N+1, P, D): item [layer, p, dim - 1] is the cosine of pair p at cell (layer, dim).
    """
    dims = range(1, states.shape[-1] + 1)
    return np.stack([cell_cosines(vectors, left, right, dims) for vectors in states])


def cosines_at(states: np.ndarray, left: Sequence[int], right: Sequence[int], layer: int, dim: int) -> np.ndarray:
    """Cosine of each pair at one cell, for sets whose every cell would not fit in memory.

    Shapes as `all_cosines`; (P,) out.
    """
    vectors = states[layer][:, :dim].astype(np.float64)  # (n, d)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # (n,)
    products = np.einsum("pd,pd->p", vectors[left], vectors[right])  # (P,)
    return products / np.maximum(lengths[left] * lengths[right], np.finfo(np.float64).tiny)


def places(cosines: np.ndarray) -> np.ndarray:
    """The place of each of n sentences, 1 for the highest cosine; equal ones keep their order. (n,) in and out."""
    out = np.empty(len(cosines), dtype=int)
    out[np.argsort(-cosines, kind="stable")] = np.arange(1, len(cosines) + 1)
    return out


def ranking(cosines: np.ndarray, sentences: Sequence[str], layer: int, dim: int) -> pd.DataFrame:
    """The sentences from the most to the least similar at a cell.

    Args:
        cosines: (N+1, n, D) of the query with each sentence, as `all_cosines`.
        sentences: n texts.
        layer: of the cell.
        dim: of the cell.

    Returns:
        One row a sentence, in order of place: place (1..n), change (places it stands higher than at cell (N, D);
        negative: lower), cosine, sentence.
    """
    here = cosines[layer, :, dim - 1]  # (n,)
    place = places(here)
    order = np.argsort(place)
    change = places(cosines[-1, :, -1]) - place
    kept = {"place": place[order], "change": change[order], "cosine": here[order]}
    return pd.DataFrame(kept | {"sentence": [sentences[i] for i in order]})


def spearman(cosines: np.ndarray, gold: np.ndarray) -> float:
    """Spearman x 100 of P cosines with P gold scores."""
    return float(100 * rank_correlation(rankdata(cosines)[:, None], rankdata(gold))[0])


def worst_pairs(pairs: TextSet, cosines: np.ndarray, count: int) -> pd.DataFrame:
    """The pairs whose place among the cosines is furthest from their place among the gold scores.

    Args:
        pairs: P scored pairs.
        cosines: (P,) at one cell.
        count: how many; all if there are fewer.

    Returns:
        One row a pair, the worst first: off (places by which it stands too high, negative: too low; equal values share
        a place), gold, cosine, first, second.
    """
    gold = np.asarray(pairs.gold)
    off = rankdata(cosines) - rankdata(gold)  # (P,)
    rows = np.argsort(-np.abs(off), kind="stable")[:count]
    kept = {"off": off[rows], "gold": gold[rows], "cosine": cosines[rows]}
    first, second = ([column[i] for i in rows] for column in pairs.columns)
    return pd.DataFrame(kept | {"first": first, "second": second})


def layer_times(encoder: Encoder, texts: Sequence[str], rounds: int = 3) -> dict[int, float]:
    """Milliseconds of encoding one text at each layer 1..N on this machine, the median over rounds of turns.

    Args:
        encoder: the encoder.
        texts: what is encoded, another one a round.
        rounds: that count; one before them does not.
    """
    views = {n: cut_view(encoder, n) for n in range(1, encoder.num_layers + 1)}
    seconds = np.empty((1 + rounds, len(views)))
    for number in range(1 + rounds):
        for column, view in enumerate(views.values()):
            start = time.perf_counter()
            view.encode([texts[number % len(texts)]], progress=False)
            seconds[number, column] = time.perf_counter() - start
    return dict(zip(views, 1000 * np.median(seconds[1:], axis=0), strict=True))


def marked_dims(dim: int) -> list[int]:
    """The dims at which a grid of every dim shows numbers: 1, 2, 4, ... and D, none so near D that they would touch."""
    return [d for d in (2**i for i in range(32)) if d * 2 <= dim] + [dim]


def log_edges(dim: int) -> np.ndarray:
    """Edges between the dims on a logarithmic axis, in octaves from its left end: dim d spans [d-1] to [d]. (D+1,)."""
    middles = np.arange(dim + 1, dtype=float)  # the edge after dim d is the geometric mean of d and d + 1
    edges = np.log2(np.maximum(middles, 0.5) * (middles + 1)) / 2
    return edges - edges[0]


def steps_of(grids: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Step -> its grid, layers down and dims across: mean Spearman x 100 over the tasks.

    Args:
        grids: rows with step, layer, dim, spearman, as `replay.replay_grid` gives them.

    Raises:
        ValueError: for a missing column, no rows, a cell without a score, or a step that lacks cells others have.
    """
    missing = [c for c in ("step", "layer", "dim", "spearman") if c not in grids]
    if missing or not len(grids):
        raise ValueError(f"cannot replay this table: {'no rows' if not missing else 'missing ' + ', '.join(missing)}")
    if unscored := list(grids.loc[grids["spearman"].isna(), ["step", "layer", "dim"]].itertuples(index=False)):
        step, layer, dim = unscored[0]
        raise ValueError(f"cannot replay this table: step {step} has no score (NaN) at layer {layer}, dim {dim}")
    cells = grids.pivot_table(index=["step", "layer"], columns="dim", values="spearman", dropna=False)
    if cells.isna().any(axis=None):
        layer_step = cells.index[cells.isna().any(axis=1)][0]
        raise ValueError(f"step {layer_step[0]} lacks cells of layer {layer_step[1]} that other steps have")
    return {int(step): part.droplevel("step") for step, part in cells.groupby(level="step")}


def smoothed_terms(history: pd.DataFrame, smooth: int) -> pd.DataFrame:
    """The loss terms of a run, each a mean over up to ``smooth`` logged rows: one row a step (index), a column a term.

    Args:
        history: as `Run.history`.
        smooth: rows of the mean.

    Raises:
        ValueError: if it has no column ``step``, or no term, a column of other things than numbers, or for fewer rows
            than one.
    """
    check_count("smooth", smooth)
    names = loss_terms(history)
    if "step" not in history or not names:
        raise ValueError("cannot replay this history: it needs a column 'step' and one column a loss term")
    for column in ("step", *names):
        if not pd.api.types.is_numeric_dtype(history[column]):
            raise ValueError(f"cannot replay this history: its column {column!r} holds no numbers, leave it out")
    return history.set_index("step")[names].rolling(smooth, min_periods=1).mean()
