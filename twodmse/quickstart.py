"""The main job in one call: train the baseline, 2dmse and grid on the bundled corpus, and compare their grids."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from twodmse import plots
from twodmse.config import PRESETS, TrainConfig
from twodmse.efficiency.timing import processor
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import sts_grid
from twodmse.files import fresh_folder, write_figure, write_table
from twodmse.training.checkpoints import discard
from twodmse.training.runs import train

STEPS = 70
SETTINGS = {"data": "mini-nli", "batch_size": 32, "dropout": 0.0, "precision": "fp32"}  # minutes on two cores
# By one rule: of the `RATES`, that with the highest mean over the cells on validation pairs after a short training
# (figures/data/quickstart_sweep.csv, which `sweep` goes on with where rates are missing).
LEARNING_RATES = {"full": 2e-4, "2dmse": 4e-4, "grid": 8e-4, "mrl": 4e-4}
SHOWN_DIMS = (16, 32, 64, 128, 256, 384)
TRAINED = ("full", "2dmse", "grid")
RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
SWEEP_STEPS = 45


def settings(recipe: str) -> dict[str, Any]:
    """The settings of a recipe on the bundled corpus: those of its preset, if it has one, with `SETTINGS` on top.

    A recipe that was not swept has the learning rate of `TrainConfig`.
    """
    of_preset = {k: v for k, v in PRESETS.get(recipe, {}).items() if k != "steps"}
    rate = {"lr": LEARNING_RATES[recipe]} if recipe in LEARNING_RATES else {}
    return of_preset | SETTINGS | rate | {"recipe": recipe}


def quickstart(out: str | Path, steps: int = STEPS, say: Callable[[str], None] = print) -> Path:
    """Train ``full``, ``2dmse`` and ``grid`` on mini-nli and score them and the untouched backbone on mini-sts (test).

    Args:
        out: folder to write; if it holds a run already, a numbered one beside it is used.
        steps: training steps of each recipe.
        say: takes each line of progress.

    Returns:
        The folder written: one run a recipe with its model, history.csv, grid.csv, heatmaps.png, and timings.csv with
        the minutes that each recipe took.
    """
    folder = fresh_folder(out)
    say(f"writing to {folder}")
    untouched = Encoder.load("bundled")
    dims = [d for d in SHOWN_DIMS if d <= untouched.dim]
    say("scoring the untouched model")
    grids = {"untouched": sts_grid(untouched, ["mini-sts"], dims)}
    histories, timings = [], []
    for recipe in TRAINED:
        start = time.perf_counter()
        say(f"training {recipe}: {steps} steps")
        config = TrainConfig(**settings(recipe), steps=steps, out=str(folder / recipe), save_every=steps)
        run = train(config)
        histories.append(run.history.assign(recipe=recipe))
        grids[recipe] = sts_grid(run.encoder, ["mini-sts"], dims)
        timings.append({"recipe": recipe, "minutes": round((time.perf_counter() - start) / 60, 2)})
        for checkpoint in run.folder.glob("checkpoint-*"):
            discard(checkpoint)  # the run is done, and its model lies beside them
    write_table(pd.concat(histories, ignore_index=True), folder / "history.csv")
    machine = {"threads": torch.get_num_threads(), "machine": processor()}
    write_table(pd.DataFrame(timings).assign(**machine), folder / "timings.csv")
    grid = pd.concat([table.assign(model=name) for name, table in grids.items()], ignore_index=True)
    write_table(grid, folder / "grid.csv")
    write_figure(plots.heatmaps(grids, "Spearman x 100 on mini-sts (test)")[0].figure, folder / "heatmaps.png")
    say("")
    say("mean Spearman x 100 over dims " + ", ".join(map(str, dims)) + ", mini-sts test")
    say(summary(grids).round(2).to_string())
    say(f"full cell ({untouched.num_layers}, {untouched.dim}): " + top_cells(grids))
    say("")
    say(f"models, tables and the picture are in {folder}")
    return folder


def summary(grids: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean Spearman over dims: one row a layer, one column a model."""
    return pd.DataFrame({name: grid.groupby("layer")["spearman"].mean() for name, grid in grids.items()})


def top_cells(grids: dict[str, pd.DataFrame]) -> str:
    """The score of the last layer at the full width of each model, in words."""
    return ", ".join(f"{name} {grid['spearman'].iloc[-1]:.2f}" for name, grid in grids.items())


def sweep(path: Path, steps: int = SWEEP_STEPS) -> pd.DataFrame:
    """Choose learning rates: train each recipe at each rate and score it on mini-sts-validation.

    Args:
        path: a CSV file; it is written after each run, and what it holds already is not run again.
        steps: of each training.

    Returns:
        Columns recipe, lr, steps, batch_size, task, spearman (mean over the cells of the shown dims), top (the full
        cell), and layer_1 ... layer_N (means over the dims).
    """
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    done = {(row["recipe"], row["lr"], row["steps"]) for row in rows}
    for recipe, rate in [(r, rate) for r in LEARNING_RATES for rate in RATES if (r, rate, steps) not in done]:
        with TemporaryDirectory() as scratch:
            config = TrainConfig(**settings(recipe) | {"lr": rate, "steps": steps, "out": f"{scratch}/run"})
            grid = sts_grid(train(config).encoder, ["mini-sts-validation"], SHOWN_DIMS, resamples=0)
        row = {"recipe": recipe, "lr": rate, "steps": steps, "batch_size": config.batch_size, "task": grid["task"][0]}
        row |= {"spearman": grid["spearman"].mean(), "top": grid["spearman"].iloc[-1]}
        rows.append(row | grid.groupby("layer")["spearman"].mean().add_prefix("layer_").to_dict())
        write_table(pd.DataFrame(rows), path)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sweep(Path("figures/data/quickstart_sweep.csv"))
