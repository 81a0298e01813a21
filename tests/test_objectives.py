"""Each term alone: its value, and which states its gradient reaches."""

import math

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


def ranking(x):
    """The base loss of the vectors of a cell."""
    a, p, n = columns(x)
    return losses.contrastive(losses.cosines(a, torch.cat([p, n])))


def test_a_cell_is_the_base_loss_of_its_slice(states):
    out = objective(states, Plan([Cell(2, 8, 0.5, "x")], [], {}), BaseLoss(), 3)
    assert_close(out["x"], 0.5 * ranking(states[2][:, :8]))
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


def test_mix_of_triplets_is_angles_mix(states):
    a, p, n = columns(states[N][:, :6])
    base = BaseLoss(contrastive=2.0, cosent=3.0, angle=5.0, scale=10.0)
    x, y, gold = torch.cat([a, a]), torch.cat([p, n]), torch.tensor([1.0] * 4 + [0.0] * 4)
    expected = (
        2 * losses.contrastive(losses.cosines(a, y), 10.0)
        + 3 * losses.cosent(losses.pair_cosines(x, y), gold, 10.0)
        + 5 * losses.angle(x, y, gold, 10.0)
    )
    assert_close(base(columns(states[N]), None, [6])[0], expected, atol=1e-5, rtol=1e-5)


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


def test_mix_of_scored_pairs_uses_the_gold_and_the_in_batch_term(states):
    x, y = states[N].chunk(2)
    gold = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    base = BaseLoss(contrastive=1.0, cosent=1.0, angle=0.0)
    texts = torch.cat([x, y])
    expected = losses.in_batch(losses.cosines(texts, texts), gold) + losses.cosent(losses.pair_cosines(x, y), gold)
    assert_close(base([x, y], gold, [D])[0], expected, atol=1e-5, rtol=1e-5)


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


def test_the_whole_2dmse_step_by_hand(states):
    recipe = Recipe("2dmse", N, D, dims=(4,), seed=5)
    plan = recipe.plan(0)
    s = plan.sampled["layer"]
    expected = {
        "last_full": ranking(states[N]),
        "shallow_full": ranking(states[s]),
        "last_cut": ranking(states[N][:, :4]),
        "shallow_cut": ranking(states[s][:, :4]),
        "alignment": losses.kl_coordinates(states[N], states[s], 1.0),
    }
    out = objective(states, plan, BaseLoss(), 3)
    assert set(out) == set(expected)
    for name, value in expected.items():
        assert_close(out[name], value, atol=1e-5, rtol=1e-5)


def test_the_whole_ese_step_by_hand(states):
    plan = Recipe("ese", N, D, compress_dim=4).plan(0)

    def distance(x):
        return losses.ese_distance(x[:, :4], losses.compress(x, 4), 1.0)

    expected = ranking(states[N]) + ranking(states[N][:, :4]) + distance(states[N])
    for i in range(N - 1):
        weight = 1 / (1 + math.log(1 + i)) / (N - 1)
        expected = expected + weight * (ranking(states[i][:, :4]) + distance(states[i]))
    total = sum(objective(states, plan, BaseLoss(), 3).values())
    assert_close(total, expected, atol=1e-4, rtol=1e-5)


def test_the_whole_starbucks_step_by_hand(states):
    recipe = Recipe("starbucks", N, D)
    expected = torch.zeros(())
    for layer, d in recipe.cells(0):
        expected = expected + ranking(states[layer][:, :d])
        if layer < N:
            expected = expected + 0.3 * losses.kl_coordinates(states[N][:, :d], states[layer][:, :d], 1.0)
    assert_close(sum(objective(states, recipe.plan(0), BaseLoss(), 3).values()), expected, atol=1e-4, rtol=1e-5)
