"""`twodmse grid`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twodmse.commands import Model, Overwrite, one_line_errors, refuse_existing
from twodmse.names import parse_columns, parse_names

if TYPE_CHECKING:
    import pandas as pd

    from twodmse.encoder.encoder import Encoder

FEW_PAIRS = 100
Tasks = Annotated[
    str,
    typer.Option(
        help="Comma-separated: mini-sts, sts12..sts16, stsb, sickr, 'paper' (those seven), sickr-test, 'senteval' "
        "(the seven with it), files (in double quotes if their name has a comma), hub:owner/name for a set of the hub, "
        "or mteb:NAME for a task of mteb."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(help="What their columns are: a=sentence1,b=sentence2,label=score. [default: none]"),
]


@one_line_errors
def grid(
    model: Model,
    tasks: Tasks = "mini-sts",
    data_config: Annotated[str | None, typer.Option(help="Configuration of hub: tasks. [default: none]")] = None,
    data_split: Annotated[str | None, typer.Option(help="Split of hub: tasks. [default: test]")] = None,
    columns: Columns = None,
    dims: Annotated[
        str | None, typer.Option(help="Comma-separated, or 'all'. [default: 8,16,32,... and the full one]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write, with a 95% interval a cell.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG or PDF heatmap to write.")] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Also write grid.json into the model's folder: every cell, and how scored.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="Folder for mteb's own result files; what lies there is not scored again.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="spearman, or auc (area under the ROC curve) for pairs scored 0 or 1: ties cap Spearman there, at "
            "86.6 where half of the pairs are 1."
        ),
    ] = "spearman",
    overwrite: Overwrite = False,
) -> None:
    """Score every cell (layer, dim) of a model on STS tasks: Spearman x 100 of the cosine, from one encoding pass.

    Tasks of mteb (mteb:STSBenchmark, mteb:SciFact, ...) are scored by mteb itself, by the task's own main metric.

    Example: twodmse grid runs/quickstart/2dmse/model --tasks mini-sts --picture grid.png
    """
    from twodmse import plots
    from twodmse.encoder.encoder import Encoder
    from twodmse.evaluation.records import write_grid_json
    from twodmse.files import write_figure, write_table
    from twodmse.plots.grids import score_name

    refuse_existing([out, picture], overwrite, [picture], parse_names(tasks))
    seeds = check_save(model, tasks, metric, overwrite) if save else []
    encoder = Encoder.load(model)
    of_hub = {"config": data_config, "split": data_split, "columns": parse_columns(columns)}
    table = scored(encoder, model, tasks, parse_dims(dims, encoder.dim), results, metric, of_hub)
    shown = table[table["dim"].isin(shown_dims(table["dim"].unique().tolist()))]
    parts = list(shown.groupby("metric", sort=False)) if "metric" in shown else [("", shown)]
    for metric, part in parts:
        means = part.groupby(["layer", "dim"])["spearman"].agg(lambda values: values.mean(skipna=False))
        cells = means.unstack("dim").round(2).to_string()
        typer.echo(f"{metric} x 100\n{cells}" if metric else cells)
    say_few(shown)
    if out is not None:
        write_table(table, out, overwrite)
        typer.echo(f"wrote {out}")
    if picture is not None:
        title = f"{score_name(shown)}: {tasks}"
        panels = {metric if len(parts) > 1 else model: part for metric, part in parts}  # no mean of two metrics
        write_figure(plots.heatmaps(panels, title)[0].figure, picture, overwrite)
        typer.echo(f"wrote {picture}")
    if save:
        typer.echo(f"wrote {write_grid_json(model, table, model, seeds, overwrite)}")


def say_few(table: "pd.DataFrame") -> None:
    """One line on stderr for each set of so few pairs that its scores say little, or with cells that have no score."""
    from twodmse.evaluation.resampling import FEWEST

    for task, cells in table.groupby("task", sort=False):
        widest, pairs = (cells["high"] - cells["low"]).max(), cells["n"].iloc[0]
        if pairs < FEWEST or (pairs < FEW_PAIRS and widest >= 0):  # tasks of mteb count texts and have no interval
            wide = f"a cell's 95 % interval is up to {widest:.0f} points wide" if widest > 0 else "too few to say much"
            typer.echo(f"{task} has {pairs:g} pairs: {wide}", err=True)
        if undefined := int(cells["spearman"].isna().sum()):
            typer.echo(f"{task} has no score in {undefined} of {len(cells)} cells, nor has a mean with it", err=True)


def say_few_pairs(task: str, pairs: int) -> None:
    """One line on stderr for a set of so few pairs that nothing can be said by it."""
    from twodmse.evaluation.resampling import FEWEST

    if pairs < FEWEST:
        typer.echo(f"{task} has {pairs} pairs: too few to say much", err=True)


def check_save(model: str, tasks: str, metric: str, overwrite: bool) -> list[int]:
    """Refuse now what could not be written into the model's folder later.

    Returns:
        The seeds of the training run that made the model.
    """
    from twodmse.evaluation.records import grid_path

    if mteb_names(tasks):
        raise ValueError("--save stores Spearman grids of pairs: leave mteb tasks out, or use --out or --results")
    if metric != "spearman":
        raise ValueError(f"--save stores Spearman grids: use --out with --metric {metric}")
    grid_path(model, overwrite)
    return training_seeds(Path(model))


def mteb_names(tasks: str) -> list[str]:
    """Those of a list of tasks that mteb is asked for."""
    return [name for name in parse_names(tasks) if name.startswith("mteb:")]


def scored(
    encoder: "Encoder",
    model: str,
    tasks: str,
    dims: list[int] | None,
    results: Path | None = None,
    metric: str = "spearman",
    of_hub: Mapping[str, Any] | None = None,
) -> "pd.DataFrame":
    """The table of `sts_grid`; with another metric or tasks of mteb in it also its column ``metric``.

    Args:
        encoder: as `sts_grid`.
        model: its name.
        tasks: names with commas between them.
        dims: as `sts_grid`.
        results: folder of mteb's own result files.
        metric: as `sts_grid`.
        of_hub: how `load_pairs` is to read the tasks that are hub:owner/name, and with columns alone files too.

    Raises:
        ValueError: also if mteb is asked for and not installed.
    """
    import pandas as pd

    from twodmse.data.reading import READERS
    from twodmse.data.sets import HUB, load_pairs
    from twodmse.evaluation.grid import check_grid, sts_grid

    theirs = mteb_names(tasks)
    own: list[Any] = [name for name in parse_names(tasks) if name not in theirs]
    options = {name: value for name, value in (of_hub or {}).items() if value}
    if options:
        files = set(options) == {"columns"}  # a file has columns to name too, and no more
        renamed = [name for name in own if name.startswith(HUB) or (files and Path(name).suffix.lower() in READERS)]
        if not renamed:
            kinds = f"{HUB}owner/name" + (" or a file" if files else "")
            raise ValueError(f"{', '.join(options)} given, and none of {tasks} is {kinds}")
        own = [load_pairs(name, **options) if name in renamed else name for name in own]
    if results is not None and not theirs:
        raise ValueError(f"--results takes mteb's own result files, and none of {tasks} is mteb:NAME: use --out")
    if theirs and not own and metric != "spearman":
        raise ValueError(f"--metric {metric} is for scored pairs: mteb scores its tasks by the task's own main metric")
    if not theirs:
        return sts_grid(encoder, own, dims, metric=metric)
    try:
        from twodmse.evaluation.mteb_cells import mteb_grid
    except ImportError as error:
        raise ValueError(str(error)) from error
    layers, widths = check_grid(encoder, None, dims)
    tables = [sts_grid(encoder, own, dims, metric=metric).assign(metric=metric)] if own else []
    cells = [(layer, dim) for layer in layers for dim in widths]
    tables.append(mteb_grid(encoder, theirs, cells, results, Path(model).name))
    return pd.concat(tables, ignore_index=True)


def training_seeds(folder: Path) -> list[int]:
    """The seed of the training run that made a model, from the config beside it; none where there is no config."""
    from twodmse.config import TrainConfig
    from twodmse.training.trainer import CONFIG_FILE

    path = folder / CONFIG_FILE
    return [TrainConfig.read(path).seed] if path.is_file() else []


def parse_dims(text: str | None, dim: int) -> list[int] | None:
    """``16,64`` or ``all`` as a list of dims.

    Raises:
        ValueError: for anything else.
    """
    if text is None:
        return None
    if text.strip() == "all":
        return list(range(1, dim + 1))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--dims is {text!r}: give whole numbers with commas between them, or 'all'") from None


def shown_dims(dims: list[int]) -> list[int]:
    """Dims to print or draw: all of a few, else the doubling ones and the largest."""
    if len(dims) <= 16:
        return dims
    return [d for d in dims if (d & (d - 1)) == 0 and d >= 8] + [max(dims)]
