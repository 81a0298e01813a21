"""`twodmse figures`."""

from pathlib import Path
from typing import Annotated

import typer

from twodmse.commands import one_line_errors


@one_line_errors
def figures(
    out: Annotated[Path, typer.Option(help="Folder of the pictures; its data/ holds the tables.")] = Path("figures"),
) -> None:
    """Draw every picture of the project anew from its stored tables, as PNG and PDF.

    Nothing is trained or scored: the pictures come from the tables in the folder's data/, and are the same byte
    for byte each time. Also writes the index page README.md in that folder.

    Example: twodmse figures --out figures
    """
    from twodmse.study.figures import draw_figures

    for path in draw_figures(out):
        typer.echo(f"wrote {path}")
