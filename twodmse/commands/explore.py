"""`twodmse explore`."""

from pathlib import Path
from typing import Annotated

import typer

from twodmse.commands import Overwrite, one_line_errors, refuse_existing

TRAINED = Path("runs/quickstart/2dmse/model")


@one_line_errors
def explore(
    before: Annotated[
        str, typer.Argument(help="The untouched model: 'bundled' (all-MiniLM-L6-v2), a hub id, or a folder.")
    ] = "bundled",
    after: Annotated[
        str | None, typer.Argument(help=f"The trained model.  [default: {TRAINED}]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("explorer.html"),
    sentences: Annotated[
        Path | None, typer.Option(help="Text file, one sentence a line, 3 to 300. [default: 120 bundled ones]")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a web page with two sliders, depth and width, over two models: it needs no network and no Python.

    The page shows how similar two sentences are, and how a list of sentences is ranked for a query, at every layer
    and every dim of both models. Open it in any browser, or send it to somebody.

    Example: twodmse explore bundled runs/quickstart/2dmse/model --out explorer.html
    """
    from twodmse.encoder.encoder import Encoder
    from twodmse.explorer.page import check_models, fit_sentences, read_sentences, write_explorer

    refuse_existing([out], overwrite)
    names = before, after or trained_model()
    listed = read_sentences(sentences)
    models = [Encoder.load(name) for name in names]
    check_models(*models)
    kept = fit_sentences(listed, models[0].num_layers, models[0].dim)
    if len(kept) < len(listed):
        typer.echo(f"kept the first {len(kept)} of {len(listed)} sentences: more make a page larger than 5 MB")
    size = write_explorer(*models, kept, names, out, overwrite)
    typer.echo(f"wrote {out}: {len(kept)} sentences, {size / 1e6:.1f} MB; open it in a browser")


def trained_model() -> str:
    """The model that `twodmse quickstart` leaves behind.

    Raises:
        FileNotFoundError: if it has not been run here.
    """
    if not TRAINED.is_dir():
        raise FileNotFoundError(
            f"no trained model at {TRAINED}: make one with 'twodmse quickstart', "
            "or name one: twodmse explore bundled MODEL"
        )
    return str(TRAINED)
