"""Grids that others published, and a grid of ours minus one of theirs."""

from collections.abc import Callable
from importlib.resources import files

import pandas as pd

from twodmse.checked import other_metrics
from twodmse.data.sets import TASK_GROUPS

MEAN, MEAN_SENTEVAL = "mean", "mean-senteval"  # task names of means over seven tasks
MEANS = {MEAN: TASK_GROUPS["paper"], MEAN_SENTEVAL: TASK_GROUPS["senteval"]}
PUBLISHED_COLUMNS = ["source", "model", "layer", "dim", "task", "spearman"]


def published_names() -> list[str]:
    """The names `published_grid` takes: each table alone, then each of its models as ``table/model``."""
    names = []
    for table, read in TABLES.items():
        names += [table, *(f"{table}/{model}" for model in dict.fromkeys(read(table)["model"]))]
    return names


def published_grid(name: str) -> pd.DataFrame:
    """Scores that others published; ``resources/published/README.md`` names every source.

    Args:
        name: a table, or ``table/model`` for one model of it, as `published_names` lists them.

    Returns:
        One row a model, cell and task, columns source, model, layer, dim, task, spearman (x 100). Task "mean" is the
        mean over the seven sets of the paper. Scores that SentEval computed have SICK-R on its test split alone: task
        "sickr-test", and "mean-senteval" for the mean over the seven.

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
        grid: columns as `sts_grid`. With all seven sets of the paper, or of SentEval, it is compared on their mean too.
        name: as `published_grid`.

    Returns:
        One row a published model, task and cell, columns model, task, layer, dim, ours, published, difference (ours -
        published), Spearman x 100.

    Raises:
        ValueError: for an unknown name, a grid of another metric or with a cell twice, or if there is no task or no
            cell in common; both sides are named.
    """
    theirs = published_grid(name)
    ours = with_mean(grid)
    tasks = [task for task in dict.fromkeys(ours["task"]) if task in set(theirs["task"])]
    if not tasks:
        wanted = ", ".join(dict.fromkeys(theirs["task"]))
        raise ValueError(
            f"no task in common with {name}: it has {wanted} (mean is that of the seven sets 'paper', mean-senteval "
            f"of 'senteval'), the grid has {', '.join(dict.fromkeys(ours['task']))}"
        )
    theirs, ours = theirs[theirs["task"].isin(tasks)], ours[ours["task"].isin(tasks)]
    both = theirs.merge(ours, on=["task", "layer", "dim"], suffixes=("_theirs", ""))
    if both.empty:
        raise ValueError(f"no cell in common with {name}: it has {_cells(theirs)}, the grid has {_cells(ours)}")
    both = both.rename(columns={"spearman": "ours", "spearman_theirs": "published"})
    both = both.assign(difference=both["ours"] - both["published"])
    return both[["model", "task", "layer", "dim", "ours", "published", "difference"]]


def with_mean(grid: pd.DataFrame) -> pd.DataFrame:
    """Columns task, layer, dim, spearman of a grid, and the mean of each cell that has all seven sets of `MEANS`."""
    if others := other_metrics(grid):
        raise ValueError(f"the grid holds {others}, and published ones Spearman: give a grid of it")
    if grid.duplicated(["task", "layer", "dim"]).any():
        raise ValueError("the grid has a cell of a task more than once: keep the rows of one model and precision")
    tables = [grid[["task", "layer", "dim", "spearman"]]]
    for name, sets in MEANS.items():
        cells = tables[0][tables[0]["task"].isin(sets)].groupby(["layer", "dim"])["spearman"]
        means = cells.mean().where(cells.count() == len(sets))[cells.size() == len(sets)]  # of all seven, or none
        tables.append(means.reset_index().assign(task=name))
    return pd.concat(tables, ignore_index=True)


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
SENTEVAL = {"sickr": "sickr-test", MEAN: MEAN_SENTEVAL}  # what these are of where SentEval computed the scores


def _csv(table: str) -> pd.DataFrame:
    with (files("twodmse") / "resources" / "published" / f"{table}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def _tidy(wide: pd.DataFrame, scale: float) -> pd.DataFrame:
    """Columns PUBLISHED_COLUMNS from one column a task, and a column ``senteval`` where SentEval computed some."""
    tasks = [c for c in wide if c in SETS]
    kept = [c for c in ("source", "model", "layer", "dim", "senteval") if c in wide]
    long = wide.melt(kept, tasks, "task", "spearman").dropna(subset="spearman")
    long = long.assign(task=long["task"].map(SETS), spearman=scale * long["spearman"])
    if "senteval" in long:
        long["task"] = long["task"].where(~long["senteval"], long["task"].replace(SENTEVAL))
    return long[PUBLISHED_COLUMNS].reset_index(drop=True)


def _reproduce(table: str) -> pd.DataFrame:
    long = _csv(table).melt(["layer", "method"], var_name="column", value_name="avg7")
    parts = long["column"].str.extract(r"(v\d)_d(\d+)")  # v1_d8: code version, dim
    model = long["method"] + "-" + parts[0]
    long = long.assign(source="ielab/2DMSE-Reproduce README", model=model, dim=parts[1].astype(int))
    return _tidy(long.assign(senteval=parts[0] == "v2"), 100)


def _starbucks(table: str) -> pd.DataFrame:
    wide = _csv(table)
    return _tidy(wide.assign(source="ielab/Starbucks README, table A1", model=wide["method"]), 100)


def _layers_only(table: str) -> pd.DataFrame:
    wide = _csv(table).rename(columns={"layers": "layer", "stsb": "STSB"})
    source = "sentence-transformers documentation, model distillation"
    return _tidy(wide.assign(source=source, model="stsb-roberta-base-distilled", dim=768), 1)


def _cells_of_card(table: str) -> pd.DataFrame:
    return _tidy(_csv(table), 1)


def _whole(table: str) -> pd.DataFrame:
    wide = _csv(table).assign(senteval=table == "full_size_7sts")
    sizes = [next(size for word, size in SIZES.items() if word in model) for model in wide["model"]]
    layers, dims = zip(*sizes, strict=True)
    return _tidy(wide.assign(layer=layers, dim=dims), 1)


TABLES: dict[str, Callable[[str], pd.DataFrame]] = {
    "reproduce_grid_7sts": _reproduce,
    "starbucks_table_a1": _starbucks,
    "layers_only_stsb": _layers_only,
    "full_size_7sts": _whole,
    "minilm_mteb": _whole,
    "mmbert_2d_card": _cells_of_card,
}
