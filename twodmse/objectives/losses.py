"""Losses as pure functions of tensors: ranking and regression of cosines, and terms that align two layers.

Shapes: P pairs, A anchors, C candidates, K nested dims, d a cut width, D the full one. Leading axes written ``...``
are kept, so that one call computes a loss for many cells at once. First cosines, then base losses, then alignments. All
of it runs in float32, see `in_float32`: the masks of 1e12 and the running sums below do not survive half precision.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from twodmse.objectives.precision import in_float32

MASKED = 1e12  # subtracted from a score that must not count
SCORES_AT_ONCE = 2**18  # of one dim; a larger matrix of scores is worked on in blocks of rows


@in_float32
def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of every row of ``x`` (..., A, d) with every row of ``y`` (..., C, d): (..., A, C)."""
    return F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).transpose(-1, -2)


@in_float32
def pair_cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of each row of ``x`` (..., P, d) with the same row of ``y``: (..., P)."""
    return F.cosine_similarity(x, y, dim=-1)


@in_float32
def nested_cosines(x: Tensor, y: Tensor, dims: Sequence[int]) -> Tensor:
    """Cosines at several nested dims for the price of the largest.

    The score at dim d is the running sum of block products, one block between each two consecutive dims, over the
    running sums of squares: `cosines(x[..., :d], y[..., :d])` for every d, without computing any product twice.

    Args:
        x: (A, D).
        y: (C, D).
        dims: ascending, each 1..D.

    Returns:
        (K, A, C), one slice a dim.
    """
    inverse_x, inverse_y = nested_norms(x, dims).reciprocal(), nested_norms(y, dims).reciprocal()  # (K, A), (K, C)
    products, scores = x.new_zeros(len(x), len(y)), []
    for k, (a, b) in enumerate(pairwise([0, *dims])):
        products = torch.addmm(products, x[:, a:b], y[:, a:b].T)  # (A, C)
        scores.append(products * inverse_x[k].unsqueeze(1) * inverse_y[k])
    return torch.stack(scores)  # (K, A, C)


@in_float32
def nested_pair_cosines(x: Tensor, y: Tensor, dims: Sequence[int]) -> Tensor:
    """Cosine of each row of ``x`` (P, D) with the same row of ``y`` at each nested dim: (K, P)."""
    blocks = [(x[:, a:b] * y[:, a:b]).sum(dim=1) for a, b in pairwise([0, *dims])]  # K x (P,)
    return torch.stack(blocks).cumsum(dim=0) / (nested_norms(x, dims) * nested_norms(y, dims))


@in_float32
def nested_norms(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Length of each row of ``x`` (A, D) cut at each dim: (K, A)."""
    squares = [x[:, a:b].square().sum(dim=1) for a, b in pairwise([0, *dims])]  # K x (A,)
    return torch.stack(squares).cumsum(dim=0).clamp(min=1e-16).sqrt()


