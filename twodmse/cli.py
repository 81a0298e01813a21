"""The command line: `twodmse COMMAND --help` explains each command."""

import typer

from twodmse.commands.compare import compare
from twodmse.commands.costs import bench, pick
from twodmse.commands.explore import explore
from twodmse.commands.export import export
from twodmse.commands.figures import figures
from twodmse.commands.grid import grid
from twodmse.commands.probe import probe
from twodmse.commands.recipes import recipes
from twodmse.commands.study import study
from twodmse.commands.training import quickstart, train

app = typer.Typer(
    help="2D Matryoshka sentence embeddings: train one encoder that is good at every depth and every width.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (quickstart, train, recipes, grid, explore, export, compare, probe, bench, pick, study, figures):
    app.command()(command)


def main() -> None:
    """Entry point of the command."""
    app()
