"""The published recipes: which cells a step trains, which it aligns to which, with what weight.

A recipe is a pure function from a step's draws to a `Plan`; `objectives` computes any plan. Every draw comes from the
seed and the step number alone, so that every process of a distributed run, and a run resumed at that step, trains the
same cells.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


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
    kind: str  # coordinates | scores | pairs | vectors | compress: see `describe.DISTANCES` for their losses
    temperature: float
    detached: bool  # whether the target is held fixed
    term: str


TEACHER = -1


class Plan(NamedTuple):
    """What one step trains."""

    cells: list[Cell]
    alignments: list[Alignment]
    sampled: dict[str, int]  # the layer and dim this step drew, for the log


class Draw:
    """The sizes a recipe works with, and the draws of one step."""

    def __init__(self, recipe: "Recipe", step: int) -> None:
        self.N, self.D, self.dims, self.options = recipe.num_layers, recipe.dim, recipe.dims, recipe
        self.rng = random.Random(f"{recipe.seed}/{step}")

    def layer(self, first: int = 1) -> int:
        """A layer below the last, uniform from first..N-1."""
        return self.rng.randint(first, self.N - 1)

    def cut(self) -> int:
        """One of the recipe's dims, uniform."""
        return self.rng.choice(self.dims)


def full(draw: Draw) -> Plan:
    """The last layer at full width, nothing else: AnglE's and SimCSE's objective, the baseline."""
    return Plan([Cell(draw.N, draw.D, 1.0, "last_full")], [], {})


def mrl(draw: Draw) -> Plan:
    """The last layer at every dim, equal weights. Source: MRL (Kusupati et al., 2205.13147v4), eq. 1 with c_m = 1."""
    return Plan([Cell(draw.N, d, 1.0, f"last_{d}") for d in draw.dims], [], {})


def two_dmse(draw: Draw) -> Plan:
    """2DMSE, first version: a sampled layer s and dim d beside the last layer, KL of layer s to the last.

    loss(N,D) + loss(s,D) + T^2 KL_T(N || s) + loss(N,d) + loss(s,d), T = 1, target not detached, one d for both.
    Source: 2402.14776v1 section 3; AnglE 74e5ba2 (which takes the layers below the last from a second forward pass:
    switch ``two_passes``). The switches last_layer, alignment and matryoshka are the paper's ablations.
    """
    s, d = draw.layer(), draw.cut()
    t = draw.options.temperature
    return _two_dmse_plan(draw, s, d, shallow_weight=draw.options.shallow_weight, kl_weight=t * t)


def two_dmse_weighted(draw: Draw) -> Plan:
    """2DMSE as the authors' code had it a week later: base loss of layer s weighted 1/s, KL weighted T ln(2+s).

    One forward pass, same draws and dims. Source: AnglE 347bbb6.
    """
    s, d = draw.layer(), draw.cut()
    t = draw.options.temperature
    return _two_dmse_plan(draw, s, d, shallow_weight=draw.options.shallow_weight / s, kl_weight=t * math.log(2 + s))


def _two_dmse_plan(draw: Draw, s: int, d: int, shallow_weight: float, kl_weight: float) -> Plan:
    N, D, options = draw.N, draw.D, draw.options
    cells = [Cell(s, D, shallow_weight, "shallow_full")]
    if options.last_layer:
        cells.append(Cell(N, D, 1.0, "last_full"))
    if options.matryoshka:
        cells.append(Cell(s, d, shallow_weight, "shallow_cut"))
        if options.last_layer:
            cells.append(Cell(N, d, 1.0, "last_cut"))
    weight = options.align_weight * kl_weight
    alignments = [Alignment(s, D, N, weight, "coordinates", options.temperature, False, "alignment")]
    return Plan(cells, alignments if options.alignment else [], {"layer": s, "dim": d if options.matryoshka else D})


