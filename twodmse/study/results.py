"""What the study's tables say: grids, lines and paired differences of its models, from the stored tables alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from twodmse.study.plans import INDEPENDENT, PLANS, chosen_rates
from twodmse.study.tables import read

UNTOUCHED = "untouched"
MEAN_DIMS = PLANS["minilm"].mean_dims  # of every mean over cells


@dataclass(frozen=True)
class Study:
    """The tables of a study; `twodmse.study.run.run_study` says what is in them."""

    runs: pd.DataFrame
    cells: pd.DataFrame
    draws: pd.DataFrame
    kl: pd.DataFrame
    mean_dims: tuple[int, ...] = MEAN_DIMS
    rates: dict[str, float] = field(default_factory=dict)  # by model, where the runs were chosen by it

    @classmethod
    def read(cls, data: Path) -> "Study":
        """The study stored in a folder, without the points of curves over learning rates: `curve_points` has those.

        Raises:
            FileNotFoundError: naming the table that is missing.
        """
        runs, cells, draws, kl = (read(data, f"study_{name}") for name in ("runs", "cells", "draws", "kl"))
        return cls(runs[~runs["run"].str.contains("-lr")], cells, draws, kl)

    @classmethod
    def at_best(cls, data: Path, place: str, models: Sequence[str] | None = None) -> "Study":
        """The untouched model, and each other one at the rate best at one place on the validation pairs.

        Args:
            data: folder of the tables.
            place: ``full`` or ``below``; independent models, which have no other place, are at their best below.
            models: which; None is each one whose curve is whole.

        Raises:
            FileNotFoundError: naming the table that is missing.
        """
        summary = read(data, "study_summary")
        models = [*PLANS["curves"].whole_curves(summary)] if models is None else models
        picked = {model: chosen_rates(summary, model) for model in models}
        return cls.at_rates(data, {model: rates.get(place, rates["below"]) for model, rates in picked.items()})

    @classmethod
    def at_rates(cls, data: Path, rates: dict[str, float], mean_dims: tuple[int, ...] = MEAN_DIMS) -> "Study":
        """The untouched model, and the runs of each model at the learning rate given for it.

        Args:
            data: folder of the tables.
            rates: learning rate by model; one at which nothing is stored is left out.
            mean_dims: the dims of every mean over cells.

        Raises:
            FileNotFoundError: naming the table that is missing.
        """
        runs, cells, draws, kl = (read(data, f"study_{name}") for name in ("runs", "cells", "draws", "kl"))
        names = {f"{UNTOUCHED}-s0"}
        for model, rate in rates.items():
            fit = runs[(runs["model"] == model) & (runs["lr"] == rate)]
            names |= set(fit.drop_duplicates("seed", keep="last")["run"])  # of a run done twice, the curve's own
        return cls(runs[runs["run"].isin(names)], cells, draws, kl, mean_dims, rates)

    @property
    def models(self) -> list[str]:
        """The models that at least one finished run trained, in the order of their first runs."""
        return list(dict.fromkeys(self.runs["model"]))

    @property
    def depth(self) -> int:
        """N."""
        return int(self.cells["layer"].max())

    @property
    def width(self) -> int:
        """D."""
        return int(self.cells["dim"].max())

    def has(self, *models: str) -> bool:
        """Whether every one of the models has a finished run; independent models, one of each depth below N."""
        wanted = [m for model in models for m in (self.independent() if model == INDEPENDENT else [model])]
        return set(wanted) <= set(self.models)

    def independent(self) -> list[str]:
        """The names of the models trained at each depth below N."""
        return [f"{INDEPENDENT} {n}" for n in range(1, self.depth)]

    def seeds(self, model: str) -> int:
        """How many seeds a model has; independent models, the fewest of any depth."""
        names = self.independent() if model == INDEPENDENT else [model]
        return min(self.runs.loc[self.runs["model"] == name, "seed"].nunique() for name in names)

    def grid(self, model: str, dims: Sequence[int] | None = None) -> pd.DataFrame:
        """Mean over tasks of each cell and seed: columns seed, layer, dim, spearman.

        The grid of ``independent`` has layer n from the model trained at depth n.
        """
        names = self.independent() if model == INDEPENDENT else [model]
        rows = self.finished(self.cells)
        rows = rows[rows["model"].isin(names) & (True if dims is None else rows["dim"].isin(dims))]
        return rows.groupby(["seed", "layer", "dim"], as_index=False)["spearman"].mean()

    def finished(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that belong to finished runs."""
        return table[table["run"].isin(set(self.runs["run"]))]

    def line(self, model: str, over: str, layers: Sequence[int], dims: Sequence[int]) -> pd.DataFrame:
        """Mean Spearman over the seeds by ``over`` (layer or dim), with low and high the least and largest seed's.

        Args:
            model: its name.
            over: layer or dim; the mean is taken over the other one.
            layers: that count.
            dims: that count.

        Returns:
            Columns layer, dim, spearman, low, high, one row a value of ``over`` (the other column is 0); low and high
            are NaN with one seed.
        """
        cells = self.grid(model, dims)
        cells = cells[cells["layer"].isin(layers)]
        seeds = cells.groupby([over, "seed"])["spearman"].mean().unstack("seed")  # one column a seed
        table = pd.DataFrame({"spearman": seeds.mean(axis=1), "low": seeds.min(axis=1), "high": seeds.max(axis=1)})
        if seeds.shape[1] < 2:
            table[["low", "high"]] = np.nan
        other = "dim" if over == "layer" else "layer"
        return table.reset_index().assign(**{other: 0})

    def score(self, model: str, layers: Sequence[int], dims: Sequence[int]) -> float:
        """Mean Spearman x 100 over tasks, seeds and cells."""
        return float(self.seed_scores(model, layers, dims).mean())

    def seed_scores(self, model: str, layers: Sequence[int], dims: Sequence[int]) -> pd.Series:
        """Mean Spearman x 100 over tasks and cells of each seed that has all the layers, by seed."""
        cells = self.grid(model, dims)
        seeds = cells[cells["layer"].isin(layers)].groupby("seed")
        return seeds["spearman"].mean()[seeds["layer"].nunique() == len(layers)]

    def seed_pairs(self, first: str, second: str, layers: Sequence[int], whole: bool = False) -> pd.DataFrame:
        """The scores of two models in each seed that both have: same data, same order. The untouched has every seed.

        Returns:
            Columns first and second, Spearman x 100, indexed by seed.
        """
        ours, theirs = (self.seed_scores(model, layers, self.counted(whole)) for model in (first, second))
        if first == UNTOUCHED:
            return pd.DataFrame({"first": ours.mean(), "second": theirs})
        return pd.DataFrame({"first": ours, "second": theirs}).dropna()

    def resampled(
        self, model: str, layers: Sequence[int], whole: bool = False, seeds: Sequence[int] | None = None
    ) -> np.ndarray:
        """The same score in each of the stored resamples of the tasks' pairs: (R,).

        Args:
            model: its name.
            layers: that count.
            whole: the full width, instead of the mean over the plan's dims.
            seeds: that count; None means all.
        """
        rows = self.finished(self.draws)
        rows = rows if seeds is None else rows[rows["seed"].isin(seeds)]
        names = {n: f"{INDEPENDENT} {n}" if model == INDEPENDENT else model for n in layers}
        kept = [
            rows[(rows["model"] == name) & (rows["mean"] == (f"cell {n} {self.width}" if whole else f"layer {n}"))]
            for n, name in names.items()
        ]
        return np.mean([part.filter(like="draw_").mean().to_numpy() for part in kept], axis=0)

    def difference(self, first: str, second: str, layers: Sequence[int], whole: bool = False) -> dict[str, Any]:
        """``second`` minus ``first`` with its 95% interval by the paired bootstrap over the tasks' pairs.

        Each model is the mean of the seeds that both have; the interval says what another draw of test pairs could
        change, not what another seed could: `seed_pairs`.

        Returns:
            first, second (their means), difference, low, high, and seeds, a list of the differences seed by seed;
            Spearman x 100.
        """
        pairs = self.seed_pairs(first, second, layers, whole)
        theirs = self.resampled(first, layers, whole, None if first == UNTOUCHED else pairs.index)
        draws = self.resampled(second, layers, whole, pairs.index) - theirs
        low, high = np.percentile(draws, [2.5, 97.5])
        seeds = pairs["second"] - pairs["first"]
        found = {**pairs.mean(), "difference": seeds.mean(), "low": low, "high": high}
        return {name: float(value) for name, value in found.items()} | {"seeds": seeds.tolist()}

    def counted(self, whole: bool) -> Sequence[int]:
        """The dims that count: the full width, or those of every mean."""
        return [self.width] if whole else self.mean_dims

    @property
    def below(self) -> range:
        """The layers below the last."""
        return range(1, self.depth)


