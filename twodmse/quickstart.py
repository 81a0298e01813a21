"""The main job in one call: train 2dmse and the baseline on the bundled corpus, and compare their grids."""

import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from twodmse import plots
from twodmse.config import TrainConfig
from twodmse.encoder import Encoder
from twodmse.evaluation import sts_grid
from twodmse.files import atomic_file, fresh_folder
from twodmse.training import train

STEPS = 70
# Small batches: minutes on two cores. A low learning rate: with a higher one every layer gains more, and so does the
# last one under `full`, which has all of the steps to itself.
SETTINGS = {"data": "mini-nli", "batch_size": 32, "lr": 1.2e-5, "dropout": 0.0}
DIMS = (16, 32, 64, 128, 256, 384)
RECIPES = ("full", "2dmse")


def quickstart(out: str | Path, steps: int = STEPS, say: Callable[[str], None] = print) -> Path:
    """Train ``full`` and ``2dmse`` on mini-nli from the bundled backbone and score them on the mini-sts test part.

    Args:
        out: folder to write; if it holds a run already, a numbered one beside it is used.
        steps: training steps of each recipe. say: takes each line of progress.

    Returns:
        The folder written: ``2dmse`` and ``full`` (runs with their models), history.csv, grid.csv, heatmaps.png.
    """
    folder = fresh_folder(out)
    say(f"writing to {folder}")
    untouched = Encoder.load("bundled")
    dims = [d for d in DIMS if d <= untouched.dim]
    say("scoring the untouched model")
    grids = {"untouched": sts_grid(untouched, ["mini-sts"], dims)}
    histories = []
    for recipe in RECIPES:
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


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with atomic_file(path) as work:
        table.to_csv(work, index=False)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, and let go of it."""
    with atomic_file(path) as work:
        figure.savefig(work, dpi=150)
    matplotlib.pyplot.close(figure)
