"""`twodmse bench` and `twodmse pick`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twodmse.commands import Model, Overwrite, one_line_errors, refuse_existing
from twodmse.commands.encode import texts_of
from twodmse.commands.grid import mteb_names, parse_dims, say_few_pairs, scored
from twodmse.names import parse_names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Bench(StrEnum):
    """What `twodmse bench` can time."""

    train = "train"
    encode = "encode"  # type: ignore[assignment]  # hides str.encode, which nothing here calls
    grid = "grid"
    costs = "costs"


USED = {  # what each kind reads, beside the model, --rounds and --out
    Bench.train: ("recipes", "data", "peer"),
    Bench.encode: ("peer",),
    Bench.grid: ("tasks", "peer"),
    Bench.costs: (),
}


@one_line_errors
def bench(
    context: typer.Context,
    what: Annotated[
        Bench, typer.Argument(help="train: one step; encode: a batch at each depth; grid: scoring; costs: layers.")
    ],
    model: Model = "bundled",
    tasks: Annotated[
        str, typer.Option(help="For grid and encode --peer: mini-sts, stsb, ..., 'paper' (the seven sets), or files.")
    ] = "mini-sts",
    recipes: Annotated[
        str, typer.Option(help="For train, comma-separated, the unit of the ratios first; 'all' is every recipe.")
    ] = "all",
    data: Annotated[str, typer.Option(help="For train: mini-nli, all-nli, or a file of triplets.")] = "mini-nli",
    peer: Annotated[
        bool | None,
        typer.Option("--peer/--no-peer", help="Time sentence-transformers too. [default: for train and grid]"),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="For encode --peer: a file of texts, as `encode` takes. [default: the tasks']")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds that count. [default: train 10, encode 5, with --peer 3, grid 1, costs 15]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write, unrounded.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Time training, encoding or scoring on this machine; all that is compared takes turns in one process.

    train: seconds of a training step of each recipe, and of sentence-transformers' Matryoshka2dLoss.
    encode: seconds of a long batch at each layer n, against the share n/N of the last layer's time.
    encode --peer: texts a second at each layer, of this package and of sentence-transformers' encode, and the largest
    difference of their vectors.
    grid: seconds of the grid of every layer x every dim against encoding the texts once, and of a grid of six dims
    against the loop over cells that a sentence-transformers user writes; peak memory; the largest difference of scores.
    costs: time of one text and of many, memory, parameters and bytes on disk at each layer.

    Example: twodmse bench grid bundled --tasks mini-sts --out bench.csv
    """
    from twodmse.files import write_table

    refuse_existing([out], overwrite, read=[*parse_names(tasks), data, *([texts] if texts else [])])
    check_used(what, bool(peer), context)
    given: dict[str, Any] = {} if rounds is None else {"steps" if what is Bench.train else "rounds": rounds}
    if what is Bench.encode and peer:
        given["texts"] = task_texts(tasks) if texts is None else texts_of(texts, None, "rename one of")
    elif what in (Bench.train, Bench.grid) and peer is not None:
        given["peer"] = peer
    table = timed(what, model, tasks, recipes, data, given)
    lines = table.set_index(table.columns[0]).T if what is Bench.grid else table
    typer.echo(lines.to_string(index=what is Bench.grid, float_format=lambda value: f"{value:.4g}"))
    if out is not None:
        write_table(table, out, overwrite)
        typer.echo(f"wrote {out}")


def check_used(what: Bench, peer: bool, context: typer.Context) -> None:
    """Refuse an option that was given and that this kind of benchmark would not read."""
    used = (*USED[what], *(("tasks", "texts") if what is Bench.encode and peer else ()))
    for name in ("recipes", "data", "peer", "tasks", "texts"):
        source = context.get_parameter_source(name)
        if name not in used and source is not None and source.name == "COMMANDLINE":
            kinds = [kind.value for kind, names in USED.items() if name in names]
            for_what = ", ".join([*kinds, *(["encode --peer"] if name in ("tasks", "texts") else [])])
            raise ValueError(f"--{name} is for {for_what}: leave it out")


