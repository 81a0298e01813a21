"""`twodmse compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twodmse.commands import Model, Overwrite, one_line_errors, refuse_existing
from twodmse.commands.grid import mteb_names, parse_dims, parse_names, scored, shown_dims

if TYPE_CHECKING:
    import pandas as pd

LABEL = 24  # characters of a model's name that fit over a grid


@one_line_errors
def compare(
    first: Model,
    second: Annotated[
        str | None, typer.Argument(help="The other model, named in the same way; leave it out with --published.")
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(help="Compare with published scores: TABLE/MODEL, for example reproduce_grid_7sts/2DMSE-v2."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: mini-sts, sts12..sts16, stsb, sickr, 'paper' (those seven), sickr-test, 'senteval' "
            "(the seven with it), mteb:NAME, or files. "
            "[default: mini-sts; with --published the table's own]"
        ),
    ] = None,
    dims: Annotated[str | None, typer.Option(help="Comma-separated, or 'all'. [default: those that both have]")] = None,
    resamples: Annotated[
        int | None, typer.Option(help="Resamples of the paired bootstrap between two models. [default: 1000]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write, one row a task and cell.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG or PDF to write: both grids and their difference.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare two models cell by cell (second minus first), or one with published scores (ours minus published).

    Between two models a * marks differences that are not noise: the 95% interval of a paired bootstrap leaves out 0.

    Example: twodmse compare bundled runs/quickstart/2dmse/model --tasks mini-sts --picture difference.png
    """
    from twodmse import plots
    from twodmse.evaluation.compare import MEANS, overall
    from twodmse.files import write_figure, write_table
    from twodmse.plots.grids import score_name

    if (second is None) == (published is None):
        raise ValueError("give a second model, or --published TABLE/MODEL in its place")
    if resamples is not None and (second is None or mteb_names(tasks or "")):
        raise ValueError("--resamples is of the bootstrap between two models on scored pairs: leave it out here")
    refuse_existing([out, picture], overwrite, [picture], parse_names(tasks or ""))
    if second is not None:
        table = with_model(first, second, tasks, dims, resamples)
        sides = (label(first), label(second))
    else:
        table = with_published(first, published, tasks, dims)
        sides = (label(table["model"].iloc[0]), label(first))
    cells = overall(table)
    cells = cells[cells["dim"].isin(shown_dims(sorted(set(cells["dim"]))))]
    names = [task for task in dict.fromkeys(table["task"]) if task not in MEANS] or ["mean of the seven sets"]
    title = f"{score_name(table)}: {', '.join(names)}"
    typer.echo(f"{title}\n{sides[1]} minus {sides[0]}\n{printed(cells)}")
    say_undefined(table)
    if out is not None:
        write_table(table, out, overwrite)
        typer.echo(f"wrote {out}")
    if picture is not None:
        write_figure(plots.comparison(cells, *sides, title)[0].figure, picture, overwrite)
        typer.echo(f"wrote {picture}")


def say_undefined(table: "pd.DataFrame") -> None:
    """One line on stderr for each set with cells that have no difference, or of too few pairs for an interval."""
    from twodmse.evaluation.compare import MEANS

    for task, cells in table.groupby("task", sort=False):
        without = int(cells["difference"].isna().sum())
        if without:
            typer.echo(f"{task} has no difference in {without} of {len(cells)} cells: no score is defined", err=True)
        elif "low" in cells and cells["low"].isna().all() and task not in MEANS:
            typer.echo(f"{task} has no interval: its pairs are too few to say much", err=True)


def with_model(first: str, second: str, tasks: str | None, dims: str | None, resamples: int | None) -> "pd.DataFrame":
    """The table of `compare_models` for two models by name; of `mteb_difference` on tasks of mteb.

    Raises:
        ValueError: also for tasks of mteb beside others.
    """
    from twodmse.encoder.encoder import Encoder
    from twodmse.evaluation.compare import compare_models
    from twodmse.evaluation.resampling import RESAMPLES

    one, other = Encoder.load(first), Encoder.load(second)
    wanted = parse_dims(dims, min(one.dim, other.dim))
    if tasks is not None and mteb_names(tasks):
        if len(mteb_names(tasks)) < len(parse_names(tasks)):
            raise ValueError("tasks of mteb have no interval: compare them apart from the others")
        tables = scored(one, first, tasks, wanted), scored(other, second, tasks, wanted)
        from twodmse.evaluation.mteb_cells import mteb_difference

        return mteb_difference(*tables)
    resamples = RESAMPLES if resamples is None else resamples
    return compare_models(one, other, parse_names(tasks or "mini-sts"), wanted, resamples=resamples)


def with_published(model: str, name: str, tasks: str | None, dims: str | None) -> "pd.DataFrame":
    """The table of `minus_published` for a model by name, scored at the published cells alone.

    Raises:
        ValueError: before anything is encoded, if the published table holds several models, or there is no cell or
            task in common.
    """
    import pandas as pd

    from twodmse.data.tasks import expand
    from twodmse.encoder.encoder import Encoder
    from twodmse.evaluation.grid import sts_grid
    from twodmse.evaluation.published import MEAN, MEAN_SENTEVAL, minus_published, published_grid

    theirs = published_grid(name)
    models = list(dict.fromkeys(theirs["model"]))
    if len(models) > 1:
        raise ValueError(f"{name} holds several models: name one as {name}/MODEL, MODEL one of {', '.join(models)}")
    encoder = Encoder.load(model)
    groups = {MEAN: "paper", MEAN_SENTEVAL: "senteval"}
    own = ",".join(dict.fromkeys(groups.get(task, task) for task in theirs["task"]))
    names = expand(parse_names(tasks or own))
    axes = [names, range(1, encoder.num_layers + 1), parse_dims(dims or "all", encoder.dim)]
    could = pd.MultiIndex.from_product(axes, names=["task", "layer", "dim"]).to_frame(index=False)
    common = minus_published(could.assign(spearman=0.0), name)  # refuses now what would have nothing to subtract
    layers, dims_both = (sorted(set(common[word])) for word in ("layer", "dim"))
    return minus_published(sts_grid(encoder, names, dims_both, layers, resamples=0), name)


def label(model: str) -> str:
    """A model's name, its beginning left out where it is too long for a title."""
    return model if len(model) <= LABEL else "…" + model[1 - LABEL :]


def printed(cells: "pd.DataFrame") -> str:
    """Differences by layer and dim as text, with a * where they are significant."""
    stars = cells["significant"].map({True: "*", False: " "}) if "significant" in cells else ""
    text = cells["difference"].map("{:+.2f}".format) + stars
    return cells.assign(text=text).pivot(index="layer", columns="dim", values="text").to_string()
