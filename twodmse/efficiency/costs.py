"""What a cell costs on this machine, in time, memory and bytes, and the best cell that fits a budget."""

import math
import tempfile
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from twodmse.checked import other_metrics
from twodmse.data.sets import distinct, load_pairs
from twodmse.data.tasks import load_tasks
from twodmse.efficiency.timing import half_range, peak_memory, take_turns
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.loading import check_encoder
from twodmse.encoder.reading import as_texts, check_count
from twodmse.evaluation.grid import check_grid, gold_ranks, rank_scores
from twodmse.evaluation.quantise import VECTOR_PRECISIONS, precision_scores, vector_bytes


class CellCost(NamedTuple):
    """A cell with what it costs and what it scores."""

    layer: int
    dim: int
    precision: str  # float32, int8 or binary
    ms: float  # one text, milliseconds
    bytes: int  # a stored vector
    spearman: float  # times 100, mean over tasks


def layer_costs(
    encoder: Encoder, texts: Sequence[str] | None = None, rounds: int = 15, batch_size: int = 64
) -> pd.DataFrame:
    """Time, memory and size of the encoder cut at each layer, on the machine this runs on.

    The cut models take turns round by round in this process, after a round that is not counted, so that whatever else
    slows the machine down slows all of them. Times are those of `Encoder.encode`, tokenising included.

    Args:
        encoder: the encoder.
        texts: what is encoded, walked through round by round; None takes the bundled test sentences.
        rounds: of one text; batches, which vary less, have a third as many.
        batch_size: texts of a batch; fewer if there are fewer texts.

    Returns:
        One row a layer 1..N: layer, one_text_ms (median milliseconds of encoding one text), one_text_spread (half the
        interquartile range), texts_per_second (median over batches), spread (of that), ratio (median over rounds of
        the time of one text to that of layer N in the same round), peak_bytes (while a batch is encoded, see
        `peak_memory`), parameters, bytes_on_disk (of the saved sub-model, tokenizer included).

    Raises:
        ValueError: for what is no encoder, texts that cannot be encoded, or no rounds.
    """
    check_encoder(encoder)
    check_count("batch_size", batch_size)
    texts = list(dict.fromkeys(bundled_texts() if texts is None else as_texts(texts)))
    views = {n: cut_view(encoder, n) for n in range(1, encoder.num_layers + 1)}
    size = min(batch_size, len(texts))

    def batch(number: int) -> list[str]:
        return [texts[(number * size + i) % len(texts)] for i in range(size)]

    def one_text(view: Encoder) -> Callable[[int], Any]:
        return lambda number: view.encode([texts[number % len(texts)]])

    def many_texts(view: Encoder) -> Callable[[int], Any]:
        return lambda number: view.encode(batch(number), batch_size=size)

    one = take_turns({n: one_text(view) for n, view in views.items()}, rounds)  # (rounds, N) seconds
    many = take_turns({n: many_texts(view) for n, view in views.items()}, math.ceil(rounds / 3))
    rows = []
    for n, view in views.items():
        speeds = size / many[n]
        peak = peak_memory(lambda view=view: view.encode(batch(0), batch_size=size), encoder.device)
        parameters = sum(p.numel() for p in view.backbone.parameters())
        ratio = (one[n] / one[encoder.num_layers]).median()
        times = (1000 * one[n].median(), 1000 * half_range(one[n]), speeds.median(), half_range(speeds))
        rows.append((n, *times, ratio, peak, parameters, saved_bytes(view)))
    columns = ["layer", "one_text_ms", "one_text_spread", "texts_per_second", "spread", "ratio"]
    return pd.DataFrame(rows, columns=[*columns, "peak_bytes", "parameters", "bytes_on_disk"])


def bundled_texts() -> list[str]:
    """The distinct sentences of the bundled test pairs."""
    return distinct(load_pairs("mini-sts"))[0]


def cut_view(encoder: Encoder, layer: int) -> Encoder:
    """An encoder of the first ``layer`` layers that shares its weights with ``encoder``: no copy to time or to hold."""
    view = Encoder(encoder.backbone.cut(layer).model, encoder.tokenizer, encoder.layout, encoder.backbone.head)
    view.dtype = encoder.dtype
    return view