def falls(grid: pd.DataFrame) -> pd.DataFrame:
    """The steps from one dim to the next at which a layer's score falls: columns layer, dim, fall.

    The grid has layer, dim and spearman; the mean of a cell's rows counts.
    """
    cells = grid.pivot_table(index="layer", columns="dim", values="spearman")
    change = cells.diff(axis=1).stack()
    return (-change[change < 0]).rename("fall").reset_index()


def curve_points(data: Path) -> pd.DataFrame:
    """Every run to the full length, as a point of its model's curve over the learning rate.

    The rows of independent models of one rate and seed are one point, where all depths are run: layer n comes from the
    model of depth n.

    Returns:
        Columns model, lr, seed, below, full (test sets), validation_below, validation_full; Spearman x 100, NaN where a
        run has no such score. The untouched model has lr 0.
    """
    rows = read(data, "study_summary")
    rows = rows[~rows["model"].str.contains(",")]  # ablations and precisions are no curves
    own = rows["model"].isin(depths := {trial.model for trial in PLANS["curves"].trials if trial.layers})
    run = rows[own].groupby(["lr", "seed", "split"])["model"].transform("nunique").reindex(rows.index)
    rows = rows.assign(model=rows["model"].mask(own, INDEPENDENT))[~own | (run == len(depths))]
    wide = rows.pivot_table(index=["model", "lr", "seed"], columns="split", values=["below", "full"])
    names = {("below", "test"): "below", ("full", "test"): "full"}
    names |= {("below", "validation"): "validation_below", ("full", "validation"): "validation_full"}
    return wide.reindex(columns=list(names)).set_axis(list(names.values()), axis=1).reset_index()


def dominated(points: pd.DataFrame, by: pd.DataFrame) -> pd.Series:
    """Whether each point has one of ``by`` above it both below the last layer and at the full cell."""
    return pd.Series(
        [bool(((by["below"] > p.below) & (by["full"] > p.full)).any()) for p in points.itertuples()],
        index=points.index, dtype=bool,
    )  # fmt: skip
