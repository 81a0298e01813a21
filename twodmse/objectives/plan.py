"""What one step trains: its cells, its alignments, the draws it was made from; and what a recipe is."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

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


def loggable(plan: Plan) -> Plan:
    """The plan with its draws as Python's own integers.

    Raises:
        ValueError: if a term or a draw has the name of another column of the log.
    """
    terms = {part.term for part in plan.parts}
    for name in (*terms, *plan.sampled):
        if not isinstance(name, str) or name in LOGGED or (name in terms and name in plan.sampled):
            raise ValueError(
                f"a term or a draw of the plan is called {name!r}: give it a text that no other term or draw has, and "
                f"none of {', '.join(LOGGED)}"
            )
    return plan._replace(sampled={name: int(drawn) for name, drawn in plan.sampled.items()})


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

    @property
    def uses(self) -> tuple[str, ...]:
        """Every setting of a run that it makes use of."""
        return (*self.options, *self.settings)
