"""The command line: `twodmse COMMAND --help` explains each command."""

import os
import signal
from typing import Annotated

import typer
from typer.core import TyperCommand

from twodmse.commands.compare import compare
from twodmse.commands.costs import bench, pick
from twodmse.commands.encode import encode
from twodmse.commands.explore import explore
from twodmse.commands.export import export
from twodmse.commands.figures import figures
from twodmse.commands.grid import grid
from twodmse.commands.probe import probe
from twodmse.commands.recipes import recipes
from twodmse.commands.study import study
from twodmse.commands.training import quickstart, train
from twodmse.stopping import stop
from twodmse.version import __version__

LISTS = ("dims", "tasks", "recipes")  # options that take several values, with commas between them


class ListsOnce(TyperCommand):
    """A command that refuses a list given in two options, of which the first would count for nothing.

    Of any other option the last one counts, as everywhere: scripts add theirs to a common line.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Parse, then look for a second time; raises UsageError."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        _, _, order = self.make_parser(ctx).parse_args(args=given)
        for option in order:
            if order.count(option) > 1 and option.name in LISTS:
                ctx.fail(f"{option.opts[-1]} is given twice: give it once, several values with commas between them")
        return rest


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich reads "[default: 5e-5]" as markup and shows nothing of it
)
for command in (quickstart, train, recipes, grid, encode, explore, export, compare, probe, bench, pick, study, figures):
    app.command(cls=ListsOnce)(command)


def show_version(wanted: bool) -> None:
    """Print the version and stop, if that was asked for."""
    if wanted:
        typer.echo(f"twodmse {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """2D Matryoshka sentence embeddings: train one encoder that is good at every depth and every width."""


def main() -> None:
    """Run the command that the arguments name, drawing without a display; Ctrl-C and SIGTERM end it with one line."""
    os.environ["MPLBACKEND"] = "agg"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    app()
