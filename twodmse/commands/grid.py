"""`twodmse grid`."""

from pathlib import Path
from typing import Annotated

import typer

from twodmse.commands import Model, Overwrite, one_line_errors, refuse_existing


@one_line_errors
def grid(
    model: Model,
    tasks: Annotated[
        str,
        typer.Option(
            help="Comma-separated: mini-sts, sts12..sts16, stsb, sickr, 'paper' (those seven), sickr-test, 'senteval' "
            "(the seven with it), or files."
        ),
    ] = "mini-sts",
    dims: Annotated[
        str | None, typer.Option(help="Comma-separated, or 'all'. [default: 8,16,32,... and the full one]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write, with a 95% interval a cell.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG or PDF heatmap to write.")] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Also write grid.json into the model's folder: every cell, and how scored.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Score every cell (layer, dim) of a model on STS tasks: Spearman x 100 of the cosine, from one encoding pass.

    Example: twodmse grid runs/quickstart/2dmse/model --tasks mini-sts --picture grid.png
    """
    from twodmse import plots
    from twodmse.encoder.encoder import Encoder
    from twodmse.evaluation.grid import sts_grid
    from twodmse.evaluation.records import grid_path, write_grid_json
    from twodmse.files import write_figure, write_table

    refuse_existing([out, picture], overwrite, picture)
    if save:  # refuses now what could not be written later
        grid_path(model, overwrite)
        seeds = training_seeds(Path(model))
    encoder = Encoder.load(model)
    table = sts_grid(encoder, parse_names(tasks), parse_dims(dims, encoder.dim))
    shown = table[table["dim"].isin(shown_dims(table["dim"].unique().tolist()))]
    typer.echo(shown.pivot_table(index="layer", columns="dim", values="spearman").round(2).to_string())
    if out is not None:
        write_table(table, out, overwrite)
        typer.echo(f"wrote {out}")
    if picture is not None:
        write_figure(plots.heatmaps({model: shown}, f"Spearman x 100: {tasks}")[0].figure, picture, overwrite)
        typer.echo(f"wrote {picture}")
    if save:
        typer.echo(f"wrote {write_grid_json(model, table, model, seeds, overwrite)}")


def training_seeds(folder: Path) -> list[int]:
    """The seed of the training run that made a model, from the config beside it; none where there is no config."""
    from twodmse.config import TrainConfig
    from twodmse.training.trainer import CONFIG_FILE

    path = folder / CONFIG_FILE
    return [TrainConfig.read(path).seed] if path.is_file() else []


def parse_names(text: str) -> list[str]:
    """``mini-sts, stsb`` as a list of names, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


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
