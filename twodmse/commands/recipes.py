"""`twodmse recipes`."""

from typing import TYPE_CHECKING, Annotated

import typer

from twodmse.commands import Plugin, load_plugins, one_line_errors

if TYPE_CHECKING:
    import pandas as pd

# The columns of the three parts that the table of all recipes is printed in, and their titles.
PARTS = {
    "What a step trains": {
        "sampled_layers": "draws layer",
        "sampled_dims": "draws dim",
        "cells": "cells a step",
        "layers": "layers",
        "dims": "dims",
        "weight": "base loss weight",
    },
    "What it aligns": {
        "alignment": "kind",
        "direction": "direction (target -> layers)",
        "temperature": "temperature",
        "align_weight": "alignment weight",
        "detached": "target detached",
    },
    "Where it comes from": {"source": "source"},
    "Where it departs from its source": {"departs": "departs"},
}


@one_line_errors
def recipes(
    a: Annotated[str | None, typer.Argument(help="A recipe to compare.", show_default=False)] = None,
    b: Annotated[str | None, typer.Argument(help="The recipe to compare it with.", show_default=False)] = None,
    layers: Annotated[int, typer.Option(min=2, max=1000, help="Layers of the encoder, N.")] = 12,
    dim: Annotated[int, typer.Option(min=1, max=1_000_000, help="Width of the encoder, D.")] = 768,
    plugin: Plugin = None,
) -> None:
    """Print what each recipe trains: cells, dims, weights, alignment, source; of two recipes, only what differs.

    All of it is read off the recipes' own plans for an encoder of that size. Layers 1..4 are 1 2 3 4, dims 8..64 are
    8 16 32 64, and weights 1..0.25 are those of the lowest and the highest layer. The recipes grid and cascade are
    listed a second time as grid+teacher and cascade+teacher, which is what they train with a frozen teacher.

    Example: twodmse recipes 2dmse st2d --layers 6 --dim 384
    """
    from twodmse.objectives.summary import alignment_table, recipe_difference, recipe_table

    load_plugins(plugin)
    if a is not None and b is None:
        raise ValueError(f"recipes was given one name, {a!r}: give two to compare, or none for the table of all")
    if a is None or b is None:
        typer.echo(table_text(recipe_table(layers, dim), alignment_table()))
    else:
        typer.echo(difference_text(recipe_difference(a, b, layers, dim), a, b))


def table_text(table: "pd.DataFrame", kinds: "pd.DataFrame") -> str:
    """The table of all recipes in parts that fit a screen, and what the kinds of alignment are."""
    parts = [(title, table.rename(columns=columns)[["recipe", *columns.values()]]) for title, columns in PARTS.items()]
    parts.insert(2, ("Kinds of alignment", kinds))
    parts[-1] = (parts[-1][0], parts[-1][1][parts[-1][1]["departs"] != ""])
    return "\n\n".join(f"{title}\n\n{aligned(part)}" for title, part in parts)


def aligned(table: "pd.DataFrame") -> str:
    """The lines of a table of texts, its columns starting one below the other."""
    rows = [list(table.columns), *table.itertuples(index=False, name=None)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def difference_text(table: "pd.DataFrame", a: str, b: str) -> str:
    """What differs, a property at a time: texts are too long for columns."""
    if table.empty:
        return f"{a} and {b} train the same"
    width = max(len(a), len(b))
    blocks = [f"{row[0]}\n  {a:{width}}  {row[1]}\n  {b:{width}}  {row[2]}" for row in table.itertuples(index=False)]
    return "\n".join(blocks)
