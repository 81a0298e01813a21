"""`twodmse probe`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twodmse.commands import Model, Overwrite, one_line_errors, refuse_existing
from twodmse.commands.grid import parse_dims, say_few_pairs

if TYPE_CHECKING:
    import pandas as pd

TABLES = (
    "kl_to_last", "score_kl", "cka", "neighbours_kept", "order_flips", "alignment_uniformity", "anisotropy", "outliers",
    "controls", "gradient_conflict",
)  # fmt: skip
PICTURES = ("kl_to_last", "cka", "neighbours_kept", "anisotropy", "controls", "gradient_conflict")


@one_line_errors
def probe(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the tables and pictures.")],
    compare: Annotated[
        str | None, typer.Option(help="A second model, drawn beside the first: the one before training, for example.")
    ] = None,
    texts: Annotated[
        str, typer.Option(help="Scored pairs whose sentences are probed: mini-sts, stsb, sickr, ..., or a file.")
    ] = "mini-sts",
    dims: Annotated[
        str | None, typer.Option(help="Comma-separated, or 'all'. [default: 8,16,32,... and the full one]")
    ] = None,
    recipe: Annotated[str, typer.Option(help="The objective whose terms' gradients are compared.")] = "2dmse",
    data: Annotated[str, typer.Option(help="Training data that the gradients are taken on: mini-nli or a file.")] = (
        "mini-nli"
    ),
    positive: Annotated[float, typer.Option(help="Score from which a pair counts as a paraphrase (scores 0..5).")] = 4,
    overwrite: Overwrite = False,
) -> None:
    """Look inside a model: why are shallow layers worse, and what did training change?

    Writes one CSV file a probe and pictures of the main ones: KL of each layer to the last, CKA between layers, nearest
    neighbours that each cell (layer, dim) keeps, order of pairs, alignment and uniformity, anisotropy, outlier
    coordinates, the first d coordinates against the last, random ones and PCA, and whether the terms of the objective
    pull each layer's weights the same way.

    Example: twodmse probe runs/quickstart/2dmse/model --compare bundled --out probes
    """
    from twodmse import probes
    from twodmse.data.sets import load_pairs, load_texts
    from twodmse.encoder.encoder import Encoder

    names = [model] if compare is None else [model, compare]
    if len(set(names)) < len(names):
        raise ValueError(f"--compare is {compare!r}, the same as the model: name another one")
    if out.is_file():
        raise FileExistsError(f"{out} is a file: --out must be a folder")
    pictures = [out / f"{name}.png" for name in PICTURES]
    files = [out / f"{name}.csv" for name in TABLES] + pictures
    refuse_existing(files, overwrite, pictures, read=[texts, data])
    encoders = {name: Encoder.load(name) for name in names}
    pairs, train = load_pairs(texts), load_texts(data)
    found = {
        name: probes.probe_encoder(encoder, pairs, train, parse_dims(dims, encoder.dim), recipe, positive)
        for name, encoder in encoders.items()
    }
    for name, tables in found.items():
        width = tables["kl_to_last"]["dim"].max()
        of = "full width" if width == encoders[name].dim else f"dim {width}"
        typer.echo(f"{name} on {texts}, {of}, by layer")
        typer.echo(probes.summary(tables).to_string(float_format="{:.4g}".format) + "\n")
    say_few_pairs(texts, len(pairs))
    write_probes(found, out, overwrite)
    typer.echo(f"wrote {len(files)} files to {out}")


def write_probes(found: "dict[str, dict[str, pd.DataFrame]]", out: Path, overwrite: bool = True) -> None:
    """Write one CSV file a probe, the models told apart by the column ``model``, and the pictures.

    ``found`` is model -> probe -> table.
    """
    import pandas as pd

    from twodmse.files import write_figure, write_table

    for probe_name in TABLES:
        parts = [tables[probe_name].assign(model=name) for name, tables in found.items()]
        table = pd.concat(parts, ignore_index=True)
        write_table(table[["model", *table.columns.drop("model")]], out / f"{probe_name}.csv", overwrite)
    for name, axes in draw_probes(found).items():
        write_figure(axes[0].figure, out / f"{name}.png", overwrite)


def draw_probes(found: "dict[str, dict[str, pd.DataFrame]]") -> dict[str, list]:
    """The Axes of every picture, by the name of its probe. ``found`` as in `write_probes`."""
    from matplotlib import pyplot as plt

    from twodmse import plots

    short = {name: name if len(name) <= 32 else f"...{name[-29:]}" for name in found}
    labels = short if len(set(short.values())) == len(found) else {name: name for name in found}
    by_probe = {probe: {labels[name]: tables[probe] for name, tables in found.items()} for probe in TABLES}
    kl = by_probe["kl_to_last"]
    _, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for ax, kind in zip(panels, (False, True), strict=True):
        plots.kl_curves({name: table[table["normalised"] == kind] for name, table in kl.items()}, ax)
        ax.set_title(f"{'Length 1' if kind else 'Raw, as trained'}: KL of each layer to the last")
    _, shapes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for ax, column in zip(shapes, ("mean_cosine", "effective_rank", "largest_share"), strict=True):
        plots.shape_curves(by_probe["anisotropy"], ax, column)
    rows = max(len(table.groupby(["term_a", "term_b"])) for table in by_probe["gradient_conflict"].values())
    size = (7.5, 1.2 + 0.3 * rows)  # inches
    return {
        "kl_to_last": list(panels),
        "anisotropy": list(shapes),
        "cka": plots.side_by_side(by_probe["cka"], plots.cka_matrix, "Linear CKA between layers"),
        "neighbours_kept": plots.side_by_side(
            by_probe["neighbours_kept"], plots.neighbours_map, "Nearest neighbours of (N, D) kept, %"
        ),
        "controls": plots.side_by_side(
            by_probe["controls"], plots.control_curves, "Which d coordinates of the last layer"
        ),
        "gradient_conflict": plots.side_by_side(
            by_probe["gradient_conflict"], plots.conflict_map, "Cosine of the gradients of two terms", size
        ),
    }
