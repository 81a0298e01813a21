"""What one step trains: its cells, its alignments, the draws it was made from; and what a recipe is."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from twodmse.checked import is_finite, is_whole
from twodmse.names import unknown

if TYPE_CHECKING:
    from twodmse.objectives.recipes import Recipe

LOGGED = ("step", "epoch", "loss", "lr", "learning_rate", "grad_norm")  # columns that every log has
TEACHER = -1  # the target of an alignment to a frozen encoder


class Cell(NamedTuple):
    """A cell that takes the base loss."""

    layer: int
    dim: int
    weight: float
    term: str  # the name its loss is logged under


class Alignment(NamedTuple):
    """A cell pulled towards another one, or towards a frozen teacher."""

    layer: int
    dim: int
    target: int  # the layer it is pulled to; TEACHER for a frozen encoder
    weight: float
    kind: str  # what is made small: a name in `alignment.KINDS`
    temperature: float
    detached: bool  # whether the target is held fixed
    term: str


class Plan(NamedTuple):
    """What one step trains."""

    cells: list[Cell]
    alignments: list[Alignment]
    sampled: dict[str, int]  # the layer and dim this step drew, for the log

    @property
    def parts(self) -> list[Cell | Alignment]:
        """Its cells, then its alignments."""
        return [*self.cells, *self.alignments]


def checked_plan(plan: Any, name: str, num_layers: int, dim: int) -> Plan:
    """What a recipe gave, if it can be trained: its parts in lists, its numbers Python's own.

    Args:
        plan: what the recipe gave.
        name: of the recipe.
        num_layers: N of the encoder.
        dim: its D.

    Raises:
        ValueError: if it is no `Plan`, names a cell or target that the encoder does not have or a kind that there is
            none of, has a weight or temperature that cannot be used, or a term or draw with the name of another column
            of the log.
    """
    if not isinstance(plan, Plan):
        raise ValueError(f"recipe {name!r} gave {type(plan).__name__}: it must give a Plan")
    parts = {"cells": _listed(plan.cells), "alignments": _listed(plan.alignments)}
    for (group, listed), kind in zip(parts.items(), (Cell, Alignment), strict=True):
        for part in listed:
            if not isinstance(part, kind):
                raise ValueError(f"recipe {name!r} has {part!r} among its {group}: give a list of {kind.__name__}")
            if wrong := _fault(part, num_layers, dim):
                raise ValueError(f"recipe {name!r} has {part!r}: {wrong}")
    terms = {part.term for listed in parts.values() for part in listed}
    for column in (*terms, *plan.sampled):
        if not isinstance(column, str) or column in LOGGED or (column in terms and column in plan.sampled):
            raise ValueError(
                f"a term or a draw of the plan is called {column!r}: give it a text that no other term or draw has, "
                f"and none of {', '.join(LOGGED)}"
            )
    for column, drawn in plan.sampled.items():
        if not isinstance(drawn, Integral):
            raise ValueError(f"recipe {name!r} says that it drew {column} {drawn!r}: a layer or dim is an integer")
    return Plan(parts["cells"], parts["alignments"], {column: int(drawn) for column, drawn in plan.sampled.items()})


def _listed(given: Any) -> list[Any]:
    """The parts of a plan as a list, whatever they came in."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | Cell | Alignment) else [given]


def _fault(part: Cell | Alignment, num_layers: int, dim: int) -> str:
    """What keeps a part of a plan from being trained in an encoder of N layers and width D; empty if nothing does."""
    from twodmse.objectives.alignment import KINDS  # here: the command line's help needs no torch

    ranges = {"layer": (0, num_layers), "dim": (1, dim), "target": (TEACHER, num_layers)}
    for number, (least, most) in ranges.items():
        if not is_whole(getattr(part, number, least), least, most):
            return f"its {number} is out of range, the encoder has layers 0..{num_layers} and dims 1..{dim}"
    if not is_finite(part.weight) or part.weight < 0:
        return "its weight must be a finite number, 0 or more"
    if isinstance(part, Alignment):
        if part.kind not in KINDS:
            return unknown("kind of alignment", part.kind, KINDS)
        if not is_finite(part.temperature) or part.temperature <= 0:
            return "its temperature must be a finite number above 0"
    return ""


class Draw:
    """The sizes a recipe works with, and the draws of one step.

    Attributes:
        N: layers of the encoder.
        D: its width.
        dims: ascending cut widths to draw from or to train.
        teacher_dim: width of the frozen teacher; None without one.
        options: the recipe's options, each an attribute.
        rng: random numbers of this step, for draws of another kind.
    """

    def __init__(self, recipe: "Recipe", step: int) -> None:
        self.N, self.D, self.dims, self.step = recipe.num_layers, recipe.dim, recipe.dims, step
        self.teacher_dim, self.options = recipe.teacher_dim, SimpleNamespace(**recipe.options)
        self.rng = random.Random(f"{recipe.seed}/{step}")

    def layer(self, first: int = 1) -> int:
        """A layer below the last, uniform from first..N-1."""
        return self.rng.randint(first, self.N - 1)

    def cut(self) -> int:
        """One of the recipe's dims, uniform."""
        return self.rng.choice(self.dims)


def doubling(dim: int) -> tuple[int, ...]:
    """8, 16, 32, ... below ``dim``: the dims of the 2DMSE paper."""
    return tuple(8 * 2**i for i in range(32) if 8 * 2**i < dim) or (dim,)


PlanOf = Callable[[Draw], Plan]


@dataclass(frozen=True)
class RecipeSpec:
    """A recipe as it is known by name.

    Attributes:
        plan: from a step's draws to what it trains.
        source: paper with version and equation, or code with commit.
        options: what the plan reads as ``draw.options``, and the values it takes where none are given.
        settings: other settings of a run that change what it trains: dims, noise, two_passes, teacher.
        needs: of an option or setting, the switch that makes it count.
        full_width: whether its dims end with D where none are given.
        min_layers: least N.
        with_teacher: what it is with a frozen teacher; None for a recipe that has no use for one.
        shown: options of the preset, with which tables of recipes show it.
        departs: where it is not what its source has.
    """

    plan: PlanOf
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[str] = ("dims", "noise", "two_passes")
    needs: Mapping[str, str] = field(default_factory=dict)
    full_width: bool = True
    min_layers: int = 2
    with_teacher: "RecipeSpec | None" = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    departs: str = ""

    @property
    def summary(self) -> str:
        """The first line of what is written at its plan."""
        return (self.plan.__doc__ or "").partition("\n")[0].strip().removesuffix(".")

    def check_given(self, name: str, given: Mapping[str, Any]) -> None:
        """Refuse what is given and would change nothing.

        Args:
            name: of the recipe.
            given: options by name, and ``dims``.

        Raises:
            ValueError: for an unknown option, one that the recipe makes no use of, or one whose switch is off.
        """
        on = {**self.options, **given}
        for option, value in given.items():
            known = [*self.options, *(setting for setting in self.settings if setting == "dims")]
            if option not in known:
                raise ValueError(unknown(f"option of recipe {name!r}", option, known))
            switch = self.needs.get(option)
            if switch and not on.get(switch, True) and value != self.options.get(option):
                raise ValueError(f"{option} is {value!r}: without {switch} it has no effect, leave it out")

    @property
    def uses(self) -> tuple[str, ...]:
        """Every setting of a run that it makes use of."""
        return (*self.options, *self.settings)
