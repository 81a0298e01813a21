"""Recipes that train every layer x every dim on every step: all aligned to one target, or each to the next layer up."""

from collections.abc import Callable

from twodmse.objectives.plan import TEACHER, Alignment, Cell, Draw, Plan


def grid(draw: Draw) -> Plan:
    """Every layer x every dim on every step, each cell drawn to the in-batch scores of a frozen teacher or of (N, D).

    Here of (N, D), held fixed: every cell takes the base loss, and every other one is aligned by `losses.kl_scores`,
    with one weight in all, so that the alignment is a mean over cells.
    """
    return _without_teacher(draw, lambda n: draw.N)


def cascade(draw: Draw) -> Plan:
    """Every layer x every dim on every step, each layer drawn to the in-batch scores of the next one up.

    The work and the weights of `grid`; the last layer's cells are drawn to (N, D), as there. Targets are held fixed.
    """
    return _without_teacher(draw, lambda n: min(n + 1, draw.N))


def grid_with_teacher(draw: Draw) -> Plan:
    """Every layer x every dim on every step, each cell drawn to the in-batch scores of a frozen teacher or of (N, D).

    Here of a frozen teacher: no cell below needs the base loss. The last layer alone takes it, lightly (switch
    ``last_layer``), so that it gains from the labels what it gives up for the others. A teacher as wide as the encoder
    also holds every layer's direction at full width (`losses.turned`), which keeps what the scores of a batch leave
    open; with ``pair_weight``, the pairs within rows are ranked as it ranks them (`losses.uncorrelated`).
    """
    return _with_teacher(draw, lambda n: TEACHER)


def cascade_with_teacher(draw: Draw) -> Plan:
    """Every layer x every dim on every step, each layer taught by the next one up, the last by a frozen teacher.

    The work and the weights of `grid_with_teacher`. Layers that teach are held fixed.
    """
    return _with_teacher(draw, lambda n: TEACHER if n == draw.N else n + 1)


def _without_teacher(draw: Draw, target: Callable[[int], int]) -> Plan:
    N, D, options = draw.N, draw.D, draw.options
    every_cell = [(n, d) for n in range(1, N + 1) for d in draw.dims]
    share = 1.0 / len(every_cell)
    cells = [Cell(n, d, share, f"layer_{n}") for n, d in every_cell]
    weight, t = options.align_weight * share, options.temperature
    others = [cell for cell in every_cell if cell != (N, D)]
    aligned = [Alignment(n, d, target(n), weight, "scores", t, True, f"align_{n}") for n, d in others]
    return Plan(cells, aligned if options.alignment else [], {})


def _with_teacher(draw: Draw, target: Callable[[int], int]) -> Plan:
    N, D, options, t = draw.N, draw.D, draw.options, draw.options.temperature
    share = 1.0 / (N * len(draw.dims))
    scores, pairs, hold = options.align_weight * share, options.pair_weight * share, options.hold_weight / N
    layers, aligned = range(1, N + 1), []
    if draw.teacher_dim == D and hold:
        aligned += [Alignment(n, D, target(n), hold, "vectors", 1.0, True, f"hold_{n}") for n in layers]
    for n in layers:
        if pairs:
            aligned += [Alignment(n, d, target(n), pairs, "pairs", 1.0, True, f"pairs_{n}") for d in draw.dims]
        aligned += [Alignment(n, d, target(n), scores, "scores", t, True, f"align_{n}") for d in draw.dims]
    return Plan([Cell(N, D, 0.3, "last_full")] if options.last_layer else [], aligned, {})
