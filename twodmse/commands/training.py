"""`twodmse quickstart` and `twodmse train`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from twodmse.commands import one_line_errors


@one_line_errors
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder to write; a used one gets a number.")] = Path("runs/quickstart"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each of the two recipes.")] = 70,
) -> None:
    """Train 2dmse and a baseline on the bundled corpus and compare their layer x dim grids. Needs no network.

    Trains the recipes 'full' (only the last layer, the usual way) and '2dmse' from the bundled all-MiniLM-L6-v2,
    scores both and the untouched model on the bundled test pairs, prints a table, and writes both models,
    history.csv, grid.csv and heatmaps.png.
    """
    from twodmse.quickstart import quickstart as run

    run(out, steps, typer.echo)


@one_line_errors
def train(
    recipe: Annotated[str | None, typer.Option(help="What each step trains. [default: 2dmse]")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="mini-nli, all-nli, stsb-train, or a CSV, TSV, JSONL or parquet file. [default: mini-nli]"),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Model to start from. [default: bundled]")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps. [default: 100]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step. [default: 64]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [default: 5e-5]")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16. [default: auto]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. [default: 0]")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Recipe grid: the frozen model every cell is drawn to, e.g. bundled.")
    ] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints. [default: 100]")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run. [default: runs/train]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in --out.")] = False,
    preset: Annotated[str, typer.Option(help="Settings to start from: default, paper or grid.")] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of TrainConfig, repeatable: --set scale=30"),
    ] = None,
) -> None:
    """Train an encoder with a recipe. The folder --out then holds model/, history.csv and the newest checkpoints.

    Example: twodmse train --recipe 2dmse --data all-nli --steps 517 --out runs/nli
    """
    from twodmse.config import TrainConfig
    from twodmse.training.runs import train as run

    given = {k: v for k, v in locals().items() if k in TrainConfig.__dataclass_fields__ and v is not None}
    config = TrainConfig.preset(preset, **given | parse_settings(set_ or []))
    done = run(config, resume)
    last = done.history.iloc[-1]
    typer.echo(f"{int(last['step'])} steps, last loss {last['loss']:.4f}; the model is in {done.folder / 'model'}")


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; a value is read as JSON where it can be (numbers, true, null, [16, 64]), else as text.

    Raises:
        ValueError: for one without ``=``.
    """
    parsed = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise ValueError(f"--set {setting!r} has no '=': write KEY=VALUE, for example --set scale=30")
        try:
            parsed[key.strip().replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key.strip().replace("-", "_")] = value
    return parsed
