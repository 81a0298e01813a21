"""The study: one table of training runs from one backbone, scored alike; stopped at any moment, it goes on.

Every run is written down when it ends and skipped from then on. Several processes may work on one folder: each takes
the next run that no other one holds.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from twodmse.config import TrainConfig
from twodmse.data.sets import distinct, load_pairs, load_texts
from twodmse.data.tasks import expand
from twodmse.efficiency.timing import processor
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.compare import cell_draws
from twodmse.evaluation.grid import pairs_grid
from twodmse.evaluation.records import commit
from twodmse.evaluation.resampling import RESAMPLES, resamples_of
from twodmse.probes import kl_to_last, score_kl
from twodmse.study.plans import StudyPlan, Trial
from twodmse.study.tables import add_rows, table_path
from twodmse.training.arguments import wants_bf16
from twodmse.training.folders import check_same_run, is_finished
from twodmse.training.runs import train_encoder
from twodmse.training.trainer import MODEL_FOLDER

SWEEP, RUNS, CELLS, DRAWS, KL = ("study_sweep", "study_runs", "study_cells", "study_draws", "study_kl")
SUMMARY = "study_summary"
KEPT_DRAWS = 400  # resamples kept of each mean, for paired comparisons of any two runs from the tables alone
WAIT = 5.0  # seconds between looks at what the other processes hold


def run_study(plan: StudyPlan, out: str | Path, work: str | Path, say: Callable[[str], None] = print) -> None:
    """Do every run of a plan that its tables do not hold yet.

    Before the first run of a recipe comes its sweep: a few steps at each learning rate, scored on the plan's validation
    pairs; the runs take the best one. Tables in ``out``: ``study_sweep`` (one row a recipe and rate), ``study_runs``
    (one row a run: what it was, where and how long it ran), ``study_cells`` (every cell of every task), ``study_draws``
    (means over the tasks in each of 400 resamples, the same ones for every run), ``study_kl`` (per layer, on the
    validation texts), ``study_summary`` (one row a run and split, test or validation: the mean over the layers below
    the last, that of the last layer, and the full cell). Cells and draws are packed (``.csv.gz``).

    Args:
        plan: the runs.
        out: folder of the tables.
        work: folder of the models; a run cut short goes on from there.
        say: takes each line of progress.

    Raises:
        OSError: if the data or the backbone cannot be read, or a table cannot be written.
    """
    out, work = Path(out), Path(work)
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    here = machine()  # now: the checkout may move on while the runs last
    for trial in in_turn(plan, out, work, say):
        if trial.sweep:
            sweep_trial(plan, trial, out, work)
        else:
            study_trial(plan, trial, out, work, here)


def in_turn(plan: StudyPlan, out: Path, work: Path, say: Callable[[str], None]) -> Iterator[Trial]:
    """Trials that no table holds and no other process runs; ends when the tables hold all, whoever ran them."""
    while left := to_do(plan, out):
        for trial in left:
            if trial.rate_of and not {run.name for run in plan.sweep_of(trial.rate_of)} <= done(out):
                continue  # another process is at its sweep
            with claimed(work, trial) as mine:
                if mine and trial.name not in (had := done(out)):
                    say(f"{len({t.name for t in left} - had)} to do, now {trial.name}")
                    yield trial
                    break  # what it wrote may say what comes next
        else:
            time.sleep(WAIT)


def to_do(plan: StudyPlan, out: Path) -> list[Trial]:
    """The trials that no table holds yet, in order."""
    had = done(out)
    return [trial for trial in queued(plan, out) if trial.name not in had]


def queued(plan: StudyPlan, out: Path) -> list[Trial]:
    """Every trial that is known so far, in order: the last ones repeat what the stored scores pick."""
    summary = table_path(out, SUMMARY)
    repeats = plan.repeats(pd.read_csv(summary)) if plan.repeated and summary.is_file() else []
    return [*plan.queue(swept(out)), *repeats]


def swept(out: Path) -> pd.DataFrame | None:
    """The rows of the sweeps, as far as they are done; None before the first."""
    path = table_path(out, SWEEP)
    return pd.read_csv(path) if path.is_file() else None


@contextmanager
def claimed(work: Path, trial: Trial) -> Iterator[bool]:
    """Whether this process may do the trial; the claim ends with the block, or with the process."""
    lock = FileLock(work / f"{trial.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def done(out: Path) -> set[str]:
    """The names of the runs, sweeps among them, that the tables hold."""
    tables = [path for path in (table_path(out, SWEEP), table_path(out, RUNS)) if path.is_file()]
    return {name for path in tables for name in pd.read_csv(path, usecols=["run"])["run"]}


def sweep_trial(plan: StudyPlan, trial: Trial, out: Path, work: Path) -> None:
    """Train a few steps at one learning rate and write the mean of its cells on the validation pairs."""
    encoder, _ = trained(plan, trial, work)
    grid = pairs_grid(encoder, load_pairs(plan.validation), plan.mean_dims, scored_layers(trial, encoder), resamples=0)
    row = {"run": trial.name, "model": trial.model, "lr": trial.settings["lr"], "steps": steps_of(plan, trial)}
    row |= {"seed": trial.seed, "task": plan.validation, "spearman": grid["spearman"].mean()}
    row["top"] = grid["spearman"].iloc[-1]  # its last layer at full width
    row |= summary_row("validation", grid, plan.mean_dims, Encoder.load(plan.backbone).num_layers)
    add_rows(table_path(out, SWEEP), pd.DataFrame([row]), work)
    shutil.rmtree(work / trial.name)


def best_rate(sweep: pd.DataFrame, model: str) -> float:
    """The learning rate with the best mean over cells in the sweep.

    Raises:
        ValueError: if the sweep does not have the model.
    """
    rows = sweep[sweep["model"] == model]
    if rows.empty:
        raise ValueError(
            f"the sweep has no learning rate for {model!r}: it has {', '.join(sorted(set(sweep['model'])))}"
        )
    return float(rows.sort_values("spearman")["lr"].iloc[-1])


def study_trial(plan: StudyPlan, trial: Trial, out: Path, work: Path, here: dict[str, object]) -> None:
    """One run: train with the swept rate, score all tasks, write its rows; the row in ``study_runs`` comes last.

    Args:
        plan: what all runs share.
        trial: the run.
        out: folder of the tables.
        work: folder of the models.
        here: columns on where it runs.
    """
    if trial.rate_of:
        rate = best_rate(pd.read_csv(table_path(out, SWEEP)), trial.rate_of)
        trial = trial.with_settings(lr=rate)
    encoder, seconds = trained(plan, trial, work)
    layers = scored_layers(trial, encoder)
    cells, draws = score(plan, encoder, layers)
    held_out = load_pairs(plan.validation)
    validation = pairs_grid(encoder, held_out, plan.dims, layers, resamples=0)
    texts = distinct(held_out)[0]
    facts = {"run": trial.name, "model": trial.model, "seed": trial.seed, "steps": steps_of(plan, trial)}
    for table, rows in {CELLS: cells, DRAWS: draws, KL: layer_kl(encoder, texts)}.items():
        add_rows(table_path(out, table), tagged(rows, facts), work)
    depth = Encoder.load(plan.backbone).num_layers
    splits = {"test": cells, "validation": validation}
    rows = [summary_row(name, grid, plan.mean_dims, depth) for name, grid in splits.items()]
    one = {k: facts[k] for k in ("run", "model", "seed")} | {"lr": trial.settings.get("lr", 0.0)}
    add_rows(table_path(out, SUMMARY), tagged(pd.DataFrame(rows), one), work)
    facts |= {"recipe": trial.settings.get("recipe", ""), "layers": encoder.num_layers}
    facts |= {"switches": trial.switches(), "lr": trial.settings.get("lr", 0.0), "batch_size": plan.batch_size}
    facts |= {"data": plan.data, "backbone": plan.backbone, "seconds": round(seconds, 1)}
    asked = (plan.settings | trial.settings).get("precision", "auto")
    facts |= here if asked == "auto" else here | {"precision": asked}
    add_rows(table_path(out, RUNS), pd.DataFrame([facts]), work)


def summary_row(split: str, grid: pd.DataFrame, mean_dims: Sequence[int], depth: int) -> dict[str, object]:
    """Means over tasks and dims: of the layers below the last, of the last, and the full cell; NaN if not scored."""
    last = grid["layer"] == depth
    counted = grid["dim"].isin(mean_dims)
    places = {"below": ~last & counted, "last": last & counted, "full": last & (grid["dim"] == grid["dim"].max())}
    return {"split": split} | {place: grid.loc[rows, "spearman"].mean() for place, rows in places.items()}


def steps_of(plan: StudyPlan, trial: Trial) -> int:
    """How many steps a run trains: the few of a sweep, its own number, or the plan's; none without a recipe."""
    if not trial.settings:
        return 0
    return plan.sweep_steps if trial.sweep else cast(int, trial.settings.get("steps", plan.steps))