def mean_over_rows(part: Callable[[slice], Tensor], rows: int, columns: int) -> Tensor:
    """The mean over all rows of a matrix of scores, from means over blocks of them.

    With more than one block, a block's scores are computed again in the backward pass instead of being kept: the memory
    of a large batch grows with its size, not with the square of it. ``part`` gives the mean over a slice of the rows.
    """
    size = max(1, SCORES_AT_ONCE // columns)
    if rows <= size:
        return part(slice(0, rows))
    blocks = [slice(first, min(first + size, rows)) for first in range(0, rows, size)]
    means = [checkpoint(part, block, use_reentrant=False) for block in blocks]
    return sum(mean * (block.stop - block.start) for mean, block in zip(means, blocks, strict=True)) / rows


@in_float32
def contrastive(scores: Tensor, scale: float = 20.0, first: int = 0) -> Tensor:
    """In-batch ranking (MNRL, InfoNCE): cross-entropy of ``scale * cosine`` with candidate i the target of anchor i.

    Args:
        scores: (..., R, C) cosines of R anchors with all C candidates; those after the positives are hard negatives.
        scale: 1 / temperature.
        first: the candidate that is the target of the first of the R anchors.

    Returns:
        (...) mean over the R anchors. Source: Henderson et al. 2017 (1705.00652), as in sentence-transformers.
    """
    return -F.log_softmax(scale * scores, dim=-1).diagonal(first, dim1=-2, dim2=-1).mean(dim=-1)  # of (..., R, C)


@in_float32
def nested_contrastive(anchors: Tensor, candidates: Tensor, dims: Sequence[int], scale: float = 20.0) -> Tensor:
    """`contrastive` at several nested dims: (A, D), (C, D) and K ascending dims give (K,)."""

    def part(rows: slice) -> Tensor:
        return contrastive(nested_cosines(anchors[rows], candidates, dims), scale, rows.start)  # (K,)

    return mean_over_rows(part, len(anchors), len(candidates))


@in_float32
def cosent(scores: Tensor, gold: Tensor, scale: float = 20.0) -> Tensor:
    """CoSENT: log(1 + sum over p, q with gold_p < gold_q of exp(scale * (s_p - s_q))).

    Args:
        scores: (..., P) one score a pair.
        gold: (P,) the pairs' gold scores.
        scale: 1 / temperature.

    Returns:
        (...). Source: Su 2022, kexue.fm/archives/8847, as in sentence-transformers.
    """
    scores = scale * scores
    gaps = scores.unsqueeze(-1) - scores.unsqueeze(-2)  # (..., P, P): s_p - s_q
    gaps = gaps - MASKED * (gold[:, None] >= gold[None, :]).to(gaps.dtype)
    flat = gaps.flatten(start_dim=-2)  # (..., P*P)
    return torch.logsumexp(F.pad(flat, (1, 0)), dim=-1)


@in_float32
def angle_scores(x: Tensor, y: Tensor) -> Tensor:
    """AnglE's score of each pair: the angle difference of two vectors read as d/2 complex numbers.

    With x = (a, b) and y = (c, e) cut in halves: |<x, y> + <b, c> - <a, e>| / (|x| |y|), which equals the published
    complex division with its two rescalings. An odd d gets a zero appended.

    Args:
        x: (..., P, d).
        y: (..., P, d).

    Returns:
        (..., P), larger for closer pairs. Source: Li and Li 2023 (2309.12871), eq. 6-7; AnglE 74e5ba2 ``angle_loss``.
    """
    if x.shape[-1] % 2:
        x, y = F.pad(x, (0, 1)), F.pad(y, (0, 1))
    a, b = x.chunk(2, dim=-1)  # (..., P, d/2) each
    c, e = y.chunk(2, dim=-1)
    numerator = (x * y).sum(dim=-1) + (b * c).sum(dim=-1) - (a * e).sum(dim=-1)
    return numerator.abs() / (x.norm(dim=-1) * y.norm(dim=-1)).clamp(min=1e-12)


def angle(x: Tensor, y: Tensor, gold: Tensor, scale: float = 20.0) -> Tensor:
    """AnglE's angle term: CoSENT over `angle_scores`. Shapes as there, gold (P,), result (...)."""
    return cosent(angle_scores(x, y), gold, scale)


@in_float32
def in_batch(scores: Tensor, labels: Tensor, scale: float = 20.0) -> Tensor:
    """AnglE's in-batch term for labelled pairs: all 2P texts against each other, the diagonal removed.

    A text whose pair has label 1 has its partner as target; texts of other pairs only serve as negatives.

    Args:
        scores: (..., 2P, 2P) cosines of the P first texts then the P second ones.
        labels: (P,).
        scale: 1/temperature.

    Returns:
        (...) mean over the 2P rows. Source: AnglE 74e5ba2 ``in_batch_negative_loss``.
    """
    pairs = labels.shape[0]
    scores = scale * scores - MASKED * torch.eye(2 * pairs, dtype=scores.dtype, device=scores.device)
    log_p = F.log_softmax(scores, dim=-1)  # (..., 2P, 2P)
    of_partners = torch.cat([log_p.diagonal(side, dim1=-2, dim2=-1) for side in (pairs, -pairs)], dim=-1)  # (..., 2P)
    return -(of_partners * (labels == 1).repeat(2)).mean(dim=-1)


@in_float32
def kl_coordinates(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the softmax over coordinates of raw pooled vectors, mean over rows.

    The distribution is over the d coordinates of one vector, not over the batch, and the vectors are not normalised
    first. No factor of temperature is applied: recipes differ in theirs.

    Args:
        teacher: (B, d).
        student: (B, d).
        temperature: T of both softmaxes.

    Returns:
        () in nats. Source: 2DMSE (2402.14776v1) eq. 5; AnglE 74e5ba2.
    """
    log_p = F.log_softmax(teacher / temperature, dim=-1)  # (B, d)
    log_q = F.log_softmax(student / temperature, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


@in_float32
def kl_scores(teacher: Tensor, student: Tensor, temperature: float = 0.05, first: int = 0) -> Tensor:
    """KL(teacher || student) of in-batch score distributions: which texts of the batch each text is close to.

    Args:
        teacher: (R, B) cosines of R texts with all B of the batch.
        student: (..., R, B), of the cells to align. A text is not compared with itself.
        temperature: divides the cosines on both sides.
        first: the place in the batch of the first of the R texts.

    Returns:
        (...) in nats, mean over the R rows.
    """
    rows, columns = teacher.shape
    itself = teacher.new_zeros(rows, columns).diagonal_scatter(teacher.new_full((rows,), MASKED), first)  # (R, B)
    log_p = F.log_softmax(teacher / temperature - itself, dim=-1)  # (R, B)
    log_q = F.log_softmax(student / temperature - itself, dim=-1)  # (..., R, B)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean(dim=-1)


@in_float32
def kl_nested_scores(target: Tensor, student: Tensor, dims: Sequence[int], temperature: float = 0.05) -> Tensor:
    """`kl_scores` of a layer at several nested dims.

    Args:
        target: (B, E) vectors whose scores are the target.
        student: (B, D) vectors of a layer.
        dims: ascending, K.
        temperature: as `kl_scores`.

    Returns:
        (K,) in nats.
    """

    def part(rows: slice) -> Tensor:
        wanted = cosines(target[rows], target)  # (R, B)
        scores = nested_cosines(student[rows], student, dims)  # (K, R, B)
        return kl_scores(wanted, scores, temperature, rows.start)  # (K,)

    return mean_over_rows(part, len(student), len(student))


@in_float32
def uncorrelated(target: Tensor, student: Tensor, dims: Sequence[int], rows: int) -> Tensor:
    """How far the pairs within rows are from being ranked as the target ranks them: 1 - Pearson of their cosines.

    The scores of `kl_scores` compare the neighbours of one text; here pairs of different texts are compared with each
    other, as Spearman does. All pairs of two texts of one row count.

    Args:
        target: (C*b, E) vectors, column after column, whose cosines are the target.
        student: (C*b, D) vectors of a layer.
        dims: ascending, K.
        rows: b.

    Returns:
        (K,), 0 for pairs in step, 2 for pairs in reverse. Source: this project.
    """

    def pairs(vectors: Tensor) -> Iterator[Tensor]:  # two of (P, D), P = C(C-1)/2 * b
        return map(torch.cat, zip(*combinations(vectors.split(rows), 2), strict=True))

    wanted = standardised(pair_cosines(*pairs(target)))  # (P,)
    found = standardised(nested_pair_cosines(*pairs(student), dims))  # (K, P)
    return 1 - found @ wanted


@in_float32
def standardised(scores: Tensor) -> Tensor:
    """Scores (..., P) less their mean, of length 1: the product of two such is Pearson's correlation."""
    return F.normalize(scores - scores.mean(dim=-1, keepdim=True), dim=-1)


def turned(student: Tensor, target: Tensor) -> Tensor:
    """How far vectors are turned away from their targets: 1 - cosine, mean over rows. Both (B, d), result ()."""
    return (1 - pair_cosines(student, target)).mean()


@in_float32
def compress(states: Tensor, dim: int) -> Tensor:
    """ESE's compressed target: P(m) = m U S from the rank-k factors of A = softmax_rows(m^T m / sqrt(D)).

    The sign of a singular vector is arbitrary; here its largest entry is positive, so that the target does not flip
    from step to step.

    Args:
        states: (B, D), taken as a constant.
        dim: k.

    Returns:
        (B, k), no gradient. Source: ESE (2402.14776v2) section 3; AnglE HEAD (which uses a randomised SVD).
    """
    with torch.no_grad():
        mixing = F.softmax(states.T @ states / math.sqrt(states.shape[1]), dim=-1)  # (D, D)
        u, s = (part[..., :dim] for part in torch.linalg.svd(mixing)[:2])  # (D, k), (k,)
        signs = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()  # (1, k)
        return states @ (u * signs * s)


@in_float32
def ese_distance(student: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """ESE's alignment: MSE(student, target) + T * KL_T(target || student). Both (B, k), result ()."""
    return F.mse_loss(student, target) + temperature * kl_coordinates(target, student, temperature)
