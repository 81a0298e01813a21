"""Can the preset `grid` be better without another training? Means of the weights of its runs, and of their start.

Use: python -m twodmse.study.beyond.averages --out figures/data --work runs/study
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from twodmse.averaging import average
from twodmse.data.sets import load_pairs
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import pairs_grid
from twodmse.study.plans import PLANS, StudyPlan, Trial
from twodmse.study.run import SUMMARY, score, scored_layers, summary_row, trained
from twodmse.study.tables import add_rows, markdown, read, table_path
from twodmse.training.folders import stored_order
from twodmse.training.ordering import reorder

TRIES = "study_tries"
ORIGINAL = (0.0, 0.2, 0.4)
AIMS = {"below": 75.0, "full": 80.5}  # on the test sets, set before the first try


@dataclass(frozen=True)
class Try:
    """A mean of weights: of runs of `grid` in equal parts, and of the encoder that they all started from."""

    rates: tuple[float, ...]  # learning rates of the runs
    original: float = 0.0  # share of the start
    seeds: int = 1  # runs at each rate

    @property
    def name(self) -> str:
        """What the table calls it."""
        repeated = f" x {self.seeds} seeds" if self.seeds > 1 else ""
        return " + ".join(f"{rate:g}" for rate in self.rates) + f"{repeated}, original {self.original:g}"

    @property
    def runs(self) -> list[tuple[float, int]]:
        """Learning rate and seed of each run."""
        return [(rate, seed) for rate in self.rates for seed in range(self.seeds)]

    def made(self, models: dict[tuple[float, int], Encoder], start: Encoder) -> Encoder:
        """The mean of the weights."""
        share = (1 - self.original) / len(self.runs)
        return average([*(models[run] for run in self.runs), start], [*[share] * len(self.runs), self.original])


BY_RATE = tuple(Try(rates, share) for rates in ((2e-4,), (4e-4,), (2e-4, 4e-4)) for share in ORIGINAL)
BY_SEED = tuple(Try((8e-4,), share, seeds=3) for share in ORIGINAL)  # at the rate that is best below
EVERY = (*BY_RATE, *BY_SEED)


def point(plan: StudyPlan, rate: float, seed: int = 0) -> Trial:
    """The run of `grid` at a learning rate."""
    found = next(trial for trial in plan.trials if trial.model == "grid" and trial.settings["lr"] == rate)
    return replace(found, seed=seed)


def start_of(plan: StudyPlan, folder: Path) -> Encoder:
    """The encoder that a run started from: the backbone, its coordinates in the run's order."""
    encoder = Encoder.load(plan.backbone)
    if order := stored_order(folder, encoder.dim):
        reorder(encoder.backbone, order)
    return encoder


def run_averages(plan: StudyPlan, out: Path, work: Path, say: Callable[[str], None] = print) -> None:
    """Score every mean on the validation pairs, then the chosen one on the test sets; rows stored are not made anew.

    Args:
        plan: that of the curves, whose runs of `grid` are averaged.
        out: folder of the tables; ``study_tries`` has one row a mean and split.
        work: folder of the models, as `run_study` leaves it; runs that are missing are trained first.
        say: takes each line of progress.
    """
    had = read(out, TRIES) if table_path(out, TRIES).is_file() else pd.DataFrame(columns=["run", "split"])
    todo = [one for one in EVERY if one.name not in set(had["run"])]
    if not todo and is_scored(had, chosen(had)):
        return say(f"chosen: {chosen(had)}")
    unscored = [one for one in EVERY if len(had) and one.name == chosen(had) and not is_scored(had, one.name)]
    runs = {run: point(plan, *run) for one in (*todo, *unscored) for run in one.runs}
    models = {run: trained(plan, trial, work)[0] for run, trial in runs.items()}
    first = next(iter(runs.values()))
    start = start_of(plan, work / first.name)
    layers = scored_layers(first, start)
    held_out = load_pairs(plan.validation)
    for left, one in enumerate(todo):
        say(f"{len(todo) - left} to do, now {one.name}")
        grid = pairs_grid(one.made(models, start), held_out, plan.mean_dims, layers, resamples=0)
        row = summary_row("validation", grid, plan.mean_dims, start.num_layers)
        add_rows(table_path(out, TRIES), pd.DataFrame([{"run": one.name, "original": one.original} | row]), work)
    found = read(out, TRIES)
    best = next(one for one in EVERY if one.name == chosen(found))
    say(f"chosen: {best.name}")
    if not is_scored(found, best.name):
        cells, _ = score(plan, best.made(models, start), layers)
        row = summary_row("test", cells, plan.mean_dims, start.num_layers)
        both = found[found["run"] == best.name].to_dict("records")
        both.append({"run": best.name, "original": best.original} | row)
        add_rows(table_path(out, TRIES), pd.DataFrame(both), work)


def chosen(tries: pd.DataFrame) -> str:
    """The mean with the best sum of both places, below the last layer and at the full cell, on the validation pairs."""
    rows = tries[tries["split"] == "validation"].set_index("run")
    return str((rows["below"] + rows["full"]).idxmax())


def is_scored(tries: pd.DataFrame, name: str) -> bool:
    """Whether the table has a mean's scores on the test sets."""
    return bool(((tries["run"] == name) & (tries["split"] == "test")).any())


def every_try(data: Path) -> pd.DataFrame:
    """Columns run, split, below and full: the means of weights, and the stored runs of the plan ``further``."""
    tables = [read(data, TRIES)] if table_path(data, TRIES).is_file() else []
    if table_path(data, SUMMARY).is_file():
        named = {trial.name: f"{trial.model}, {trial.settings['lr']:g}" for trial in PLANS["further"].trials}
        runs = read(data, SUMMARY)
        runs = runs[runs["run"].isin(named)]
        tables.append(runs.assign(run=runs["run"].map(named)))
    return pd.concat(tables)[["run", "split", "below", "full"]] if any(map(len, tables)) else pd.DataFrame()


def tries(data: Path) -> str:
    """Every try, on the validation pairs, and the chosen one on the test sets; a block of figures/CLAIMS.md."""
    found = every_try(data)
    if found.empty:
        return "No try is stored: not tried here."
    wide = found[found["split"] == "validation"].set_index("run")[["below", "full"]]
    planned = [f"{trial.model}, {trial.settings['lr']:g}" for trial in PLANS["further"].trials]
    missing = [name for name in planned if name not in wide.index]
    wide = wide.loc[[name for name in (*(one.name for one in EVERY), *planned) if name in wide.index]]
    wide.index = wide.index.rename("learning rates of the runs, share of the original; or the run, its learning rate")
    best, test = chosen(found), found[found["split"] == "test"].set_index("run")
    said = f"{markdown(wide)}\n\n" + (f"Not run: {'; '.join(missing)}. " if missing else "")
    said += f"Chosen, by the best sum of both: {best}."
    if best in test.index:
        said += (
            f" On the seven test sets it has {test.at[best, 'below']:.2f} over the layers below the last and "
            f"{test.at[best, 'full']:.2f} at the full cell; the aims set before were {AIMS['below']:.1f} and "
            f"{AIMS['full']:.1f}."
        )
    return said


def main(
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("figures/data"),
    work: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("runs/study"),
) -> None:
    """Score means of the weights of `grid`'s runs; stopped, it goes on."""
    run_averages(PLANS["curves"], out, work, typer.echo)


if __name__ == "__main__":
    typer.run(main)