def timed(what: Bench, model: str, tasks: str, recipes: str, data: str, given: dict[str, Any]) -> "pd.DataFrame":
    """The table of one kind of benchmark; ``given`` are options of its function."""
    from twodmse.efficiency import bench as benches
    from twodmse.efficiency.costs import layer_costs
    from twodmse.efficiency.peer import bench_peer
    from twodmse.efficiency.timing import processor
    from twodmse.encoder.encoder import Encoder
    from twodmse.objectives.recipes import RECIPES

    if what is Bench.train:
        names = tuple(RECIPES) if recipes == "all" else parse_names(recipes)
        return benches.bench_train(recipes=names, data=data, backbone=model, **given)
    if what is Bench.grid:
        return benches.bench_grid(model, parse_names(tasks), **given)
    if "texts" in given:
        return bench_peer(model, **given)
    if what is Bench.encode:
        return benches.bench_encode(Encoder.load(model), **given)
    return layer_costs(Encoder.load(model), **given).assign(machine=processor())


def task_texts(tasks: str) -> list[str]:
    """All texts of scored sets."""
    from twodmse.data.sets import distinct
    from twodmse.data.tasks import load_tasks

    return [text for pairs in load_tasks(parse_names(tasks)) for text in distinct(pairs)[0]]


@one_line_errors
def pick(
    model: Model,
    max_ms: Annotated[float | None, typer.Option(help="Most milliseconds for encoding one text, here.")] = None,
    max_bytes: Annotated[float | None, typer.Option(help="Most bytes of a stored vector.")] = None,
    min_spearman: Annotated[float | None, typer.Option(help="Least Spearman x 100, mean over the tasks.")] = None,
    tasks: Annotated[str, typer.Option(help="What cells are scored on, comma-separated, as in grid.")] = "mini-sts",
    dims: Annotated[
        str | None, typer.Option(help="Comma-separated, or 'all'. [default: 8,16,32,... and the full one]")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG or PDF to write: the best cells for every budget.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pick the best cell (layer, dim, precision) within a budget, from scores and times measured on this machine.

    Every layer at each of --dims is scored with its vectors kept in float32, int8 and binary (on tasks of mteb, such
    as mteb:SciFact, in float32 alone). Without limits: the best of all.

    Example: twodmse pick bundled --max-ms 5 --max-bytes 256 --min-spearman 40
    """
    from twodmse.data.tasks import load_tasks
    from twodmse.efficiency.costs import best_cell, check_limits, layer_costs, quantised_grid
    from twodmse.encoder.encoder import Encoder
    from twodmse.files import write_figure
    from twodmse.plots.grids import score_name

    refuse_existing([picture], overwrite, [picture], parse_names(tasks))
    check_limits(max_ms, max_bytes, min_spearman)
    encoder = Encoder.load(model)
    wanted = parse_dims(dims, encoder.dim)
    if mteb_names(tasks):
        grid = scored(encoder, model, tasks, wanted)
    else:
        sets = load_tasks(parse_names(tasks))
        for pairs in sets:
            say_few_pairs(pairs.name, len(pairs))
        grid = quantised_grid(encoder, sets, wanted)
    costs = layer_costs(encoder)
    if picture is not None:
        write_figure(budget_figure(grid, costs), picture, overwrite)
        typer.echo(f"wrote {picture}")
    cell = best_cell(grid, costs, max_ms, max_bytes, min_spearman)
    typer.echo(f"layer {cell.layer}, dim {cell.dim}, {cell.precision}")
    typer.echo(
        f"{cell.ms:.2f} ms for one text, {cell.bytes} bytes a vector, {score_name(grid)} {cell.spearman:.2f} ({tasks})"
    )
    typer.echo(usage(model, cell.layer, cell.dim, cell.precision))


def budget_figure(grid: "pd.DataFrame", costs: "pd.DataFrame") -> "Figure":
    """The fronts over bytes and over time, time over layers, and speed against quality, of the tables behind a pick."""
    from matplotlib import pyplot

    from twodmse import plots
    from twodmse.efficiency.costs import cell_costs, pareto_front

    cells = cell_costs(grid, costs)
    figure, axes = pyplot.subplots(2, 2, figsize=(13, 10), layout="constrained")
    for ax, cost in zip(axes[0], ("bytes", "ms"), strict=True):
        plots.front(cells, pareto_front(cells.dropna(subset="spearman"), [cost]), ax, cost)
    plots.latency(costs, axes[1, 0])
    plots.speed_up(cells, axes[1, 1])
    return figure


def usage(model: str, layer: int, dim: int, precision: str) -> str:
    """The Python that encodes ``texts`` with a cell."""
    vectors = f"Encoder.load({model!r}).encode(texts, layer={layer}, dim={dim})"
    if precision == "float32":
        return f"from twodmse import Encoder; vectors = {vectors}"
    imports = "from twodmse import Encoder; from twodmse.evaluation.quantise import quantise"
    return f"{imports}; codes = quantise({vectors}, {precision!r})"
