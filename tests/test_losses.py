"""Every loss against numbers worked out by hand, against a plain loop, and by its gradient."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch.testing import assert_close

from twodmse.objectives import losses
from twodmse.objectives.objective import BaseLoss

torch.manual_seed(0)
X, Y = torch.randn(5, 12), torch.randn(7, 12)
DIMS = (1, 3, 8, 12)


def test_nested_cosines_equal_the_plain_form():
    fast = losses.nested_cosines(X, Y, DIMS)
    assert fast.shape == (4, 5, 7)
    plain = torch.stack([losses.cosines(X[:, :d], Y[:, :d]) for d in DIMS])
    assert_close(fast, plain, atol=1e-5, rtol=0)
    pairs = losses.nested_pair_cosines(X, Y[:5], DIMS)
    assert_close(pairs, plain[:, range(5), range(5)], atol=1e-5, rtol=0)


def test_nested_cosines_have_the_plain_gradient():
    weights = torch.randn(4, 5, 7)
    grads = []
    for form in (
        lambda x: losses.nested_cosines(x, Y, DIMS),
        lambda x: torch.stack([losses.cosines(x[:, :d], Y[:, :d]) for d in DIMS]),
    ):
        x = X.clone().requires_grad_()
        (form(x) * weights).sum().backward()
        grads.append(x.grad)
    assert_close(grads[0], grads[1], atol=1e-5, rtol=0)


def test_contrastive_by_hand():
    scores = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.5, 0.0]])  # 2 anchors, 2 positives, 1 hard negative
    first = math.log(math.exp(2) + 1 + math.exp(1)) - 2
    second = math.log(1 + math.exp(1) + 1) - 1
    assert losses.contrastive(scores, scale=2.0).item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert losses.contrastive(torch.stack([scores, scores]), 2.0).shape == (2,)


def test_cosent_by_hand():
    scores, gold = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    # pairs whose gold is in another order than asked: (0,1), (0,2), (2,1)
    expected = math.log(1 + math.exp(0.7) + math.exp(0.4) + math.exp(0.3))
    assert losses.cosent(scores, gold, scale=1.0).item() == pytest.approx(expected, abs=1e-6)
    assert losses.cosent(scores, torch.ones(3), scale=1.0).item() == pytest.approx(0.0, abs=1e-6)  # no order, no loss


def test_angle_scores_by_hand_and_with_odd_width():
    x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])  # (3+0 + 4*1 - 3*0) / (5*1)
    assert losses.angle_scores(x, y).item() == pytest.approx(7 / 5)
    odd = losses.angle_scores(torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([[2.0, 0.0, 1.0]]))
    # halves (1,2) (2,0) and (2,0) (1,0): <x,y>=4, <b,c>=4, <a,e>=1, |x||y|=3*sqrt(5)
    assert odd.item() == pytest.approx(7 / (3 * math.sqrt(5)), abs=1e-6)


def test_in_batch_by_hand():
    scores = torch.zeros(4, 4)  # two pairs, texts 0,1 | 2,3; labels 1 and 0
    scores[0, 2] = scores[2, 0] = 1.0
    row = math.log(math.e + 2) - 1  # itself is left out, two others at 0
    assert losses.in_batch(scores, torch.tensor([1.0, 0.0]), scale=1.0).item() == pytest.approx(2 * row / 4, abs=1e-6)
    assert losses.in_batch(scores, torch.tensor([0.0, 0.0]), scale=1.0).item() == 0.0  # no pair is alike


def test_kl_coordinates_by_hand_and_direction():
    teacher = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    student = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    expected = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75) + 0.0) / 2
    assert losses.kl_coordinates(teacher, student, 1.0).item() == pytest.approx(expected, abs=1e-6)
    other_way = (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)) / 2
    assert losses.kl_coordinates(student, teacher, 1.0).item() == pytest.approx(other_way, abs=1e-6)
    as_torch = torch.nn.functional.kl_div(
        torch.log_softmax(student / 0.3, -1), torch.softmax(teacher / 0.3, -1), reduction="batchmean"
    )
    assert_close(losses.kl_coordinates(teacher, student, 0.3), as_torch)


def test_kl_scores_leave_a_text_itself_out():
    teacher = torch.tensor([[1.0, 0.2, 0.4], [0.2, 1.0, 0.3], [0.4, 0.3, 1.0]])
    student = teacher.clone()
    student[range(3), range(3)] = -5.0  # the diagonal must not matter
    assert losses.kl_scores(teacher, student, 0.1).item() == pytest.approx(0.0, abs=1e-6)
    student[0, 1] = 0.4  # now row 0 is uniform: p = softmax(2, 4), q = (.5, .5)
    p = np.exp([2, 4]) / np.exp([2, 4]).sum()
    expected = float((p * np.log(p / 0.5)).sum()) / 3
    assert losses.kl_scores(teacher, student, 0.1).item() == pytest.approx(expected, abs=1e-5)
    assert losses.kl_scores(teacher, torch.stack([student, teacher]), 0.1).shape == (2,)


def test_uncorrelated_is_one_minus_pearson_over_all_pairs_within_rows():
    torch.manual_seed(0)
    target, student = torch.randn(12, 5), torch.randn(12, 8)  # 3 columns of 4 rows
    found = losses.uncorrelated(target, student, [3, 8], rows=4)
    pairs = [(a + i, b + i) for a, b in ((0, 4), (0, 8), (4, 8)) for i in range(4)]
    for value, d in zip(found, (3, 8), strict=True):
        wanted, scores = (
            [torch.cosine_similarity(x[i], x[j], dim=0).item() for i, j in pairs] for x in (target, student[:, :d])
        )
        assert value.item() == pytest.approx(1 - pearsonr(wanted, scores).statistic, abs=1e-5)
    assert losses.uncorrelated(target, target, [5], rows=4).item() == pytest.approx(0, abs=1e-6)


def test_compress_keeps_the_dominant_directions_and_has_no_gradient():
    states = torch.randn(9, 6, requires_grad=True)
    target = losses.compress(states, 6)
    assert target.shape == (9, 6)
    assert not target.requires_grad
    mixing = torch.softmax(states.T @ states / math.sqrt(6), dim=-1)
    u, s, _ = torch.linalg.svd(mixing)
    assert_close(target @ target.T, (states @ u * s) @ (states @ u * s).T, atol=1e-4, rtol=1e-4)
    assert_close(losses.compress(states, 2), target[:, :2], atol=1e-5, rtol=1e-5)
    assert_close(losses.compress(-states, 6), -target, atol=1e-5, rtol=1e-5)  # signs are fixed, not random


def test_ese_distance_by_hand():
    student, target = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])  # p = (1/4, 3/4), q = (1/2, 1/2)
    mse = math.log(3.0) ** 2 / 2
    kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert losses.ese_distance(student, target, 1.0).item() == pytest.approx(mse + kl, abs=1e-6)
    assert losses.ese_distance(target, target).item() == pytest.approx(0.0)


def test_losses_survive_extreme_scores_in_float32():
    scores = torch.tensor([1.0, -1.0, 0.0])
    assert torch.isfinite(losses.cosent(scores, torch.tensor([0.0, 1.0, 2.0]), scale=100.0))
    assert torch.isfinite(losses.angle(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([0.0, 1.0])))


def test_large_batches_are_worked_on_in_blocks(monkeypatch):
    torch.manual_seed(3)
    texts, wanted = torch.randn(30, 8, requires_grad=True), torch.randn(30, 5)
    calls = []

    def nested(x, y, dims):
        calls.append(len(x))
        return real(x, y, dims)

    real = losses.nested_cosines
    monkeypatch.setattr(losses, "nested_cosines", nested)

    def values_and_gradient():
        ranking = losses.nested_contrastive(texts[:10], texts[10:], [2, 8])
        values = torch.cat([ranking, losses.kl_nested_scores(wanted, texts, [2, 5, 8])])
        return values, torch.autograd.grad((values * torch.arange(1, 6)).sum(), texts)[0]

    plain = values_and_gradient()
    assert calls == [10, 30]
    calls.clear()
    monkeypatch.setattr(losses, "SCORES_AT_ONCE", 90)  # 4 rows of 20 candidates, 3 of 30 texts
    torch.testing.assert_close(values_and_gradient(), plain, atol=1e-5, rtol=1e-5)
    assert sorted(calls) == sorted(2 * [4, 4, 2] + 2 * 10 * [3])  # once forward, once more in the backward pass
    expected = losses.contrastive(losses.cosines(texts[:10, :2], texts[10:, :2]))
    assert plain[0][0].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contrastive": 0}, "contrastive, cosent, angle and hard are all 0"),
        ({"contrastive": -1.0}, "contrastive is -1.0: it must be a number of 0 or more"),
        ({"scale": -20}, "scale is -20: it must be a number above 0"),
        ({"angle": 1.0, "angle_scale": 0}, "angle_scale is 0: it must be a number above 0"),
        ({"cosent": float("nan")}, "cosent is nan: it must be a number of 0 or more"),
        ({"hard": "1"}, "hard is '1': it must be a number of 0 or more"),
    ],
)
def test_base_losses_that_train_nothing_or_backwards_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BaseLoss(**settings)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32_and_float64_stays(kind, autocast):
    torch.manual_seed(0)
    x, y, gold, dims = torch.randn(6, 12), torch.randn(6, 12), torch.arange(6.0), [4, 8, 12]
    scores, square = torch.rand(6), torch.rand(2, 6, 6)
    calls = {
        losses.cosines: (x, y),
        losses.pair_cosines: (x, y),
        losses.nested_cosines: (x, y, dims),
        losses.nested_pair_cosines: (x, y, dims),
        losses.nested_norms: (x, dims),
        losses.contrastive: (square,),
        losses.nested_contrastive: (x, y, dims),
        losses.cosent: (scores, gold),
        losses.angle_scores: (x, y),
        losses.angle: (x, y, gold),
        losses.in_batch: (square, torch.ones(3)),
        losses.kl_coordinates: (x, y),
        losses.kl_scores: (square[0], square),
        losses.kl_nested_scores: (x, y, dims),
        losses.uncorrelated: (x, y, dims, 2),
        losses.standardised: (square,),
        losses.turned: (x, y),
        losses.compress: (x, 4),
        losses.ese_distance: (x, y),
    }
    public = {name for name, one in vars(losses).items() if getattr(one, "__module__", "") == losses.__name__}
    assert {loss.__name__ for loss in calls} == public - {"mean_over_rows"}
    for loss, args in calls.items():
        halves = [value.to(kind).requires_grad_() if isinstance(value, torch.Tensor) else value for value in args]
        whole = [value.detach().float() if isinstance(value, torch.Tensor) else value for value in halves]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = loss(*halves)
        assert found.dtype == torch.float32, loss.__name__
        assert_close(found, loss(*whole), atol=0, rtol=0)
        if found.requires_grad:
            found.sum().backward()
            assert {value.grad.dtype for value in halves if getattr(value, "grad", None) is not None} == {kind}
        wide = [value.double() if isinstance(value, torch.Tensor) else value for value in whole]
        assert loss(*wide).dtype == torch.float64
