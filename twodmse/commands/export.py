"""`twodmse export`."""

from pathlib import Path
from typing import Annotated

import typer

from twodmse.commands import Model, Overwrite, one_line_errors


@one_line_errors
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    layer: Annotated[int | None, typer.Option(help="Layers to keep; all of them if not given.")] = None,
    dim: Annotated[int | None, typer.Option(help="Coordinates to keep; all of them if not given.")] = None,
    format: Annotated[
        str, typer.Option(help="safetensors (a sentence-transformers folder) or onnx (token ids to the final vector).")
    ] = "safetensors",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the ONNX weights to 8 bits.")] = False,
    grid: Annotated[Path | None, typer.Option(help="CSV that `twodmse grid --out` wrote, for the model card.")] = None,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="One ONNX file that gives the states of every layer (up to --layer).")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Cut one cell (layer, dim) out of a model and write it as a smaller model of its own, with a model card.

    The folder appears only after what was written has been loaded anew and gave the same vectors.

    Example: twodmse export bundled --layer 3 --dim 64 --format onnx --out small
    """
    from twodmse.encoder.encoder import Encoder
    from twodmse.evaluation.records import read_grid_table
    from twodmse.export.exporting import export as run

    table = None if grid is None else read_grid_table(grid)
    done = run(Encoder.load(model), out, layer, dim, format, int8, overwrite, table, all_layers)
    typer.echo(
        f"wrote {done.folder}: layer {done.layer}, dim {done.dim}, {done.size / 1e6:.1f} MB of weights "
        f"(the whole encoder: {done.full_size / 1e6:.1f} MB)"
    )
    typer.echo(f"its vectors equal the encoder's: no coordinate differs by more than {done.difference:.1e}")
    if done.cosines is not None:
        mean, low = done.cosines.mean(), done.cosines.min()
        typer.echo(f"int8 moves them: cosine to the float32 ones {mean:.4f} on average, {low:.4f} at the lowest")
