"""The main job in one call: train 2dmse and the baseline on the bundled corpus, and compare their grids."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from twodmse import plots
from twodmse.config import TrainConfig
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import sts_grid
from twodmse.files import fresh_folder, write_figure, write_table
from twodmse.training.runs import train

STEPS = 70
# Small batches: minutes on two cores. A low learning rate: with a higher one every layer gains more, and so does the
# last one under `full`, which has all of the steps to itself.
SETTINGS = {"data": "mini-nli", "batch_size": 32, "lr": 1.2e-5, "dropout": 0.0}
SHOWN_DIMS = (16, 32, 64, 128, 256, 384)
TRAINED = ("full", "2dmse")


def quickstart(out: str | Path, steps: int = STEPS, say: Callable[[str], None] = print) -> Path:
    """Train ``full`` and ``2dmse`` on mini-nli from the bundled backbone and score them on the mini-sts test part.

    Args:
        out: folder to write; if it holds a run already, a numbered one beside it is used.
        steps: training steps of each recipe.
        say: takes each line of progress.

    Returns:
        The folder written: ``2dmse`` and ``full`` (runs with their models), history.csv, grid.csv, heatmaps.png.
    """
    folder = fresh_folder(out)
    say(f"writing to {folder}")
    untouched = Encoder.load("bundled")
    dims = [d for d in SHOWN_DIMS if d <= untouched.dim]
    say("scoring the untouched model")
    grids = {"untouched": sts_grid(untouched, ["mini-sts"], dims)}
    histories = []
    for recipe in TRAINED:
        say(f"training {recipe}: {steps} steps")
        config = TrainConfig(recipe=recipe, steps=steps, out=str(folder / recipe), save_every=steps, **SETTINGS)
        run = train(config)
        histories.append(run.history.assign(recipe=recipe))
        grids[recipe] = sts_grid(run.encoder, ["mini-sts"], dims)
        for checkpoint in run.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)  # the run is done, and its model lies beside them
    write_table(pd.concat(histories, ignore_index=True), folder / "history.csv")
    grid = pd.concat([table.assign(model=name) for name, table in grids.items()], ignore_index=True)
    write_table(grid, folder / "grid.csv")
    write_figure(plots.heatmaps(grids, "Spearman x 100 on mini-sts (test)")[0].figure, folder / "heatmaps.png")
    say("")
    say("mean Spearman x 100 over dims " + ", ".join(map(str, dims)) + ", mini-sts test")
    say(summary(grids).round(2).to_string())
    say("")
    say(f"models, tables and the picture are in {folder}")
    return folder


def summary(grids: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean Spearman over dims: one row a layer, one column a model."""
    return pd.DataFrame({name: grid.groupby("layer")["spearman"].mean() for name, grid in grids.items()})
