"""Recipes as tables: what each one trains, read off its plans, with every draw taken in turn."""

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from twodmse.names import unknown
from twodmse.objectives.alignment import KINDS
from twodmse.objectives.plan import TEACHER, Alignment, Cell, Draw, Plan, checked_plan
from twodmse.objectives.recipes import RECIPES, Recipe, spec_of

WITH_TEACHER = "+teacher"  # ends the name of a recipe as its preset trains it: with a frozen teacher


class EveryDraw(Draw):
    """Takes each layer and each dim in turn, a step each, where a run draws them."""

    def layer(self, first: int = 1) -> int:
        """The next of first..N-1."""
        return first + self.step % (self.N - first)

    def cut(self) -> int:
        """The next of the recipe's dims."""
        return self.dims[self.step % len(self.dims)]


def names() -> list[str]:
    """The recipes by name, and after them those that train other things with a frozen teacher."""
    return [*RECIPES, *(name + WITH_TEACHER for name, spec in RECIPES.items() if spec.with_teacher)]


def recipe_table(num_layers: int, dim: int) -> pd.DataFrame:
    """What every recipe trains on an encoder of N layers and width D.

    Returns:
        One row a recipe, with the columns of `describe`.

    Raises:
        ValueError: if N is less than 2 or D less than 1.
    """
    return pd.DataFrame([describe(named(name, num_layers, dim)) | {"recipe": name} for name in names()])


def recipe_difference(a: str, b: str, num_layers: int, dim: int) -> pd.DataFrame:
    """What two recipes, by name, do differently: `difference` with the names as its last two columns.

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
    return pd.DataFrame([(name, kind.distance) for name, kind in KINDS.items()], columns=["kind", "distance"])


def named(name: str, num_layers: int, dim: int) -> Recipe:
    """The recipe of that name at its defaults; ``grid+teacher`` is the preset `grid`, with a teacher of width D.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in names():
        raise ValueError(unknown("recipe", name, names()))
    if not name.endswith(WITH_TEACHER):
        return Recipe(name, num_layers, dim)
    plain = name.removesuffix(WITH_TEACHER)
    return Recipe(plain, num_layers, dim, teacher_dim=dim, **spec_of(plain, teacher=True).shown)


def describe(recipe: Recipe) -> dict[str, str]:
    """What a recipe trains, from its plans over enough steps that each of its draws comes up.

    Runs are shortened: layers 1..4 are 1 2 3 4, dims 8..64 are 8 16 32 64. Weights 1..0.25 are those of the lowest and
    the highest of the layers. Where layer N differs from the layers below it, it is named after them.

    Returns:
        ``recipe``: its name. ``sampled_layers``, ``sampled_dims``: what a step draws from. ``cells``: how many cells
        take the base loss in one step. ``layers``, ``dims``, ``weight``: those of the base loss, over all steps.
        ``alignment``: its kinds. ``direction``: from which target to which layers. ``distance``: what is made small.
        ``align_dims``, ``temperature``, ``align_weight``, ``detached`` (whether the target is held fixed): those of the
        alignment. ``first_step``: the cells of step 0. ``summary``, ``source``, ``departs``: what it is, where from,
        and where it is not what its source has.
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
    facts = {"summary": recipe.spec.summary, "source": recipe.spec.source, "departs": recipe.spec.departs}
    return base | describe_alignments(plans, N) | {"first_step": shown_cells(recipe.cells(0))} | facts


def all_plans(recipe: Recipe) -> list[Plan]:
    """As many plans as it takes for each layer and each dim to have its turn; one where nothing is drawn."""
    first = recipe.plan(0)
    steps = max(recipe.num_layers, len(recipe.dims)) if first.sampled else 0
    drawn = (recipe.spec.plan(EveryDraw(recipe, step)) for step in range(steps))
    return [checked_plan(plan, recipe.name, recipe.num_layers, recipe.dim) for plan in drawn] or [first]


def describe_alignments(plans: Sequence[Plan], N: int) -> dict[str, str]:
    """The columns of `describe` on alignment, with ``+`` between kinds where they are not alike."""
    alignments = [alignment for plan in plans for alignment in plan.alignments]
    kinds = [kind for kind in KINDS if any(a.kind == kind for a in alignments)]
    groups = [[a for a in alignments if a.kind == kind] for kind in kinds]
    columns = {
        "alignment": kinds,
        "direction": [direction(group) for group in groups],
        "distance": [KINDS[kind].distance for kind in kinds],
        "align_dims": [last_apart(group, N, lambda some: dims_text(a.dim for a in some)) for group in groups],
        "temperature": [" ".join(f"{t:g}" for t in sorted({a.temperature for a in group})) for group in groups],
        "align_weight": [last_apart(group, N, weights_text) for group in groups],
        "detached": [" ".join(sorted({"yes" if a.detached else "no" for a in group})) for group in groups],
    }
    return {
        name: " + ".join(values if len(set(values)) > 1 else values[:1]) or "none" for name, values in columns.items()
    }


def sampled_dims(plans: Sequence[Plan]) -> str:
    """The dims a step draws from, under the name of each draw where there are several."""
    drawn = {name: dims_text(plan.sampled[name] for plan in plans) for name in plans[0].sampled if name != "layer"}
    if len(drawn) > 1:
        return ", ".join(f"{name}: {dims}" for name, dims in drawn.items())
    return next(iter(drawn.values()), "none")


def direction(alignments: Sequence[Alignment]) -> str:
    """From which target to which layers."""
    layers = layers_text(a.layer for a in alignments)
    if all(a.target == a.layer for a in alignments):
        return f"own compression -> {layers}"
    targets = {a.target for a in alignments}
    words = ["teacher"] if TEACHER in targets else []
    own = targets - {TEACHER}
    if own:
        words.append(f"{'layer' if len(own) == 1 else 'layers'} {layers_text(own)}")
    return f"{' and '.join(words)} -> {layers}"


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
