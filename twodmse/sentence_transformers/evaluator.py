"""GridEvaluator: the grid of cells as an evaluator for SentenceTransformerTrainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import SentenceEvaluator

from twodmse.data.tasks import load_tasks
from twodmse.encoder.reading import check_count
from twodmse.evaluation.grid import checked_cells, default_dims, gold_ranks, pairs_grid
from twodmse.files import atomic_file
from twodmse.sentence_transformers.layers import LayerReader

MEAN = "mean"


class GridEvaluator(SentenceEvaluator):
    """Scores every wanted cell on STS tasks at each evaluation, from one pass over the texts.

    The metrics are Spearman x 100 of the cosine: ``mini-sts_layer3_dim64`` for a cell of a task, and ``mean`` over
    cells and tasks, which is the primary one. With the default name the trainer knows it as ``eval_grid_mean``: give
    that as ``metric_for_best_model``, with ``greater_is_better=True``.

    Args:
        tasks: as `sts_grid`: names that `load_pairs` knows, ``"paper"``, files, or scored sets in memory.
        cells: the (layer, dim) to score; None means every layer at the doubling dims from 8 and the full one. Layer 0,
            the embedding layer, may be scored.
        name: put before every metric, and the file's name.
        batch_size: texts a forward pass.
        write_csv: append the table of each evaluation to ``<name>_evaluation_results.csv`` in the trainer's folder:
            epoch, step, then the columns of `sts_grid`.

    Raises:
        ValueError: if there are no tasks, a task is unknown or has no scores, or two have the same name; for what is no
            cell, and a batch size below 1.
    """

    def __init__(
        self,
        tasks: Sequence[Any] = ("mini-sts-validation",),
        cells: Sequence[tuple[int, int]] | None = None,
        name: str = "grid",
        batch_size: int = 64,
        write_csv: bool = True,
    ) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        sets = load_tasks(tasks)
        for one in sets:
            gold_ranks(one)  # refuses scores that are all the same
        self.sets = {Path(one.name).stem: one for one in sets}
        if len(self.sets) < len(sets):
            raise ValueError(f"two of the tasks {', '.join(one.name for one in sets)} have the same name: rename one")
        self.cells = None if cells is None else checked_cells(cells)
        self.name, self.batch_size, self.write_csv = name, batch_size, write_csv
        self.primary_metric = f"{name}_{MEAN}" if name else MEAN
        self.csv_file = f"{name or 'grid'}_evaluation_results.csv"

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Score the model; arguments and result as the trainer's other evaluators have them.

        Raises:
            ValueError: for a cell that the model does not have.
        """
        grid = self.grid(model)
        metrics = {f"{row.task}_layer{row.layer}_dim{row.dim}": row.spearman for row in grid.itertuples()}
        metrics = self.prefix_name_to_metrics(metrics | {MEAN: grid["spearman"].mean(skipna=False)}, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        if output_path is not None and self.write_csv:
            self._append(grid.assign(epoch=epoch, step=steps), Path(output_path) / self.csv_file)
        return metrics

    def grid(self, model: SentenceTransformer) -> pd.DataFrame:
        """The table of the model's cells, columns as `sts_grid` without an interval.

        Raises:
            ValueError: for a cell that the model does not have.
        """
        reader = LayerReader(model, self.batch_size)
        cells = self.cells or [(n, d) for n in range(1, reader.num_layers + 1) for d in default_dims(reader.dim)]
        for layer, dim in cells:
            if not (0 <= layer <= reader.num_layers and 1 <= dim <= reader.dim):
                most = f"layers 0..{reader.num_layers} and dims 1..{reader.dim}"
                raise ValueError(f"cell ({layer}, {dim}) is out of range: this model has {most}")
        layers, dims = (sorted(set(numbers)) for numbers in zip(*cells, strict=True))
        tables = [
            pairs_grid(reader, pairs, dims, layers, resamples=0).assign(task=name) for name, pairs in self.sets.items()
        ]
        table = pd.concat(tables, ignore_index=True)
        wanted = pd.MultiIndex.from_frame(table[["layer", "dim"]]).isin(cells)
        return table[wanted].reset_index(drop=True)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this evaluator."""
        return {"tasks": list(self.sets), "cells": self.cells or "all", "batch_size": self.batch_size}

    @staticmethod
    def _append(table: pd.DataFrame, path: Path) -> None:
        table = table[["epoch", "step", *table.columns.drop(["epoch", "step"])]]
        if path.exists():
            table = pd.concat([pd.read_csv(path), table], ignore_index=True)
        with atomic_file(path) as work:
            table.to_csv(work, index=False)
