"""The published recipes: which cells a step trains, which it aligns to which, with what weight.

A recipe is a pure function from a step's draws to a `Plan`; `objective` computes any plan. Every draw comes from the
seed and the step number alone, so that every process of a distributed run, and a run resumed at that step, trains the
same cells.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from twodmse.names import OWN, unknown
from twodmse.objectives.every_cell import cascade, cascade_with_teacher, grid, grid_with_teacher
from twodmse.objectives.plan import Alignment, Cell, Draw, Plan, PlanOf, RecipeSpec, checked_plan, doubling

BASE_LOSSES = ("auto", "contrastive", "cosent", "angle", "mix")  # of every trained cell, whatever the recipe
PAIR_WEIGHT = 2.0  # of the preset `grid`, with a teacher: the best found on STS-B validation


def full(draw: Draw) -> Plan:
    """The last layer at full width, nothing else: AnglE's and SimCSE's objective, the baseline."""
    return Plan([Cell(draw.N, draw.D, 1.0, "last_full")], [], {})


def mrl(draw: Draw) -> Plan:
    """The last layer at every dim, equal weights."""
    return Plan([Cell(draw.N, d, 1.0, f"last_{d}") for d in draw.dims], [], {})


def two_dmse(draw: Draw) -> Plan:
    """2DMSE, first version: a sampled layer s and dim d beside the last layer, KL of layer s to the last.

    loss(N,D) + loss(s,D) + T^2 KL_T(N || s) + loss(N,d) + loss(s,d), T = 1, target not detached, one d for both.
    The original takes the layers below the last from a second forward pass: setting ``two_passes``. The switches
    last_layer, alignment and matryoshka are the paper's ablations; shallow_weight is ``ls`` of AnglE 74e5ba2, where 0
    leaves the sampled layer and its KL out.
    """
    s, d = draw.layer(), draw.cut()
    t = draw.options.temperature
    return _two_dmse_plan(draw, s, d, shallow_weight=draw.options.shallow_weight, kl_weight=t * t)


def two_dmse_weighted(draw: Draw) -> Plan:
    """2DMSE as the authors' code had it a week later: base loss of layer s weighted 1/s, KL weighted T ln(2+s).

    One forward pass, same draws and dims.
    """
    s, d = draw.layer(), draw.cut()
    t = draw.options.temperature
    return _two_dmse_plan(draw, s, d, shallow_weight=draw.options.shallow_weight / s, kl_weight=t * math.log(2 + s))


def _two_dmse_plan(draw: Draw, s: int, d: int, shallow_weight: float, kl_weight: float) -> Plan:
    N, D, options = draw.N, draw.D, draw.options
    layers = [(s, shallow_weight, "shallow")] if shallow_weight else []
    layers += [(N, 1.0, "last")] if options.last_layer else []
    if not layers:
        raise ValueError("last_layer is false and shallow_weight 0: no layer is left to train")
    widths = [(D, "full"), (d, "cut")] if options.matryoshka else [(D, "full")]
    cells = [Cell(n, width, weight, f"{term}_{cut}") for width, cut in widths for n, weight, term in layers]
    weight = options.align_weight * kl_weight
    alignments = [Alignment(s, D, N, weight, "coordinates", options.temperature, False, "alignment")]
    sampled = {"layer": s, "dim": d if options.matryoshka else D}
    return Plan(cells, alignments if options.alignment and shallow_weight else [], sampled)


def ese(draw: Draw) -> Plan:
    """ESE: every layer 0..N-2 at width k, and the last at D and k, each drawn to its own PCA compression.

    Weights of the layers below the last: 1/(1+ln(1+i)), mean over N-1; layer N-1 is skipped and layer 0 is trained,
    as in the code. k is ``compress_dim``, at most D.
    """
    N, k, t = draw.N, min(draw.options.compress_dim, draw.D), draw.options.temperature
    cells = [Cell(N, draw.D, 1.0, "last_full"), Cell(N, k, 1.0, "last_cut")]
    alignments = [Alignment(N, k, N, 1.0, "compress", t, True, "last_compression")]
    for i in range(N - 1):
        weight = 1 / (1 + math.log(1 + i)) / (N - 1)
        cells.append(Cell(i, k, weight, "shallow_cut"))
        alignments.append(Alignment(i, k, i, weight, "compress", t, True, "shallow_compression"))
    return Plan(cells, alignments, {})


def st2d(draw: Draw) -> Plan:
    """sentence-transformers' Matryoshka2dLoss at its defaults: one dim for the last layer, another for layer i.

    i is uniform from 0..N-1 (0 is the embedding output); KL on the full width, T = 0.3, weight T, target detached.
    """
    return _st2d_plan(draw, first=0, falling=False, detached=True)


def st2d_2024(draw: Draw) -> Plan:
    """sentence-transformers' Matryoshka2dLoss as it was in 2024: layers s from 1, base loss weighted 1/s.

    loss(N,d') + loss(s,d)/s + T KL_T(N || s) on the full width, T = 0.3, target not detached.
    """
    return _st2d_plan(draw, first=1, falling=True, detached=False)


def _st2d_plan(draw: Draw, first: int, falling: bool, detached: bool) -> Plan:
    last_dim, s, dim = draw.cut(), draw.layer(first), draw.cut()
    t = draw.options.temperature
    cells = [Cell(draw.N, last_dim, 1.0, "last_cut"), Cell(s, dim, 1 / s if falling else 1.0, "shallow_cut")]
    align = Alignment(s, draw.D, draw.N, draw.options.align_weight * t, "coordinates", t, detached, "alignment")
    return Plan(cells, [align], {"layer": s, "dim": dim, "last_dim": last_dim})


def starbucks(draw: Draw) -> Plan:
    """Starbucks' SRL for STS: six fixed pairs (layer, dim), both rising to (N, D); KL at the pair's own width.

    For 12 layers and D = 768 the pairs are (2,32) (4,64) (6,128) (8,256) (10,512) (12,768). KL weight 0.3, no
    temperature inside, target not detached.
    """
    widths = (*doubling(draw.D)[-5:], draw.D)[-draw.N :]
    layers = [round(draw.N * (i + 1) / len(widths)) for i in range(len(widths))]
    cells = [Cell(layer, d, 1.0, f"pair_{layer}_{d}") for layer, d in zip(layers, widths, strict=True)]
    alignments = [
        Alignment(cell.layer, cell.dim, draw.N, 0.3, "coordinates", 1.0, False, "alignment") for cell in cells[:-1]
    ]
    return Plan(cells, alignments, {})


SWITCHES = {"last_layer": True, "alignment": True, "matryoshka": True, "shallow_weight": 1.0}
NEEDS = {"temperature": "alignment", "align_weight": "alignment", "noise": "alignment"}
TWO_DMSE = SWITCHES | {"temperature": 1.0, "align_weight": 1.0}
ST2D = {"temperature": 0.3, "align_weight": 1.0}
EVERY_CELL = {"alignment": True, "temperature": 0.05, "align_weight": 1.0}
TAUGHT = {"last_layer": True, "temperature": 0.05, "align_weight": 1.0, "hold_weight": 1.0, "pair_weight": 0.0}


def _every_cell(plan: PlanOf, with_teacher: PlanOf) -> RecipeSpec:
    settings, shown = ("dims", "noise", "two_passes", "teacher"), {"pair_weight": PAIR_WEIGHT}
    taught = RecipeSpec(with_teacher, "this project", TAUGHT, settings, shown=shown)
    return RecipeSpec(plan, "this project", EVERY_CELL, needs=NEEDS, with_teacher=taught)


RECIPES: dict[str, RecipeSpec] = {
    "full": RecipeSpec(full, settings=(), min_layers=1),
    "mrl": RecipeSpec(
        mrl,
        "MRL (Kusupati et al., 2205.13147v4), eq. 1 with c_m = 1",
        settings=("dims",),
        min_layers=1,
        departs="the base loss stands in place of its classifiers",
    ),
    "2dmse": RecipeSpec(
        two_dmse,
        "2402.14776v1 section 3; AnglE 74e5ba2 (which takes the layers below the last from a second forward pass: "
        "switch two_passes)",
        TWO_DMSE,
        needs=NEEDS | {"dims": "matryoshka"},
        full_width=False,
        departs="no frozen teacher and no KL over its tokens, which the command in AnglE's README_2DMSE has",
    ),
    "2dmse-weighted": RecipeSpec(
        two_dmse_weighted,
        "AnglE 347bbb6",
        TWO_DMSE,
        needs=NEEDS | {"dims": "matryoshka"},
        full_width=False,
        departs="the packages 0.3.8 to 0.3.10 weigh the KL T, not T ln(2+s)",
    ),
    "ese": RecipeSpec(
        ese,
        "2402.14776v2; AnglE HEAD AngleESETrainer",
        {"compress_dim": 128, "temperature": 1.0},
        settings=("noise", "two_passes"),
        departs="exact SVD with fixed signs, the original's is randomised; no frozen teacher, no masked language model",
    ),
    "st2d": RecipeSpec(st2d, "sentence-transformers 5.7 and later", ST2D),
    "st2d-2024": RecipeSpec(
        st2d_2024,
        "sentence-transformers 2.5 to 5.1",
        ST2D,
        departs="5.2 to 5.6 draw layer 0 too, with weights 1/(1+i)",
    ),
    "starbucks": RecipeSpec(
        starbucks,
        "ielab/Starbucks 2a3b24f sts/starbucks_loss.py",
        settings=("noise", "two_passes"),
        departs="its pairs are those of 12 x 768; for other sizes they are spread in the same way",
    ),
    "grid": _every_cell(grid, grid_with_teacher),
    "cascade": _every_cell(cascade, cascade_with_teacher),
}


def register_recipe(name: str, plan: PlanOf, **facts: Any) -> None:
    """Make a recipe known by name, to `Recipe`, TrainConfig and the command line.

    Args:
        name: what to call it.
        plan: from a step's draws to what it trains; the first line of its docstring is what the tables say of it.
        facts: its source, options and all else that a `RecipeSpec` holds.

    Raises:
        ValueError: if another recipe has the name, it is none that a recipe can have, or the plan is no function.
    """
    if not callable(plan):
        raise ValueError(f"the plan of recipe {name!r} is {plan!r}: give a function of a Draw that gives a Plan")
    if not isinstance(name, str) or not name.strip() or name.startswith(OWN) or "+" in name:
        raise ValueError(f"a recipe cannot be called {name!r}: give it a text without + that does not begin {OWN}")
    if name in RECIPES and RECIPES[name].plan is not plan:
        raise ValueError(f"there is a recipe {name!r} already: choose another name")
    RECIPES[name] = RecipeSpec(plan, **facts)


def spec_of(name: str, teacher: bool = False) -> RecipeSpec:
    """What is known of a recipe, with or without a frozen teacher.

    Raises:
        ValueError: for an unknown name, or a teacher for a recipe that has no use for one.
    """
    if name not in RECIPES:
        raise ValueError(unknown("recipe", name, RECIPES))
    spec = RECIPES[name]
    if not teacher or "teacher" in spec.settings:
        return spec
    if spec.with_teacher is None:
        those = ", ".join(other for other, one in RECIPES.items() if one.with_teacher)
        raise ValueError(f"recipe {name!r} aligns to no teacher: leave it out, or choose one of {those}")
    return spec.with_teacher


def every_spec() -> list[RecipeSpec]:
    """What is known of every recipe, with and without a teacher."""
    return [one for spec in RECIPES.values() for one in (spec, spec.with_teacher) if one]


def recipe_settings() -> set[str]:
    """Every setting that some recipe uses and another may not."""
    return {setting for spec in every_spec() for setting in spec.uses}


def every_option() -> list[str]:
    """Every option that some recipe has."""
    return list(dict.fromkeys(option for spec in every_spec() for option in spec.options))


class Recipe:
    """A recipe for an encoder of N layers and width D.

    Args:
        name: of the recipe, or a plan of your own.
        num_layers: N.
        dim: D.
        dims: dims it draws from or trains; () is the recipe's own default.
        seed: of its draws.
        teacher_dim: width of the frozen teacher to align to; None has none.
        options: its own options, by name; None is the recipe's own default.

    Raises:
        ValueError: for an unknown name or option, dims outside 1..D, or too few layers.
    """

    def __init__(
        self,
        name: str | PlanOf,
        num_layers: int,
        dim: int,
        dims: Sequence[int] = (),
        seed: int = 0,
        teacher_dim: int | None = None,
        **options: Any,
    ) -> None:
        if callable(name):
            self.name = getattr(name, "__name__", type(name).__name__)
            spec = RecipeSpec(name, options=options, min_layers=1)
        else:
            self.name, spec = name, spec_of(name, teacher_dim is not None)
        if isinstance(dims, str) or not isinstance(dims, Iterable):
            raise ValueError(f"dims is {dims!r}: give a list of dims")
        given = {option: value for option, value in options.items() if value is not None}
        spec.check_given(self.name, given | ({"dims": tuple(dims)} if dims else {}))
        if num_layers < spec.min_layers:
            raise ValueError(
                f"recipe {self.name!r} needs at least {spec.min_layers} layers, this backbone has {num_layers}"
            )
        default = {*doubling(dim), dim} if spec.full_width else doubling(dim)
        self.dims = tuple(sorted(set(dims) or default))
        if not 1 <= self.dims[0] <= self.dims[-1] <= dim:
            raise ValueError(f"dims {self.dims} are out of range: this backbone has dims 1..{dim}")
        self.spec, self.num_layers, self.dim, self.seed, self.teacher_dim = spec, num_layers, dim, seed, teacher_dim
        self.options = {**spec.options, **given}

    def plan(self, step: int) -> Plan:
        """Everything that step ``step`` (0, 1, ...) trains.

        Raises:
            ValueError: for a plan of your own that cannot be trained, as `checked_plan`.
        """
        return checked_plan(self.spec.plan(Draw(self, step)), self.name, self.num_layers, self.dim)

    def cells(self, step: int) -> list[tuple[int, int]]:
        """The cells (layer, dim) that take the base loss at step ``step``, sorted."""
        return sorted({(cell.layer, cell.dim) for cell in self.plan(step).cells})