def trained(plan: StudyPlan, trial: Trial, work: Path) -> tuple[Encoder, float]:
    """The trial's encoder and the seconds of this call's training; a run that was cut short goes on.

    The untouched backbone, where a trial has no recipe; NaN seconds, where the training had ended before.
    """
    encoder = Encoder.load(plan.backbone)
    if trial.layers is not None:
        encoder = encoder.submodel(layer=trial.layers)
    if "recipe" not in trial.settings:
        return encoder, 0.0
    folder = work / trial.name
    own = {"steps": steps_of(plan, trial), "seed": trial.seed, "out": str(folder)}
    if trial.taught_by:
        own |= {"teacher": taught_by(plan, trial.taught_by, work)}
    settings = plan.settings | trial.settings | own
    shared = {"data": plan.data, "backbone": plan.backbone, "batch_size": plan.batch_size}
    config = TrainConfig.from_dict(shared | settings)
    if is_finished(folder):  # it was stopped while it was scored
        check_same_run(folder, config)
        return Encoder.load(folder / MODEL_FOLDER), math.nan
    start = time.perf_counter()
    encoder = train_encoder(encoder, load_texts(plan.data), config, resume=folder.is_dir()).encoder
    seconds = time.perf_counter() - start
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)  # the run is done, and its model lies beside them
    return encoder, seconds


