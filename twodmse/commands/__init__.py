"""What the commands share: how a model is named, files that must not be lost, errors of one line."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[str, typer.Argument(help="A model: 'bundled' (all-MiniLM-L6-v2), a hub id, or a folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what the user can mend into one line and exit code 1; a bug keeps its traceback."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            typer.echo(f"twodmse: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("twodmse: interrupted; finished checkpoints are kept, go on with --resume", err=True)
            raise typer.Exit(1) from error

    return guarded


def refuse_existing(paths: list[Path | None], overwrite: bool) -> None:
    """Refuse to write over files, before any work is done.

    Raises:
        FileExistsError: naming the first that exists, if ``overwrite`` is false.
    """
    for path in paths:
        if path is not None and path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists: choose another, or add --overwrite")