def saved_bytes(encoder: Encoder) -> int:
    """Bytes of the folder that `Encoder.save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        saved = encoder.save(Path(folder) / "model")
        return sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())


def dim_costs(encoder: Encoder, dims: Sequence[int] | None = None) -> pd.DataFrame:
    """Bytes of one stored vector.

    Args:
        encoder: the encoder.
        dims: cut widths; None means the doubling ones from 8 and the full width.

    Returns:
        One row a dim and precision, columns dim, precision (float32, int8, binary), bytes.

    Raises:
        ValueError: for a dim out of range.
    """
    _, dims = check_grid(encoder, None, dims)
    rows = [(dim, precision, vector_bytes(dim, precision)) for dim in dims for precision in VECTOR_PRECISIONS]
    return pd.DataFrame(rows, columns=["dim", "precision", "bytes"])


def quantised_grid(
    encoder: Encoder,
    tasks: Sequence[Any] = ("mini-sts",),
    dims: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Score every wanted cell with its vectors kept in float32, in int8 and in binary, from one encoding pass a task.

    Args:
        encoder: the encoder.
        tasks: as `sts_grid`.
        dims: as `sts_grid`.
        layers: as `sts_grid`.

    Returns:
        One row a task, layer, dim and precision, columns task, layer, dim, precision, bytes (of a vector), spearman
        (times 100, of `twodmse.evaluation.quantise.precision_scores`).

    Raises:
        ValueError: for a layer or dim out of range, an unknown task, or one whose scores are all the same, before
            anything is encoded.
    """
    layers, dims = check_grid(encoder, layers, dims)
    rows, sets = [], load_tasks(tasks)
    golds = {pairs.name: gold_ranks(pairs) for pairs in sets}
    for pairs in sets:
        texts, left, right = distinct(pairs)
        states = encoder.states(texts, layers=layers)  # (L, n, D)
        gold = golds[pairs.name]  # (P,)
        for layer, vectors in zip(layers, states, strict=True):
            values = {}
            for precision in VECTOR_PRECISIONS:
                scores = precision_scores(vectors, left, right, dims, precision)  # (P, K)
                values[precision] = rank_scores(scores, gold)  # (K,)
            rows += [
                (pairs.name, layer, dim, precision, vector_bytes(dim, precision), values[precision][k])
                for k, dim in enumerate(dims)
                for precision in VECTOR_PRECISIONS
            ]
    return pd.DataFrame(rows, columns=["task", "layer", "dim", "precision", "bytes", "spearman"])


