"""Recipes as tables: what each one trains, read off the plans of many of its steps."""

import re
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from twodmse.config import PRESETS
from twodmse.objectives import losses
from twodmse.objectives.recipes import RECIPES, TEACHER, Alignment, Cell, Plan, Recipe

WITH_TEACHER = "grid+teacher"  # the preset `grid`: with a frozen teacher it trains other things than without
NAMES = (*RECIPES, WITH_TEACHER)
DISTANCES = {
    "coordinates": losses.kl_coordinates,
    "scores": losses.kl_scores,
    "pairs": losses.uncorrelated,
    "vectors": losses.turned,
    "compress": losses.ese_distance,
}


def recipe_table(num_layers: int, dim: int) -> pd.DataFrame:
    """What every recipe trains on an encoder of N layers and width D.

    Args:
        num_layers: N.
        dim: D.

    Returns:
        One row a recipe, with the columns of `describe`.

    Raises:
        ValueError: if N is less than 2 or D less than 1.
    """
    return pd.DataFrame([describe(named(name, num_layers, dim)) | {"recipe": name} for name in NAMES])


def recipe_difference(a: str, b: str, num_layers: int, dim: int) -> pd.DataFrame:
    """What two recipes, by name, do differently: `difference` with the names as its last two columns.

    Args:
        a: two of `NAMES`.
        b: two of `NAMES`.
        num_layers: N.
        dim: D.

    Raises:
        ValueError: for an unknown name.
    """
    table = difference(named(a, num_layers, dim), named(b, num_layers, dim))
    return table.set_axis(["property", a, b], axis=1)


def difference(first: Recipe, second: Recipe) -> pd.DataFrame:
    """What two recipes do differently: two published ones, or one of them with and without a switch.

    Returns:
        One row a column of `describe` that differs: ``property``, ``first``, ``second``. No row if nothing differs.
    """
    one, other = describe(first), describe(second)
    rows = [(key, one[key], other[key]) for key in one if key != "recipe" and one[key] != other[key]]
    return pd.DataFrame(rows, columns=["property", "first", "second"])


def alignment_table() -> pd.DataFrame:
    """What each kind of alignment makes small: one row a kind, columns ``kind`` and ``distance``."""
    return pd.DataFrame([(kind, distance(kind)) for kind in DISTANCES], columns=["kind", "distance"])


def named(name: str, num_layers: int, dim: int) -> Recipe:
    """The recipe of that name at its defaults; ``grid+teacher`` is the preset `grid`, with a teacher of width D.

    Raises:
        ValueError: for an unknown name.
    """
    if name == WITH_TEACHER:
        return Recipe("grid", num_layers, dim, teacher_dim=dim, pair_weight=PRESETS["grid"]["pair_weight"])
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {', '.join(NAMES)}")
    return Recipe(name, num_layers, dim)


def describe(recipe: Recipe) -> dict[str, str]:
    """What a recipe trains, from its plans over enough steps that each of its draws comes up.

    Runs are shortened: layers 1..4 are 1 2 3 4, dims 8..64 are 8 16 32 64. Weights 1..0.25 are those of the lowest and
    the highest of the layers. Where layer N differs from the layers below it, it is named after them.

    Returns:
        ``recipe``: its name. ``sampled_layers``, ``sampled_dims``: what a step draws from. ``cells``: how many cells
        take the base loss in one step. ``layers``, ``dims``, ``weight``: those of the base loss, over all steps.
        ``alignment``: its kinds. ``direction``: from which target to which layers. ``distance``: what is made small.
        ``align_dims``, ``temperature``, ``align_weight``, ``detached`` (whether the target is held fixed): those of the
        alignment. ``first_step``: the cells of step 0. ``summary``, ``source``: from the recipe's docstring.
    """
    plans, N = all_plans(recipe), recipe.num_layers
    cells = [cell for plan in plans for cell in plan.cells]
    base = {
        "recipe": recipe.name,
        "sampled_layers": layers_text(plan.sampled["layer"] for plan in plans if "layer" in plan.sampled),
        "sampled_dims": sampled_dims(plans),
        "cells": " ".join(map(str, sorted({len(plan.cells) for plan in plans}))),
        "layers": layers_text(cell.layer for cell in cells),
        "dims": last_apart(cells, N, lambda some: dims_text(cell.dim for cell in some)),
        "weight": last_apart(cells, N, weights_text),
    }
    text = " ".join((RECIPES[recipe.name].__doc__ or "").replace("``", "").split())
    named_there = {"summary": first_sentence(text), "source": first_sentence(text.partition("Source: ")[2])}
    return base | describe_alignments(plans, N) | {"first_step": shown_cells(recipe.cells(0))} | named_there


