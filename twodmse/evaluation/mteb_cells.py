"""MTEB at every cell: each text goes through the encoder once, then mteb scores each cell as a model of its own.

The states of a task's texts lie in a memory-mapped file, of the layers and coordinates asked for alone. Tasks, data,
metrics and result files are mteb's; needs the extra ``mteb``.
"""

import copy
import hashlib
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

try:
    import mteb
except ImportError as error:
    raise ImportError("tasks of mteb need the library: pip install 'twodmse[mteb]'") from error
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.models.abs_encoder import AbsEncoder, get_prompt
from mteb.models.model_meta import ModelMeta, ScoringFunction
from tqdm.auto import tqdm

from twodmse.checked import shown
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.hub import in_words, no_network
from twodmse.encoder.reading import normalise, prompt_of, read_layers
from twodmse.encoder.stored import identity
from twodmse.evaluation.grid import check_grid, checked_cells
from twodmse.evaluation.published import MEAN
from twodmse.evaluation.records import GRID_COLUMNS

PREFIX = "mteb:"  # of a task's name on the command line


def mteb_grid(
    encoder: Encoder,
    tasks: Sequence[str | mteb.AbsTask],
    cells: Sequence[tuple[int, int]] | None = None,
    results: str | Path | None = None,
    name: str = "model",
    prompts: dict[str, str] | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Score cells on tasks of MTEB, each text encoded once for all of them.

    Args:
        encoder: the encoder.
        tasks: names of mteb, with or without ``mteb:`` before them, or tasks of it. Text tasks of every type that mteb
            gives to an encoder.
        cells: the (layer, dim) to score; None means every layer at the doubling dims from 8 and the full one.
        results: folder for mteb's own result files, one a cell and task; what lies there of this very encoder (a
            hash of it is part of the path) is read and not scored again. None keeps none.
        name: of the model in those files: a cell is called ``twodmse/<name>-layer-3-dim-64``.
        prompts: put before texts, by mteb's rules of which: keys are task names, task types, ``query`` and
            ``document``, or two of them (``SciFact-query``). None takes the model's own; where none of them fits a
            text, the model's default prompt is put before it, as sentence-transformers does.
        batch_size: texts a forward pass.

    Returns:
        One row a task and cell, columns of `sts_grid` and metric: task, layer, dim, spearman, low, high, n, metric.
        ``spearman`` holds the task's main score times 100, mean over its splits and subsets, whatever that is: it keeps
        its name so that all that reads a grid reads this one, and ``metric`` is mteb's name of it (cosine_spearman,
        ndcg_at_10, ...). low and high are NaN; n is the number of distinct texts encoded, NaN where all results were
        read from files.

    Raises:
        ValueError: for no tasks, an unknown task, or a cell out of range.
        FileNotFoundError: if a task's data cannot be read.
    """
    loaded = [task_of(task) for task in ([tasks] if isinstance(tasks, str | mteb.AbsTask) else tasks)]
    if not loaded:
        raise ValueError("no tasks given: name at least one, for example mteb:STSBenchmark")
    cells = check_cells(encoder, cells)
    if not isinstance(prompts, Mapping | None):
        raise ValueError(f"prompts is {shown(prompts)}: give a dictionary, what it is for -> a prompt")
    prompts = dict(encoder.layout.prompts if prompts is None else prompts)
    mark = fingerprint(encoder, prompts)
    cache = None if results is None else mteb.ResultCache(results)
    tables = []
    for task in loaded:
        parts = task.metadata.tasks if isinstance(task, AbsTaskAggregate) else [task]
        ours = [part for part in parts if not part.data_loaded]  # what its owner has loaded stays
        dice = [load_data(part) for part in parts]
        with tempfile.TemporaryDirectory(prefix="twodmse-") as folder:
            texts = StateFile(encoder, Path(folder) / "states", cells, batch_size)
            scores = []
            for layer, dim in tqdm(cells, desc=task.metadata.name, unit="cell"):
                model = CellModel(texts, layer, dim, name, mark, prompts)
                for part, (rng, np_rng) in zip(parts, copy.deepcopy(dice), strict=True):
                    part.rng_state, part.np_rng = rng, np_rng  # every cell meets the same draws of the task
                settings = {"batch_size": batch_size, "show_progress_bar": False}
                with hushed() if scores else nullcontext():  # what mteb has to say of a task, it says once
                    found = mteb.evaluate(
                        model, task, cache=cache, co2_tracker=False, show_progress_bar=False, encode_kwargs=settings
                    )
                scores.append(100 * found.task_results[0].get_score())
        facts = {"task": task.metadata.name, "n": len(texts.places) or np.nan, "metric": task.metadata.main_score}
        table = pd.DataFrame(cells, columns=["layer", "dim"])
        tables.append(table.assign(spearman=scores, low=np.nan, high=np.nan, **facts))
        for part in ours:
            part.unload_data()
    return pd.concat(tables, ignore_index=True)[[*GRID_COLUMNS, "metric"]]


@contextmanager
def hushed() -> Iterator[None]:
    """Hold back mteb's warnings."""
    logger = logging.getLogger("mteb")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def mteb_difference(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two models' tables of `mteb_grid`, cell by cell; cells of one of them alone are left out.

    Returns:
        Columns task, layer, dim, first, second, difference (second - first), metric; with several tasks also the rows
        of their mean (task "mean"). mteb gives a task one score, so there is no interval.

    Raises:
        ValueError: if they have no cell of a task in common.
    """
    keys = ["task", "layer", "dim", "metric"]
    sides = [
        table.rename(columns={"spearman": side})[[*keys, side]]
        for side, table in (("first", first), ("second", second))
    ]
    table = sides[0].merge(sides[1], on=keys)
    if table.empty:
        raise ValueError("the two tables have no cell of a task in common")
    if table["task"].nunique() > 1:
        metrics = ", ".join(sorted(set(table["metric"])))
        cells = table.groupby(["layer", "dim"])[["first", "second"]]
        means = cells.agg(lambda scores: scores.mean(skipna=False)).reset_index()
        table = pd.concat([table, means.assign(task=MEAN, metric=metrics)], ignore_index=True)
    table = table.assign(difference=table["second"] - table["first"])
    return table[["task", "layer", "dim", "first", "second", "difference", "metric"]]


def task_of(task: str | mteb.AbsTask) -> mteb.AbsTask:
    """A task of mteb by its name.

    Raises:
        ValueError: for what is no name, or if mteb has none of that name; the nearest is named.
    """
    if isinstance(task, mteb.AbsTask):
        return task
    if not isinstance(task, str):
        raise ValueError(f"task {task!r} is no task of mteb: give its name, or a task of it")
    try:
        return mteb.get_task(task.removeprefix(PREFIX))
    except KeyError as error:
        raise ValueError(f"mteb has no task {task.removeprefix(PREFIX)!r}: {error.args[0]}") from error


def load_data(task: mteb.AbsTask) -> tuple[Any, Any]:
    """Load a task's data, once for all cells; returns its two generators of random numbers as they then are.

    Raises:
        FileNotFoundError: if the data cannot be read, with what went wrong.
    """
    try:
        if not task.data_loaded:
            task.load_data()
    except Exception as error:  # a task's own code raises whatever it raises
        cure = "check the network" if no_network(error) else "mend its load_data, or take another task"
        raise FileNotFoundError(
            f"the data of mteb's {task.metadata.name} could not be read ({in_words(error)}): {cure}"
        ) from error
    return task.rng_state, task.np_rng


def check_cells(encoder: Encoder, cells: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """The wanted cells, each once, by layer and dim.

    Raises:
        ValueError: for a cell out of range, none, or what is no list of cells.
    """
    cells = None if cells is None else checked_cells(cells)
    layers, dims = (None, None) if cells is None else ([n for n, _ in cells], [d for _, d in cells])
    layers, dims = check_grid(encoder, layers, dims)
    return [(n, d) for n in layers for d in dims] if cells is None else cells


def fingerprint(encoder: Encoder, prompts: dict[str, str]) -> str:
    """Names an encoder, by `identity`, and prompts: results of another one are never taken for its own."""
    return hashlib.sha256(repr((identity(encoder), sorted(prompts.items()))).encode()).hexdigest()[:16]


class StateFile:
    """The states of every text met so far, in a memory-mapped file of the layers and coordinates that cells need.

    Args:
        encoder: what reads the texts.
        path: of the file, made here.
        cells: the (layer, dim) that will be asked for.
        batch_size: texts a forward pass.
    """

    def __init__(self, encoder: Encoder, path: Path, cells: Sequence[tuple[int, int]], batch_size: int) -> None:
        self.encoder, self.path, self.batch_size = encoder, path, batch_size
        self.layers, self.dim = sorted({layer for layer, _ in cells}), max(dim for _, dim in cells)
        self.places: dict[tuple[str, str], int] = {}  # prompt and text -> their row

    def vectors(self, texts: Sequence[str], prompt: str, layer: int, dim: int) -> np.ndarray:
        """The vectors (n, d) of a cell, of length 1; what was not met before with this prompt is encoded first."""
        new = list(dict.fromkeys(text for text in texts if (prompt, text) not in self.places))
        if new:
            self._append(new, prompt)
        column = self._states("r")[:, self.layers.index(layer), :dim]  # (M, d)
        return normalise(column[[self.places[prompt, text] for text in texts]])

    def _append(self, texts: list[str], prompt: str) -> None:
        first = len(self.places)
        self.places |= {(prompt, text): first + i for i, text in enumerate(texts)}
        with open(self.path, "ab") as file:
            file.truncate(4 * len(self.places) * len(self.layers) * self.dim)
        states = self._states("r+")

        def keep(rows: np.ndarray, read: np.ndarray) -> None:
            states[first + rows] = read[..., : self.dim].swapaxes(0, 1)  # (L, b, D) to (b, L, d)

        read_layers(self.encoder, self.layers, texts, keep, self.batch_size, False, prompt)
        states.flush()

    def _states(self, mode: Literal["r", "r+"]) -> np.memmap:
        """(M, L, d): M texts, L layers, the first d coordinates."""
        return np.memmap(self.path, dtype=np.float32, mode=mode, shape=(len(self.places), len(self.layers), self.dim))


class CellModel(AbsEncoder):
    """A cell as mteb sees a model.

    Args:
        texts: where its vectors come from.
        layer: of the cell.
        dim: of the cell.
        name: of the model it is a cell of.
        mark: of that model's weights.
        prompts: put before texts, by mteb's rules.
    """

    def __init__(self, texts: StateFile, layer: int, dim: int, name: str, mark: str, prompts: dict[str, str]) -> None:
        self.texts, self.layer, self.dim, self.prompts = texts, layer, dim, prompts
        facts = {"name": f"twodmse/{name}-layer-{layer}-dim-{dim}", "revision": mark, "embed_dim": dim}
        facts |= {"max_tokens": texts.encoder.layout.max_length, "similarity_fn_name": ScoringFunction.COSINE}
        self.mteb_model_meta = ModelMeta.create_empty(facts)

    def encode(
        self, inputs: Iterable[dict[str, list[str]]], *, task_metadata: Any, prompt_type: Any = None, **_: Any
    ) -> np.ndarray:
        """The cell's vectors (n, d) of the texts of all batches, each after the prompt mteb chooses for the task."""
        prompt = prompt_of(self.texts.encoder.layout, get_prompt(self.prompts, task_metadata, prompt_type), None)
        texts = [text for batch in inputs for text in batch["text"]]
        return self.texts.vectors(texts, prompt, self.layer, self.dim)
