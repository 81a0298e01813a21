"""Each term alone: its value, and which states its gradient reaches. Whole steps: test_peers.py."""

import pytest
import torch
from torch.testing import assert_close

from twodmse.objectives import losses
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import Alignment, Cell, Plan, Recipe

N, D, B = 4, 16, 12  # 4 triplets


@pytest.fixture
def states() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(N + 1, B, D, requires_grad=True)


def columns(x):
    return x.chunk(3)


def test_a_cell_is_the_base_loss_of_its_slice(states):
    out = objective(states, Plan([Cell(2, 8, 0.5, "x")], [], {}), BaseLoss(), 3)
    a, p, n = columns(states[2][:, :8])
    assert_close(out["x"], 0.5 * losses.contrastive(losses.cosines(a, torch.cat([p, n]))))
    out["x"].backward()
    touched = states.grad.abs().sum(dim=1) > 0  # (N+1, D)
    assert touched[2, :8].all()
    assert touched.sum() == 8  # nothing but layer 2 and its first 8 coordinates


def test_terms_of_one_name_add_up(states):
    plan = Plan([Cell(1, 4, 1.0, "x"), Cell(3, 4, 2.0, "x")], [], {})
    parts = [objective(states, Plan([cell], [], {}), BaseLoss(), 3)["x"] for cell in plan.cells]
    assert_close(objective(states, plan, BaseLoss(), 3)["x"], sum(parts))


@pytest.mark.parametrize("detached", [True, False])
def test_alignment_is_kl_to_the_target_and_is_detached_when_asked(states, detached):
    plan = Plan([], [Alignment(1, D, N, 2.0, "coordinates", 0.5, detached, "kl")], {})
    value = objective(states, plan, BaseLoss(), 3)["kl"]
    assert_close(value, 2.0 * losses.kl_coordinates(states[N], states[1], 0.5))
    value.backward()
    assert states.grad[1].abs().sum() > 0
    assert (states.grad[N].abs().sum() > 0) is not detached


def test_alignment_by_scores(states):
    plan = Plan([], [Alignment(1, 4, N, 1.0, "scores", 0.1, True, "kl")], {})
    value = objective(states, plan, BaseLoss(), 3)["kl"]
    target, student = states[N], states[1][:, :4]
    assert_close(value, losses.kl_scores(losses.cosines(target, target), losses.cosines(student, student), 0.1))


def test_noised_copies_reach_the_alignments_and_not_the_base_loss(states):
    more = torch.cat([states, torch.randn(N + 1, B // 3, D)], dim=1)  # a fourth column
    teacher = torch.randn(B + B // 3, D)
    recipe = Recipe("grid", N, D, dims=(4, D), teacher_dim=D, pair_weight=2.0)
    out = objective(more, recipe.plan(0), BaseLoss(), 4, teacher=teacher, own_columns=3)
    assert_close(out["last_full"], objective(states, recipe.plan(0), BaseLoss(), 3, teacher=teacher[:B])["last_full"])
    every = 1 / (2 * N)
    kl = losses.kl_nested_scores(teacher, more[1], [4, D], 0.05).sum()
    assert_close(out["align_1"], every * kl)
    assert_close(out["pairs_1"], 2 * every * losses.uncorrelated(teacher, more[1], [4, D], B // 3).sum())


def test_the_angle_term_has_a_scale_of_its_own(states):
    pairs, gold = states[N].chunk(2), torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    expected = losses.cosent(losses.pair_cosines(*pairs), gold, 10.0) + losses.angle(*pairs, gold, 1.0)
    assert_close(BaseLoss(0.0, 1.0, 1.0, scale=10.0, angle_scale=1.0)(pairs, gold, [D])[0], expected)


def test_ranking_with_and_without_hard_negatives_as_angle_0_6_weighs_it(states):
    a, p, n = columns(states[N])
    expected = (
        2 * losses.contrastive(losses.cosines(a, p), 10.0)
        + 3 * losses.contrastive(losses.cosines(a, torch.cat([p, n])), 10.0)
    ) / 2
    assert_close(BaseLoss(2.0, scale=10.0, hard=3.0)([a, p, n], None, [D])[0], expected, atol=1e-5, rtol=1e-5)
    assert_close(BaseLoss(2.0, hard=3.0)([a, p], None, [D]), BaseLoss(2.0)([a, p], None, [D]))  # nothing is hard


@pytest.mark.parametrize("graded", [[0.0, 0.9], [5.0, 1.0]])
def test_the_in_batch_term_refuses_graded_pairs(graded):
    pairs, gold = torch.randn(4, 8).chunk(2), torch.tensor(graded)
    with pytest.raises(ValueError, match=r"a score is (0\.9|5): the in-batch term .* takes 0 and 1 alone"):
        BaseLoss()(pairs, gold, [8])
    assert torch.isfinite(BaseLoss(0.0, 1.0, 1.0)(pairs, gold, [8])).all()  # the others order scores


def test_named_base_losses():
    assert BaseLoss.named("auto", scored=False, mix=(1, 1, 1), scale=20.0) == BaseLoss(1.0, 0.0, 0.0, 20.0)
    assert BaseLoss.named("auto", scored=True, mix=(1, 1, 1), scale=20.0) == BaseLoss(0.0, 1.0, 0.0, 20.0)
    assert BaseLoss.named("angle", scored=True, mix=(1, 1, 1), scale=20.0) == BaseLoss(0.0, 0.0, 1.0, 20.0)
    assert BaseLoss.named("mix", scored=True, mix=(1, 2, 3), scale=9.0) == BaseLoss(1, 2, 3, 9.0)
    own = BaseLoss.named("mix", scored=False, mix=(1, 2, 3), scale=9.0, angle_scale=4.0, hard=0.5)
    assert own == BaseLoss(1, 2, 3, 9.0, angle_scale=4.0, hard=0.5)
    assert BaseLoss.named("angle", False, (1, 1, 1), 9.0, angle_scale=4.0).angle_scale == 4.0
    with pytest.raises(ValueError, match="unknown loss 'mse'"):
        BaseLoss.named("mse", scored=True, mix=(1, 1, 1), scale=20.0)
