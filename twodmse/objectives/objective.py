"""The objective: one function that computes any recipe's plan from the pooled states of one forward pass."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twodmse.checked import is_finite
from twodmse.names import unknown
from twodmse.objectives import losses
from twodmse.objectives.alignment import KINDS
from twodmse.objectives.plan import TEACHER, Plan
from twodmse.objectives.recipes import BASE_LOSSES

# A base loss: the columns (b, D) of one layer, gold scores (b,) or None, and K ascending dims give (K,).
Base = Callable[[Sequence[Tensor], Tensor | None, Sequence[int]], Tensor]


@dataclass(frozen=True)
class BaseLoss:
    """Weights and scales of the base loss, which every trained cell takes.

    For triplets, the ranking part is contrastive over positives and hard negatives, and CoSENT and angle see
    (anchor, positive) as 1 and (anchor, negative) as 0. For labelled pairs, the ranking part is AnglE's in-batch term.
    """

    contrastive: float = 1.0
    cosent: float = 0.0
    angle: float = 0.0
    scale: float = 20.0
    angle_scale: float | None = None  # of the angle term; None is ``scale``
    hard: float | None = None  # of AnglE 0.6 (``cln_w``): see `_ranking`; None is the ranking of the versions before

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            weight = name in ("contrastive", "cosent", "angle", "hard")
            if value is not None and not (is_finite(value) and (value >= 0 if weight else value > 0)):
                raise ValueError(f"{name} is {value!r}: it must be a number {'of 0 or more' if weight else 'above 0'}")
        if not self.contrastive + self.cosent + self.angle + (self.hard or 0):
            raise ValueError("contrastive, cosent, angle and hard are all 0: give one of them a weight")

    @classmethod
    def named(
        cls,
        name: str,
        scored: bool,
        mix: Sequence[float],
        scale: float,
        angle_scale: float | None = None,
        hard: float | None = None,
    ) -> "BaseLoss":
        """The base loss of that name; ``auto`` is contrastive for triplets and cosent for scored pairs.

        Args:
            name: auto, contrastive, cosent, angle or mix.
            scored: whether the data are scored pairs.
            mix: the weights of contrastive, cosent and angle under ``mix``.
            scale: 1 / temperature of the cosines.
            angle_scale: 1 / temperature of the angle term; None is ``scale``.
            hard: the weight of ranking with hard negatives under ``mix``; see `_ranking`.

        Raises:
            ValueError: for an unknown name.
        """
        if name == "auto":
            name = "cosent" if scored else "contrastive"
        if name == "mix":
            contrastive, cosent, angle = mix
            return cls(contrastive, cosent, angle, scale, angle_scale, hard)
        if name not in BASE_LOSSES:
            raise ValueError(unknown("loss", name, BASE_LOSSES))
        return cls(**{"contrastive": 0.0, name: 1.0}, scale=scale, angle_scale=angle_scale)

    def __call__(self, columns: Sequence[Tensor], gold: Tensor | None, dims: Sequence[int]) -> Tensor:
        """The base loss of one layer at every dim.

        Args:
            columns: 2 or 3 tensors (b, D): anchors, positives and, for triplets, negatives.
            gold: (b,) scores of scored pairs; None for triplets and unscored pairs.
            dims: ascending cut widths, K of them.

        Returns:
            (K,).
        """
        anchors, positives, *negatives = columns
        total = anchors.new_zeros(len(dims))
        if gold is None:
            total = total + self._ranking(anchors, positives, negatives, dims)
            firsts = torch.cat([anchors] * (1 + len(negatives)))  # (P, D)
            seconds = torch.cat([positives, *negatives])
            labels = (torch.arange(len(firsts), device=firsts.device) < len(anchors)).to(firsts.dtype)  # (P,)
        else:
            firsts, seconds, labels = anchors, positives, gold
            if self.contrastive:
                self.check_labels(gold)
                texts = torch.cat([firsts, seconds])  # (2P, D)
                scores = losses.nested_cosines(texts, texts, dims)  # (K, 2P, 2P)
                total = total + self.contrastive * losses.in_batch(scores, gold, self.scale)
        if self.cosent:
            scores = losses.nested_pair_cosines(firsts, seconds, dims)  # (K, P)
            total = total + self.cosent * losses.cosent(scores, labels, self.scale)
        if self.angle:
            scale = self.scale if self.angle_scale is None else self.angle_scale
            angles = [losses.angle(firsts[:, :d], seconds[:, :d], labels, scale) for d in dims]  # K x ()
            total = total + self.angle * torch.stack(angles)
        return total

    def check_labels(self, gold: Tensor) -> None:
        """Refuse graded scores (P,) where the in-batch term would take pairs for alike or not.

        AnglE cuts them to integers and takes each pair of 1 or more as a positive, with more targets where the
        products of labels and places happen to meet.

        Raises:
            ValueError: naming the first score that is neither 0 nor 1.
        """
        graded = gold[(gold != 0) & (gold != 1)]
        if self.contrastive and len(graded):
            raise ValueError(
                f"a score is {graded[0].item():g}: the in-batch term of labelled pairs takes 0 and 1 alone. Use "
                "loss='cosent' or 'angle', or 'mix' with a first weight of 0, or turn the scores into labels"
            )

    def check_compares(self, name: str, columns: int, gold: np.ndarray | None) -> None:
        """Refuse data on which the loss, or a part of it, is 0 whatever the encoder does.

        Args:
            name: of the data.
            columns: 2, or 3 for triplets.
            gold: (P,) scores; None without.

        Raises:
            ValueError: for ``hard`` without negatives, cosent or angle without negatives and without two different
                scores, or for in-batch ranking without a positive pair.
        """
        if self.hard is not None and columns < 3:
            raise ValueError(f"hard is {self.hard}, for triplets: {name} has pairs, leave it out")
        compares = self.cosent or self.angle
        if gold is None:
            if columns == 2 and compares:
                raise ValueError(
                    f"{name} has pairs without scores or negatives, among which cosent and angle find nothing to "
                    "compare: use loss='contrastive', or give scores or negatives"
                )
        elif len(set(gold.tolist())) < 2 and (compares or not gold.any()):
            raise ValueError(
                f"{name} has the score {gold[0]:g} in every row, so there is nothing to compare: give scores that "
                "differ, or leave them out for loss='contrastive'"
            )

    def _ranking(
        self, anchors: Tensor, positives: Tensor, negatives: Sequence[Tensor], dims: Sequence[int]
    ) -> Tensor | float:
        """The ranking part of triplets or unlabelled pairs, (K,): contrastive over positives and hard negatives.

        With ``hard``, as AnglE 0.6 has it for triplets: half the weighted sum of one over the positives alone, weight
        ``contrastive``, and one over the hard negatives too, weight ``hard``.
        """
        candidates = torch.cat([positives, *negatives])
        weights = [(self.contrastive, candidates)]
        if self.hard is not None and negatives:
            weights = [(self.contrastive / 2, positives), (self.hard / 2, candidates)]
        return sum(
            weight * losses.nested_contrastive(anchors, among, dims, self.scale) for weight, among in weights if weight
        )


def by_cell(loss: Callable[[Sequence[Tensor], Tensor | None], Tensor]) -> Base:
    """A base loss from one of your own, which is called for each trained cell.

    Args:
        loss: ``loss(columns, gold)``, 2 or 3 columns (b, d) cut to the cell and gold (b,) or None, gives a scalar.

    Raises:
        ValueError: when it is called, if it gives anything but a scalar, or one that the columns have no part in.
    """

    def base(columns: Sequence[Tensor], gold: Tensor | None, dims: Sequence[int]) -> Tensor:
        gold = None if gold is None else gold.float()
        values = [loss([column[:, :d] for column in columns], gold) for d in dims]
        for value in values:
            if not isinstance(value, Tensor) or value.shape != ():
                given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"the base loss gave {given}: it must give a scalar tensor")
            if columns[0].requires_grad and not value.requires_grad:
                raise ValueError(
                    "the base loss gave a number without a gradient: work it out from the columns as tensors, without "
                    "detach, item or NumPy"
                )
        return torch.stack(values)  # (K,)

    return base


def objective(
    states: Tensor,
    plan: Plan,
    base: Base,
    num_columns: int,
    gold: Tensor | None = None,
    teacher: Tensor | None = None,
    own_columns: int | None = None,
) -> dict[str, Tensor]:
    """The terms of a plan, each weighted and under its own name; the loss of the step is their sum.

    Args:
        states: (N+1, B, D) float32, B = num_columns * b texts, column after column.
        plan: the cells and alignments of this step.
        base: the base loss.
        num_columns: 2 for pairs, 3 for triplets.
        gold: (b,) for scored pairs.
        teacher: (B, E) vectors of a frozen teacher for the same texts, if the plan aligns to one.
        own_columns: how many columns the base loss sees, the first ones; None means all.

    Returns:
        A scalar a term.

    Raises:
        ValueError: for an alignment to a teacher that is not there.
    """
    terms: dict[str, Tensor] = defaultdict(lambda: states.new_zeros(()))
    layers = states.unbind()  # N+1 times (B, D): each has its own gradient, where a slice's is as large as all layers
    by_layer = attrgetter("layer")
    for layer, group in _grouped(sorted(plan.cells, key=by_layer), by_layer):
        dims = sorted({cell.dim for cell in group})
        values = base(layers[layer].chunk(num_columns)[:own_columns], gold, dims)  # (K,)
        for cell in group:
            terms[cell.term] = terms[cell.term] + cell.weight * values[dims.index(cell.dim)]
    all_but_dim = attrgetter("layer", "kind", "target", "temperature", "detached")
    for (layer, kind, target, temperature, detached), together in _grouped(plan.alignments, all_but_dim):
        dims = sorted({alignment.dim for alignment in together})
        if target == TEACHER and teacher is None:
            raise ValueError("the plan aligns to a frozen teacher, and there is none: name one, or align to a layer")
        vectors: Tensor = teacher if target == TEACHER else layers[target]  # (B, E)
        vectors = vectors.detach() if detached else vectors
        values = KINDS[kind].values(vectors, layers[layer], dims, temperature, states.shape[1] // num_columns)  # (K,)
        for alignment in together:
            terms[alignment.term] = terms[alignment.term] + alignment.weight * values[dims.index(alignment.dim)]
    return dict(terms)


def _grouped(parts: Sequence[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    """Parts of a plan by what they share: those that differ in their dims alone are computed at once."""
    groups = defaultdict(list)
    for part in parts:
        groups[key(part)].append(part)
    return list(groups.items())
