"""Comparing grids: two encoders over the same resamples of pairs, and a grid with what others published."""

from collections.abc import Callable, Sequence
from importlib.resources import files

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from twodmse.data import STS_TASKS, TextSet, load_pairs
from twodmse.encoder import Encoder
from twodmse.evaluation import (
    RESAMPLES,
    cell_cosines,
    check_grid,
    column_ranks,
    default_dims,
    expand,
    rank_correlation,
    resample_counts,
    resampled_correlations,
)

MEAN = "mean"  # the task name of a mean over tasks
COLUMNS = ["source", "model", "layer", "dim", "task", "spearman"]


def compare_models(
    first: Encoder,
    second: Encoder,
    tasks: Sequence[str] = ("mini-sts",),
    dims: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Paired bootstrap between the same cells of two encoders: which differences are not noise of the pairs drawn.

    Both models are scored on the same resamples of each task's pairs, so that what makes a pair hard for both cancels.
    The mean over tasks resamples every task on its own. Source: Efron and Tibshirani, An Introduction to the Bootstrap
    (1993), percentile intervals; pooled Spearman as `sts_grid`.

    Args:
        first, second: the encoders.
        tasks, dims, layers: as `sts_grid`; None means the layers and dims that both have.
        resamples: of the bootstrap, at least 100.

    Returns:
        One row a task, layer and dim, then the rows of the mean over tasks (task "mean"). Columns task, layer, dim,
        first and second (Spearman x 100), difference (second - first), low and high (its 95% interval), p (two-sided,
        at least 2 / (resamples + 1)), significant (0 lies outside low..high). Cells are tested one by one: of 36
        equal ones about two are expected to be marked.

    Raises:
        ValueError: for a layer or dim that one of them lacks, an unknown task, or fewer than 100 resamples, before
            anything is encoded.
    """
    if resamples < 100:
        raise ValueError(f"resamples is {resamples}: an interval needs at least 100")
    if layers is None:
        layers = range(1, min(first.num_layers, second.num_layers) + 1)
    if dims is None:
        dims = default_dims(min(first.dim, second.dim))
    for encoder in (first, second):
        wanted = check_grid(encoder, layers, dims)
    layers, dims = wanted
    tables, every = [], []
    for pairs in [load_pairs(task) for task in expand(tasks)]:
        counts = resample_counts(len(pairs), resamples, pairs.name)
        scores, draws = zip(*(cell_draws(e, pairs, layers, dims, counts) for e in (first, second)), strict=True)
        every.append((*scores, draws[1] - draws[0]))
        tables.append(_difference_rows(pairs.name, layers, dims, *every[-1]))
    means = [np.mean(part, axis=0) for part in zip(*every, strict=True)]
    return pd.concat([*tables, _difference_rows(MEAN, layers, dims, *means)], ignore_index=True)


def cell_draws(
    encoder: Encoder, pairs: TextSet, layers: Sequence[int], dims: Sequence[int], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spearman x 100 of every cell, on all pairs and in each resample, from one encoding.

    Args:
        encoder: the encoder. pairs: P scored pairs. layers: L of them. dims: K of them. counts: (R, P), as
            `resample_counts`.

    Returns:
        (L, K) and (L, R, K).
    """
    distinct = list(dict.fromkeys(pairs.columns[0] + pairs.columns[1]))
    place = {text: i for i, text in enumerate(distinct)}
    left, right = ([place[text] for text in column] for column in pairs.columns)
    states = encoder.states(distinct)  # (N+1, n, D)
    gold = rankdata(pairs.gold)  # (P,)
    scores, draws = [], []
    for layer in layers:
        ranks = column_ranks(cell_cosines(states[layer], left, right, dims))  # (P, K)
        scores.append(100 * rank_correlation(ranks, gold))  # (K,)
        draws.append(100 * resampled_correlations(ranks, gold, counts))  # (R, K)
    return np.stack(scores), np.stack(draws)


def _difference_rows(
    task: str, layers: Sequence[int], dims: Sequence[int], first: np.ndarray, second: np.ndarray, draws: np.ndarray
) -> pd.DataFrame:
    """Rows of `compare_models` from scores (L, K) and resampled differences (L, R, K)."""
    low, high = np.percentile(draws, [2.5, 97.5], axis=1)  # (L, K) each
    beyond = np.minimum((draws <= 0).sum(axis=1), (draws >= 0).sum(axis=1))  # (L, K) resamples on the other side of 0
    p = np.minimum(1, 2 * (beyond + 1) / (draws.shape[1] + 1))  # + 1: the sample itself counts as a resample
    table = pd.DataFrame({"task": task, "layer": np.repeat(layers, len(dims)), "dim": np.tile(dims, len(layers))})
    values = {"first": first, "second": second, "difference": second - first, "low": low, "high": high, "p": p}
    table = table.assign(**{name: value.ravel() for name, value in values.items()})
    return table.assign(significant=(table["low"] > 0) | (table["high"] < 0))


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: those of the mean over tasks where the table has them, else the mean of its number columns.

    Args:
        table: as `compare_models` or `minus_published`, of one published model.
    """
    if (table["task"] == MEAN).any():
        return table[table["task"] == MEAN].reset_index(drop=True)
    if table["task"].nunique() == 1:
        return table.reset_index(drop=True)
    return table.groupby(["layer", "dim"], as_index=False)[["ours", "published", "difference"]].mean()


def published() -> list[str]:
    """The names `published_grid` takes: each table alone, then each of its models as ``table/model``."""
    names = []
    for table, read in TABLES.items():
        names += [table, *(f"{table}/{model}" for model in dict.fromkeys(read(table)["model"]))]
    return names


def published_grid(name: str) -> pd.DataFrame:
    """Scores that others published; ``resources/published/README.md`` names every source.

    Args:
        name: a table, or ``table/model`` for one model of it, as `published` lists them.

    Returns:
        One row a model, cell and task, columns source, model, layer, dim, task, spearman (x 100). Task "mean" is the
        mean over the seven sets of the paper.

    Raises:
        ValueError: for an unknown name.
    """
    table, _, model = name.partition("/")
    if table not in TABLES:
        raise ValueError(f"unknown published table {name!r}: choose one of {', '.join(TABLES)}")
    grid = TABLES[table](table)
    if not model:
        return grid
    if model not in set(grid["model"]):
        models = ", ".join(dict.fromkeys(grid["model"]))
        raise ValueError(f"unknown model {model!r} in the published table {table}: choose one of {models}")
    return grid[grid["model"] == model].reset_index(drop=True)


def minus_published(grid: pd.DataFrame, name: str) -> pd.DataFrame:
    """A grid minus a published one, at the cells and tasks that both have.

    Args:
        grid: columns as `sts_grid`. With all seven sets of the paper it is compared on their mean too.
        name: as `published_grid`.

    Returns:
        One row a published model, task and cell, columns model, task, layer, dim, ours, published, difference (ours -
        published), Spearman x 100.

    Raises:
        ValueError: for an unknown name, or if there is no task or no cell in common; both sides are named.
    """
    theirs = published_grid(name)
    ours = with_mean(grid)
    tasks = [task for task in dict.fromkeys(ours["task"]) if task in set(theirs["task"])]
    if not tasks:
        wanted = ", ".join(dict.fromkeys(theirs["task"]))
        raise ValueError(
            f"no task in common with {name}: it has {wanted} (mean is that of the seven sets, 'paper'), "
            f"the grid has {', '.join(dict.fromkeys(ours['task']))}"
        )
    theirs, ours = theirs[theirs["task"].isin(tasks)], ours[ours["task"].isin(tasks)]
    both = theirs.merge(ours, on=["task", "layer", "dim"], suffixes=("_theirs", ""))
    if both.empty:
        raise ValueError(f"no cell in common with {name}: it has {_cells(theirs)}, the grid has {_cells(ours)}")
    both = both.rename(columns={"spearman": "ours", "spearman_theirs": "published"})
    both = both.assign(difference=both["ours"] - both["published"])
    return both[["model", "task", "layer", "dim", "ours", "published", "difference"]]


def with_mean(grid: pd.DataFrame) -> pd.DataFrame:
    """Columns task, layer, dim, spearman of a grid, and rows of the mean over the seven sets where it has them all."""
    ours = grid[["task", "layer", "dim", "spearman"]]
    seven = ours[ours["task"].isin(STS_TASKS)]
    if seven["task"].nunique() < len(STS_TASKS):
        return ours
    mean = seven.groupby(["layer", "dim"], as_index=False)["spearman"].mean().assign(task=MEAN)
    return pd.concat([ours, mean], ignore_index=True)


def _cells(table: pd.DataFrame) -> str:
    """The layers and dims of a table in words; a long list by its ends."""
    words = []
    for word in ("layer", "dim"):
        values = sorted(set(table[word]))
        words.append(f"{word}s " + (f"{values[0]}..{values[-1]}" if len(values) > 12 else ", ".join(map(str, values))))
    return " and ".join(words)


SETS = {"STS12": "sts12", "STS13": "sts13", "STS14": "sts14", "STS15": "sts15", "STS16": "sts16", "STSB": "stsb"}
SETS |= {"SICKR": "sickr", "avg": MEAN, "avg7": MEAN}
SIZES = {  # (N, D) of the whole models in full_size_7sts.csv, by the word in their name
    "bert-base": (12, 768),
    "llama-7b": (32, 4096),
    "llama-13b": (40, 5120),
    "UAE-Large": (24, 1024),
    "MiniLM-L6": (6, 384),
}


def _csv(table: str) -> pd.DataFrame:
    with (files("twodmse") / "resources" / "published" / f"{table}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def _tidy(wide: pd.DataFrame, scale: float) -> pd.DataFrame:
    """Columns COLUMNS from one column a task."""
    tasks = [c for c in wide if c in SETS]
    long = wide.melt(["source", "model", "layer", "dim"], tasks, "task", "spearman").dropna(subset="spearman")
    return long.assign(task=long["task"].map(SETS), spearman=scale * long["spearman"])[COLUMNS].reset_index(drop=True)


def _reproduce(table: str) -> pd.DataFrame:
    long = _csv(table).melt(["layer", "method"], var_name="column", value_name="avg7")
    parts = long["column"].str.extract(r"(v\d)_d(\d+)")  # v1_d8: code version, dim
    model = long["method"] + "-" + parts[0]
    return _tidy(long.assign(source="ielab/2DMSE-Reproduce README", model=model, dim=parts[1].astype(int)), 100)


def _starbucks(table: str) -> pd.DataFrame:
    wide = _csv(table)
    return _tidy(wide.assign(source="ielab/Starbucks README, table A1", model=wide["method"]), 100)


def _layers_only(table: str) -> pd.DataFrame:
    wide = _csv(table).rename(columns={"layers": "layer", "stsb": "STSB"})
    source = "sentence-transformers documentation, model distillation"
    return _tidy(wide.assign(source=source, model="stsb-roberta-base-distilled", dim=768), 1)


def _whole(table: str) -> pd.DataFrame:
    wide = _csv(table)
    sizes = [next(size for word, size in SIZES.items() if word in model) for model in wide["model"]]
    layers, dims = zip(*sizes, strict=True)
    return _tidy(wide.assign(layer=layers, dim=dims), 1)


TABLES: dict[str, Callable[[str], pd.DataFrame]] = {
    "reproduce_grid_7sts": _reproduce,
    "starbucks_table_a1": _starbucks,
    "layers_only_stsb": _layers_only,
    "full_size_7sts": _whole,
    "minilm_mteb": _whole,
}