def ese(draw: Draw) -> Plan:
    """ESE: every layer 0..N-2 at width k, and the last at D and k, each drawn to its own PCA compression.

    Weights of the layers below the last: 1/(1+ln(1+i)), mean over N-1; layer N-1 is skipped and layer 0 is trained,
    as in the code. Source: 2402.14776v2; AnglE HEAD ``AngleESETrainer``. k is ``compress_dim``.
    """
    N, k, t = draw.N, draw.options.compress_dim, draw.options.temperature
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
    Source: sentence-transformers 5.7 and later.
    """
    last_dim, i, dim = draw.cut(), draw.layer(first=0), draw.cut()
    t = draw.options.temperature
    cells = [Cell(draw.N, last_dim, 1.0, "last_cut"), Cell(i, dim, 1.0, "shallow_cut")]
    align = Alignment(i, draw.D, draw.N, draw.options.align_weight * t, "coordinates", t, True, "alignment")
    return Plan(cells, [align], {"layer": i, "dim": dim, "last_dim": last_dim})


def starbucks(draw: Draw) -> Plan:
    """Starbucks' SRL for STS: six fixed pairs (layer, dim), both rising to (N, D); KL at the pair's own width.

    For 12 layers and D = 768 the pairs are (2,32) (4,64) (6,128) (8,256) (10,512) (12,768). KL weight 0.3, no
    temperature inside, target not detached. Source: ielab/Starbucks 2a3b24f ``sts/starbucks_loss.py``.
    """
    widths = (*doubling(draw.D)[-5:], draw.D)[-draw.N :]
    layers = [round(draw.N * (i + 1) / len(widths)) for i in range(len(widths))]
    cells = [Cell(layer, d, 1.0, f"pair_{layer}_{d}") for layer, d in zip(layers, widths, strict=True)]
    alignments = [
        Alignment(cell.layer, cell.dim, draw.N, 0.3, "coordinates", 1.0, False, "alignment") for cell in cells[:-1]
    ]
    return Plan(cells, alignments, {})


def grid(draw: Draw) -> Plan:
    """Every layer x every dim on every step, each cell drawn to the in-batch scores of a frozen teacher or of (N, D).

    The cells are aligned by `losses.kl_scores` with one weight in all, so that the alignment is a mean over cells.
    To a frozen teacher no cell below needs the base loss: the last layer alone takes it, lightly (switch
    ``last_layer``), so that it gains from the labels what it gives up for the others. A teacher as wide as the encoder
    also holds every layer's direction at full width (`losses.turned`), which keeps what the scores of a batch leave
    open; with ``pair_weight``, the pairs within rows are ranked as it ranks them (`losses.uncorrelated`). Without a
    teacher the target is the encoder's own last layer, held fixed, and every cell takes the base loss.
    Source: this project.
    """
    N, D, options = draw.N, draw.D, draw.options
    every_cell = [(n, d) for n in range(1, N + 1) for d in draw.dims]
    share = 1.0 / len(every_cell)
    weight, t = options.align_weight * share, options.temperature
    if options.teacher_dim is None:
        cells = [Cell(n, d, share, f"layer_{n}") for n, d in every_cell]
        below = [cell for cell in every_cell if cell != (N, D)]
        aligned = [Alignment(n, d, N, weight, "scores", t, True, f"align_{n}") for n, d in below]
        return Plan(cells, aligned if options.alignment else [], {})
    cells = [Cell(N, D, 0.3, "last_full")] if options.last_layer else []
    aligned = [Alignment(n, d, TEACHER, weight, "scores", t, True, f"align_{n}") for n, d in every_cell]
    if options.pair_weight:
        pairs = options.pair_weight * share
        aligned += [Alignment(n, d, TEACHER, pairs, "pairs", 1.0, True, f"pairs_{n}") for n, d in every_cell]
    if options.teacher_dim == D and options.hold_weight:
        hold = options.hold_weight / N
        aligned += [Alignment(n, D, TEACHER, hold, "vectors", 1.0, True, f"hold_{n}") for n in range(1, N + 1)]
    return Plan(cells, aligned, {})


RECIPES: dict[str, Callable[[Draw], Plan]] = {
    "full": full,
    "mrl": mrl,
    "2dmse": two_dmse,
    "2dmse-weighted": two_dmse_weighted,
    "ese": ese,
    "st2d": st2d,
    "starbucks": starbucks,
    "grid": grid,
}
TEMPERATURES = {"st2d": 0.3, "grid": 0.05}  # of the alignment; 1 where a recipe is not named
CUT_ONLY = ("2dmse", "2dmse-weighted")  # recipes whose dims leave out D, because (., D) is trained on every step


def doubling(dim: int) -> tuple[int, ...]:
    """8, 16, 32, ... below ``dim``: the dims of the 2DMSE paper."""
    return tuple(8 * 2**i for i in range(32) if 8 * 2**i < dim) or (dim,)


@dataclass(frozen=True)
class Recipe:
    """A named recipe for an encoder of N layers and width D.

    Raises:
        ValueError: for an unknown name, or dims or a compressed width outside 1..D.
    """

    name: str
    num_layers: int  # N
    dim: int  # D
    dims: tuple[int, ...] = ()  # dims it draws from or trains; () is the recipe's own default
    seed: int = 0
    last_layer: bool = True  # 2dmse: the base loss of the last layer
    alignment: bool = True  # 2dmse: the KL term
    matryoshka: bool = True  # 2dmse: the cut dims
    shallow_weight: float = 1.0  # 2dmse: multiplies the base loss of the sampled layer; ls of AnglE 74e5ba2
    temperature: float | None = None  # of the alignment; None is the recipe's own
    align_weight: float = 1.0  # multiplies the alignment's own weight
    compress_dim: int = 128  # ese: k
    teacher_dim: int | None = None  # grid: width of the frozen teacher to align to; None aligns to the last layer
    hold_weight: float = 1.0  # grid with a teacher: of holding every layer's direction
    pair_weight: float = 0.0  # grid with a teacher: of ranking the pairs within each row as it does

    def __post_init__(self) -> None:
        if self.name not in RECIPES:
            raise ValueError(f"unknown recipe {self.name!r}: choose one of {', '.join(RECIPES)}")
        if self.num_layers < 2 and self.name not in ("full", "mrl"):
            raise ValueError(f"recipe {self.name!r} needs at least 2 layers, this backbone has {self.num_layers}")
        dims = tuple(sorted(set(self.dims)))
        if not dims:
            dims = doubling(self.dim) if self.name in CUT_ONLY else (*doubling(self.dim), self.dim)
        if not 1 <= dims[0] <= dims[-1] <= self.dim:
            raise ValueError(f"dims {dims} are out of range: this backbone has dims 1..{self.dim}")
        object.__setattr__(self, "dims", tuple(dict.fromkeys(dims)))
        object.__setattr__(self, "compress_dim", min(self.compress_dim, self.dim))
        if self.temperature is None:
            object.__setattr__(self, "temperature", TEMPERATURES.get(self.name, 1.0))

    def plan(self, step: int) -> Plan:
        """Everything that step ``step`` (0, 1, ...) trains."""
        return RECIPES[self.name](Draw(self, step))

    def cells(self, step: int) -> list[tuple[int, int]]:
        """The cells (layer, dim) that take the base loss at step ``step``, sorted."""
        return sorted({(cell.layer, cell.dim) for cell in self.plan(step).cells})