def cell_costs(grid: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """What each cell scores beside what it costs.

    Args:
        grid: of `quantised_grid` or `sts_grid`, whose vectors are in float32; the mean over its tasks is taken.
        costs: of `layer_costs`.

    Returns:
        One row a cell: layer, dim, precision, ms (one text), speed_up (layer N's time over this one), bytes (a vector),
        spearman, NaN where a task has no score, and metric, the names of all, where the grid has it. Layer 0 is left
        out: it may be probed, not used.

    Raises:
        ValueError: if ``costs`` lacks a layer of the grid, or the grid holds no cell, or none with a score.
    """
    grid = grid[grid["layer"] > 0]
    metrics = ", ".join(sorted(set(grid.get("metric", ()))))
    if grid.empty:
        raise ValueError("the grid holds no cell of layer 1 or above: there is nothing to choose from")
    if "precision" not in grid:
        grid = grid.assign(precision="float32", bytes=[vector_bytes(dim, "float32") for dim in grid["dim"]])
    unknown = sorted(set(grid["layer"]) - set(costs["layer"]))
    if unknown:
        raise ValueError(f"the costs lack layer {unknown[0]}: they must come from the model that the grid is of")
    times = costs[["layer", "ratio"]].assign(ms=costs["one_text_ms"], speed_up=1 / costs["ratio"])
    keys = ["layer", "dim", "precision", "bytes"]
    scores = grid.groupby(keys, sort=False)["spearman"]
    means = scores.mean().where(scores.count() == scores.size())  # none where a task has no score
    if means.isna().all():
        raise ValueError("no cell of the grid has a score on every task: give tasks whose pairs differ")
    cells = means.reset_index().merge(times, on="layer")
    cells = cells[["layer", "dim", "precision", "ms", "speed_up", "bytes", "spearman"]]
    return cells.assign(metric=metrics) if metrics else cells


def pareto_front(table: pd.DataFrame, cost_columns: Sequence[str], value: str = "spearman") -> pd.DataFrame:
    """The rows that no other row beats: none is as good or better in everything and better in something.

    Args:
        table: one row a choice, for example of `cell_costs`.
        cost_columns: columns of which less is better, for example ``["ms", "bytes"]``.
        value: the column of which more is better.

    Returns:
        Those rows by rising cost, with the table's columns.

    Raises:
        ValueError: for a column that is missing or holds NaN.
    """
    columns = [*cost_columns, value]
    for column in columns:
        if column not in table or table[column].isna().any():
            raise ValueError(f"{column!r} is {'no column' if column not in table else 'NaN in some row'} of this table")
    points = table[columns].to_numpy(dtype=np.float64, copy=True)  # (n, c + 1)
    points[:, -1] *= -1  # less is better in every column now
    beaten = [((points <= p).all(axis=1) & (points < p).any(axis=1)).any() for p in points]
    return table[~np.array(beaten, dtype=bool)].sort_values(list(cost_columns), kind="stable", ignore_index=True)


def best_cell(
    grid: pd.DataFrame,
    costs: pd.DataFrame,
    max_ms: float | None = None,
    max_bytes: float | None = None,
    min_spearman: float | None = None,
) -> CellCost:
    """The cell with the highest Spearman among those within the limits; of equals (to 0.01) the cheaper.

    Args:
        grid: of `quantised_grid` or `sts_grid`.
        costs: of `layer_costs`.
        max_ms: milliseconds of encoding one text.
        max_bytes: of a stored vector.
        min_spearman: times 100.

    Raises:
        ValueError: if no cell is within the limits; it says which limit leaves none, and what comes nearest. Also for
            ``min_spearman`` on a grid of another metric.
    """
    check_limits(max_ms, max_bytes, min_spearman)
    if min_spearman is not None and (others := other_metrics(grid)):
        raise ValueError(f"min_spearman is {min_spearman:g}, and the grid holds {others}: give a grid of Spearman")
    left = cell_costs(grid, costs).dropna(subset="spearman")
    within = []
    for name, limit, column in (("max_ms", max_ms, "ms"), ("max_bytes", max_bytes, "bytes")):
        if limit is None:
            continue
        fits = left[left[column] <= limit]
        if fits.empty:
            nearest = left.sort_values([column, "spearman"], ascending=[True, False]).iloc[0]
            raise _unmet(f"{name}={limit:g}", nearest, within)
        left, within = fits, [*within, f"{name}={limit:g}"]
    order = left.assign(spearman=left["spearman"].round(2)).sort_values(
        ["spearman", "ms", "bytes"], ascending=[False, True, True], kind="stable"
    )
    best = left.loc[order.index[0]]
    if min_spearman is not None and not order["spearman"].iloc[0] >= min_spearman:
        raise _unmet(f"min_spearman={min_spearman:g}", best, within)
    return _cell(best)


def check_limits(max_ms: float | None, max_bytes: float | None, min_spearman: float | None) -> None:
    """Refuse limits that no cell of any model could keep to.

    Raises:
        ValueError: for a limit of cost that is not above 0, or a Spearman outside -100..100.
    """
    for name, limit in (("max_ms", max_ms), ("max_bytes", max_bytes), ("min_spearman", min_spearman)):
        if limit is not None and not isinstance(limit, Real):
            raise ValueError(f"{name} is {limit!r}: it must be a number")
    for name, limit in (("max_ms", max_ms), ("max_bytes", max_bytes)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} is {limit:g}: it must be above 0")
    if min_spearman is not None and not -100 <= min_spearman <= 100:
        raise ValueError(f"min_spearman is {min_spearman:g}: it is times 100, so between -100 and 100")


def _cell(row: pd.Series) -> CellCost:
    numbers = (float(row["ms"]), int(row["bytes"]), float(row["spearman"]))
    return CellCost(int(row["layer"]), int(row["dim"]), row["precision"], *numbers)


def _unmet(limit: str, row: pd.Series, within: Sequence[str]) -> ValueError:
    cell = _cell(row)
    whose = f"no cell within {' and '.join(within)}" if within else "no cell"
    return ValueError(
        f"{whose} keeps to {limit}: the nearest, layer {cell.layer}, dim {cell.dim}, {cell.precision}, takes "
        f"{cell.ms:.2f} ms and {cell.bytes} bytes and scores {cell.spearman:.2f}"
    )
