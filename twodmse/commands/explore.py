"""`twodmse explore`."""

from pathlib import Path
from typing import Annotated

import typer

from twodmse.commands import Overwrite, one_line_errors, refuse_existing

TRAINED = Path("runs/quickstart/2dmse/model")


@one_line_errors
def explore(
    before: Annotated[
        str, typer.Argument(help="The first model, shown as before: 'bundled' (all-MiniLM-L6-v2), a hub id, a folder.")
    ] = "bundled",
    after: Annotated[
        str | None, typer.Argument(help=f"The second model, shown as after.  [default: {TRAINED}]", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write; with --live a folder.  [default: explorer.html, site]", show_default=False
        ),
    ] = None,
    sentences: Annotated[
        Path | None, typer.Option(help="Text file, one sentence a line, 3 to 300. [default: 120 bundled ones]")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Write a site in which both models run in the browser: type any text.")
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(help="With --live: a copy of transformers.js to put into the site. [default: from its CDN]"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a web page with two sliders, depth and width, over two models: it needs no network and no Python.

    The page shows how similar two sentences are, and how a list of sentences is ranked for a query, at every layer
    and every dim of both models. Open it in any browser, or send it to somebody. With --live it is a folder for a web
    host instead, in which the models themselves run: type sentences of your own, and measure what a cell costs there.

    Example: twodmse explore bundled runs/quickstart/2dmse/model --out explorer.html

    Example: twodmse explore bundled MODEL --live --out site, then python -m http.server --directory site
    """
    from twodmse.encoder.encoder import Encoder
    from twodmse.explorer.live import write_live
    from twodmse.explorer.page import check_models, fit_sentences, read_sentences, shown_name, write_explorer
    from twodmse.files import check_folder

    if live and sentences is not None:
        raise ValueError("--sentences is for the page without a model: on a live site sentences are typed")
    if runtime is not None and not live:
        raise ValueError("--runtime is for a live site: add --live")
    out = out or Path("site" if live else "explorer.html")
    if live:
        check_folder(out, overwrite)
    else:
        refuse_existing([out], overwrite, read=[sentences] if sentences else [])
    chosen = before, after or trained_model()
    names = shown_name(chosen[0]), shown_name(chosen[1])
    listed = read_sentences(sentences)
    first, second = (Encoder.load(name) for name in chosen)
    check_models(first, second)
    if live:
        size = write_live(first, second, names, out, runtime, overwrite)
        typer.echo(
            f"wrote {out}: {size / 1e6:.0f} MB; put it on a web host, or: python -m http.server --directory {out}"
        )
        return
    kept = fit_sentences(listed, first.num_layers, first.dim)
    if len(kept) < len(listed):
        typer.echo(f"kept the first {len(kept)} of {len(listed)} sentences: more make a page larger than 5 MB")
    size = write_explorer(first, second, kept, names, out, overwrite)
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