def all_plans(recipe: Recipe) -> list[Plan]:
    """The plans of the first steps: so many that no layer or dim is missed, or one where nothing is drawn."""
    first = recipe.plan(0)
    steps = 60 * max(recipe.num_layers, len(recipe.dims)) if first.sampled else 1
    return [first, *(recipe.plan(step) for step in range(1, steps))]


def describe_alignments(plans: Sequence[Plan], N: int) -> dict[str, str]:
    """The columns of `describe` on alignment, with ``+`` between kinds."""
    kinds: dict[str, list[Alignment]] = {}
    for plan in plans:
        for alignment in plan.alignments:
            kinds.setdefault(alignment.kind, []).append(alignment)
    groups = kinds.values()
    columns = {
        "alignment": list(kinds),
        "direction": [direction(group) for group in groups],
        "distance": [distance(kind) for kind in kinds],
        "align_dims": [last_apart(group, N, lambda some: dims_text(a.dim for a in some)) for group in groups],
        "temperature": [" ".join(f"{t:g}" for t in sorted({a.temperature for a in group})) for group in groups],
        "align_weight": [last_apart(group, N, weights_text) for group in groups],
        "detached": [" ".join(sorted({"yes" if a.detached else "no" for a in group})) for group in groups],
    }
    return {name: " + ".join(values) or "none" for name, values in columns.items()}


def sampled_dims(plans: Sequence[Plan]) -> str:
    """The dims a step draws from, under the name of each draw where there are several."""
    names = [name for name in plans[0].sampled if name != "layer"]
    drawn = {name: dims_text(plan.sampled[name] for plan in plans) for name in names}
    if len(drawn) > 1:
        return ", ".join(f"{name}: {dims}" for name, dims in drawn.items())
    return next(iter(drawn.values()), "none")


def direction(alignments: Sequence[Alignment]) -> str:
    """From which target to which layers."""
    layers = layers_text(a.layer for a in alignments)
    if all(a.kind == "compress" and a.target == a.layer for a in alignments):
        return f"own compression -> {layers}"
    targets = sorted({a.target for a in alignments})
    return f"{' '.join('teacher' if t == TEACHER else f'layer {t}' for t in targets)} -> {layers}"


def distance(kind: str) -> str:
    """What that kind of alignment makes small, from the docstring of its loss."""
    return first_sentence(DISTANCES[kind].__doc__ or "")


def last_apart(entries: Sequence[Cell | Alignment], N: int, text: Callable[[list], str]) -> str:
    """A text on the entries below layer N, and one on those of layer N if it is another."""
    lower, last = ([e for e in entries if (e.layer == N) == at_last] for at_last in (False, True))
    parts = text(lower), text(last)
    if not (lower and last) or parts[0] == parts[1]:
        return parts[0] if lower else parts[1]
    return f"{parts[0]}, layer {N}: {parts[1]}"


def weights_text(entries: Sequence[Cell | Alignment]) -> str:
    """The weight of all, or those of the lowest and the highest layer."""
    ordered = [f"{weight:.3g}" for _, weight in sorted({(entry.layer, entry.weight) for entry in entries})]
    if len(set(ordered)) < 2:
        return ordered[0] if ordered else "none"
    return f"{ordered[0]}..{ordered[-1]}"


def layers_text(layers: Iterable[int]) -> str:
    """Distinct layers in order: ``1..11``, ``0..10 12``."""
    return runs(layers, lambda layer: layer + 1)


def dims_text(dims: Iterable[int]) -> str:
    """Distinct dims in order: ``8..512 768`` for 8 16 32 64 128 256 512 768."""
    return runs(dims, lambda dim: 2 * dim)


def runs(values: Iterable[int], following: Callable[[int], int]) -> str:
    """Distinct values in order, three or more that follow each other as first..last; ``none`` if there are none."""
    found: list[list[int]] = []
    for value in sorted(set(values)):
        if found and value == following(found[-1][-1]):
            found[-1].append(value)
        else:
            found.append([value])
    parts = [f"{run[0]}..{run[-1]}" if len(run) > 2 else " ".join(map(str, run)) for run in found]
    return " ".join(parts) or "none"


def shown_cells(cells: Sequence[tuple[int, int]]) -> str:
    """The first six cells, and how many there are."""
    text = " ".join(f"({n},{d})" for n, d in cells[:6])
    return f"{text} ... {len(cells)} in all" if len(cells) > 6 else text or "none"


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence (that of "eq. 1" does not), without it."""
    return re.split(r"\.(?:\s+(?!\d)|$)", " ".join(text.split()), maxsplit=1)[0]
