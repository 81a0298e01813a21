"""`twodmse quickstart` and `twodmse train`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from twodmse.commands import Plugin, load_plugins, one_line_errors
from twodmse.config import PRESETS, TrainConfig
from twodmse.names import parse_columns


@one_line_errors
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder to write; a used one gets a number.")] = Path("runs/quickstart"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each recipe.")] = 70,
) -> None:
    """Train full, 2dmse and grid on the bundled corpus and compare their layer x dim grids. Needs no network.

    Trains the recipes 'full' (only the last layer, the usual way), '2dmse' and 'grid' from the bundled
    all-MiniLM-L6-v2, scores them and the untouched model on the bundled test pairs, prints a table, and writes the
    models, history.csv, grid.csv and heatmaps.png.
    """
    from twodmse.quickstart import quickstart as run

    run(out, steps, typer.echo)


def _option(field: str, help: str) -> Any:
    """An option whose default is that of a field of TrainConfig, and is shown as such."""
    default = TrainConfig.__dataclass_fields__[field].default
    return typer.Option(help=f"{help} [default: {'none' if default is None else default}]")


@one_line_errors
def train(
    recipe: Annotated[str | None, _option("recipe", "What each step trains: see twodmse recipes.")] = None,
    data: Annotated[
        str | None,
        _option("data", "mini-nli, all-nli, stsb-train, hub:owner/name, or a CSV, TSV, JSONL or parquet file."),
    ] = None,
    data_config: Annotated[str | None, _option("data_config", "Configuration of a hub: data set.")] = None,
    data_split: Annotated[str | None, _option("data_split", "Split of a hub: data set; train if not given.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="What columns of hub: data or a file are: premise=anchor. [default: none]"),
    ] = None,
    backbone: Annotated[str | None, _option("backbone", "Model to start from.")] = None,
    steps: Annotated[int | None, _option("steps", "Optimizer steps.")] = None,
    batch_size: Annotated[int | None, _option("batch_size", "Rows a step.")] = None,
    lr: Annotated[float | None, _option("lr", "Peak learning rate.")] = None,
    precision: Annotated[str | None, _option("precision", "auto, fp32 or bf16.")] = None,
    seed: Annotated[int | None, _option("seed", "Seed of everything random.")] = None,
    teacher: Annotated[
        str | None, _option("teacher", "Recipe grid: the frozen model every cell is drawn to, e.g. bundled.")
    ] = None,
    eval_every: Annotated[
        int | None, _option("eval_every", "Steps between evaluations; the best model is kept in best/. 0 is off.")
    ] = None,
    save_every: Annotated[int | None, _option("save_every", "Steps between checkpoints.")] = None,
    out: Annotated[str | None, _option("out", "Folder of the run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in --out.")] = False,
    plugin: Plugin = None,
    preset: Annotated[str, typer.Option(help=f"Settings to start from: {', '.join(PRESETS)}.")] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of TrainConfig, repeatable: --set scale=30"),
    ] = None,
) -> None:
    """Train an encoder with a recipe. The folder --out then holds model/, history.csv and the newest checkpoints.

    Example: twodmse train --recipe 2dmse --data all-nli --steps 517 --out runs/nli
    """
    from twodmse.training.runs import train as run

    load_plugins(plugin)
    data_columns = [f"{own}={what}" for own, what in parse_columns(columns).items()] or None
    given = {k: v for k, v in locals().items() if k in TrainConfig.__dataclass_fields__ and v is not None}
    settings = parse_settings(set_ or [])
    if twice := sorted(given.keys() & settings.keys()):
        raise ValueError(f"{twice[0]} is set twice, by its option and by --set: leave one out")
    config = TrainConfig.preset(preset, **given | settings)
    done = run(config, resume)
    last = done.history.iloc[-1]
    typer.echo(f"{int(last['step'])} steps, last loss {last['loss']:.4f}; the model is in {done.folder / 'model'}")


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; a value is read as JSON where it can be (numbers, true, null, [16, 64]), else as text.

    Raises:
        ValueError: for one without ``=``, or a setting given twice.
    """
    parsed = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise ValueError(f"--set {setting!r} has no '=': write KEY=VALUE, for example --set scale=30")
        key = key.strip().replace("-", "_")
        if key in parsed:
            raise ValueError(f"--set {key} is given twice: leave one out")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value
        except RecursionError:
            raise ValueError(f"--set {key}: its value is nested too deep") from None
    return parsed