def taught_by(plan: StudyPlan, teacher: Trial, work: Path) -> str:
    """The folder of the model of a run that teaches another, trained first where it is not; another process may be."""
    with FileLock(work / f"{teacher.name}.lock"):
        trained(plan, teacher, work)
    return str(work / teacher.name / MODEL_FOLDER)


def scored_layers(trial: Trial, encoder: Encoder) -> list[int]:
    """All layers; of a model made to be used at its own depth, the last."""
    return [encoder.num_layers] if trial.layers is not None else list(range(1, encoder.num_layers + 1))


def score(plan: StudyPlan, encoder: Encoder, layers: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every cell of every task, and the means over tasks in each resample.

    Returns:
        Columns as `sts_grid`; and columns mean, draw_0, draw_1, ...: rows ``layer n`` (mean over the plan's mean_dims),
        ``cell n D`` (full width), Spearman x 100. Draw r resamples every task by its resample r.
    """
    tables, every = [], []
    for pairs in [load_pairs(task) for task in expand(plan.tasks)]:
        counts = resamples_of(pairs, RESAMPLES)
        scores, draws = cell_draws(encoder, pairs, layers, plan.dims, counts)  # (L, K), (L, R, K)
        low, high = np.percentile(draws, [2.5, 97.5], axis=1)  # (L, K) each
        place = {"layer": np.repeat(layers, len(plan.dims)), "dim": np.tile(plan.dims, len(layers))}
        values = {"spearman": scores.ravel(), "low": low.ravel(), "high": high.ravel(), "n": len(pairs)}
        tables.append(pd.DataFrame({"task": pairs.name} | place | values))
        every.append(draws[:, :KEPT_DRAWS])
    mean = np.mean(every, axis=0)  # (L, kept, K), the mean over tasks
    rows = {}
    for i, layer in enumerate(layers):
        rows[f"layer {layer}"] = mean[i][:, [plan.dims.index(d) for d in plan.mean_dims]].mean(axis=1)  # (kept,)
        rows[f"cell {layer} {plan.dims[-1]}"] = mean[i][:, -1]
    draws = pd.DataFrame(rows).T.round(3)
    draws.columns = [f"draw_{r}" for r in draws.columns]
    return pd.concat(tables, ignore_index=True), draws.rename_axis("mean").reset_index()


def layer_kl(encoder: Encoder, texts: Sequence[str]) -> pd.DataFrame:
    """Columns layer, kl (of coordinates, T = 1), entropy_last, score_kl (in-batch scores, T = 0.05), at full width."""
    states = encoder.states(texts)  # (N+1, n, D)
    coordinates, scores = kl_to_last(states, [encoder.dim]), score_kl(states, [encoder.dim])
    return coordinates[["layer", "kl", "entropy_last"]].assign(score_kl=scores["kl"])


def tagged(table: pd.DataFrame, facts: dict[str, object]) -> pd.DataFrame:
    """A table with the facts as its first columns."""
    return table.assign(**facts)[[*facts, *table]]


def machine() -> dict[str, object]:
    """Where a run took place: device, threads, precision, versions, commit."""
    on_cpu = not torch.cuda.is_available()
    device = processor() if on_cpu else torch.cuda.get_device_name()
    precision = "bf16" if wants_bf16("auto", on_cpu) else "fp32"
    facts = {"device": device, "threads": torch.get_num_threads(), "precision": precision}
    return facts | {"torch": torch.__version__, "commit": commit() or ""}


def overview(plan: StudyPlan, out: Path) -> pd.DataFrame:
    """One row a run of a plan, in order: run, model, steps, layers, settings, done."""
    rows, had = [], done(out)
    for trial in queued(plan, out):
        settings = " ".join(f"{k}={v}" for k, v in trial.settings.items())
        depth = "all" if trial.layers is None else trial.layers
        is_done = "yes" if trial.name in had else "no"
        rows.append((trial.name, trial.model, steps_of(plan, trial), depth, settings, is_done))
    return pd.DataFrame(rows, columns=["run", "model", "steps", "layers", "settings", "done"])
