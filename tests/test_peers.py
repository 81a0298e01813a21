"""The objectives against their sources: sentence-transformers run for real, and the formulas in NumPy, float64."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_encoder
from torch import nn
from torch.testing import assert_close

from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import Recipe
from twodmse.training.batches import Collator

# ---------------------------------------------------------------- sentence-transformers, run for real


@pytest.fixture(scope="module")
def peer():
    package = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers (the extra 'peers')")
    from sentence_transformers import losses

    return SimpleNamespace(SentenceTransformer=package.SentenceTransformer, losses=losses)


class Fixed(nn.Module):
    """A model whose vectors are the features it is given: what a loss of sentence-transformers can be run on."""

    def forward(self, features):
        return {"sentence_embedding": features["vectors"]}


def same_loss_and_gradient(their_loss, base, columns, gold, d):
    """Their loss on vectors cut to d, and ours at dim d, agree in value and in the gradient of every column."""
    theirs = [column.clone().requires_grad_() for column in columns]
    value = their_loss([{"vectors": column[:, :d]} for column in theirs], gold)
    value.backward()
    ours = [column.clone().requires_grad_() for column in columns]
    (own,) = base(ours, gold, [d])
    own.backward()
    assert value.item() > 0.1
    assert_close(own, value, atol=1e-5, rtol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad.abs().max() > 1e-3
        assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-5)


def random_columns(count):
    generator = torch.Generator().manual_seed(11)
    return [torch.randn(6, 13, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("d", [2, 7, 13])
@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("scale", [20.0, 7.0])
def test_contrastive_is_their_multiple_negatives_ranking_loss(peer, columns, d, scale):
    their_loss = peer.losses.MultipleNegativesRankingLoss(Fixed(), scale=scale)
    same_loss_and_gradient(their_loss, BaseLoss(1.0, 0.0, 0.0, scale), random_columns(columns), None, d)


@pytest.mark.parametrize("d", [2, 7, 13])  # for the angle 7 and 13 get a zero appended
@pytest.mark.parametrize("gold", [[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 0.5, 0.5, 0.0, 1.0, 0.0]], ids=["all", "ties"])
@pytest.mark.parametrize(("name", "base"), [("CoSENTLoss", BaseLoss(0.0, 1.0)), ("AnglELoss", BaseLoss(0.0, 0.0, 1.0))])
def test_cosent_and_angle_are_theirs(peer, name, base, gold, d):
    same_loss_and_gradient(getattr(peer.losses, name)(Fixed()), base, random_columns(2), torch.tensor(gold), d)


def test_angle_of_triplets_is_theirs(peer):
    same_loss_and_gradient(peer.losses.AnglELoss(Fixed()), BaseLoss(0.0, 0.0, 1.0), random_columns(3), None, 8)


class Drawn:
    """Stands in for the module `random` inside sentence-transformers: hands out given draws, and notes each one."""

    def __init__(self, answers):
        self.answers, self.asked = list(answers), []

    def sample(self, population, k):
        self.asked.append((list(population), k))
        return [self.answers.pop(0)]


DIMS = (4, 8, 16, 24, 32)
STEPS = {}  # the first steps that draw each layer with its dim above, equal to and below the last layer's
for _step in range(200):
    _drawn = Recipe("st2d", 4, 32, dims=DIMS).plan(_step).sampled
    STEPS.setdefault((_drawn["layer"], np.sign(_drawn["dim"] - _drawn["last_dim"])), _step)


@pytest.fixture(scope="module")
def twins(peer, tmp_path_factory):
    """The same weights twice: an encoder of ours and a sentence-transformers model, both mean-pooled, no dropout."""
    encoder = tiny_encoder()
    folder = encoder.save(tmp_path_factory.mktemp("peers") / "model")
    modules = list(peer.SentenceTransformer(str(folder), device="cpu"))[:2]  # not the last one, which normalises
    return encoder, peer.SentenceTransformer(modules=modules).eval()


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("base", "step"),
    [("MultipleNegativesRankingLoss", step) for step in sorted(STEPS.values())]
    + [("CoSENTLoss", step) for (layer, order), step in STEPS.items() if layer in (0, 2) and order],
)
def test_the_st2d_step_is_their_matryoshka_2d_loss(peer, twins, base, step, triplets, pairs, monkeypatch):
    encoder, model = twins
    scored = base == "CoSENTLoss"
    rows = [(pairs if scored else triplets)[5 * i] for i in range(6)]
    batch = Collator(encoder, chunks=2)(rows)
    plan = Recipe("st2d", encoder.num_layers, encoder.dim, dims=DIMS).plan(step)

    encoder.backbone.zero_grad()
    states = encoder.backbone(batch["chunks"])[:, batch["order"]]
    own_loss = BaseLoss.named("auto", scored, (1, 1, 1), 20.0)
    terms = objective(states, plan, own_loss, batch["columns"], batch.get("gold"))
    ours = torch.stack(list(terms.values())).sum()
    ours.backward()

    model.zero_grad()
    loss = peer.losses.Matryoshka2dLoss(model, getattr(peer.losses, base)(model), list(DIMS))
    order = loss.loss.matryoshka_dims  # they sort the dims and draw a place among them
    last_dim, layer, dim = (plan.sampled[name] for name in ("last_dim", "layer", "dim"))
    draws = Drawn([order.index(last_dim), layer, order.index(dim)])
    for part in (peer.losses.AdaptiveLayerLoss, peer.losses.MatryoshkaLoss):
        monkeypatch.setattr(f"{part.__module__}.random", draws)
    columns = zip(*(row["texts"] for row in rows), strict=True)
    theirs = loss([model.tokenize(list(column)) for column in columns], batch.get("gold"))
    theirs.backward()

    dims, layers = list(range(5)), list(range(4))  # layer 0 is the embedding output
    assert draws.asked == [(dims, 1), (layers, 1), (dims, 1)]
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    own, peers = gradients(encoder.backbone.model), gradients(model[0].auto_model)
    assert set(own) == set(peers)
    largest = max(gradient.abs().max() for gradient in own.values())
    for name in own:
        assert_close(own[name] / largest, peers[name] / largest, atol=1e-5, rtol=0, msg=lambda m, at=name: f"{at}: {m}")


def test_the_compared_steps_draw_every_layer_and_both_orders_of_dims():
    assert set(STEPS) == {(layer, order) for layer in range(4) for order in (-1, 0, 1)}


# ---------------------------------------------------------------- the formulas, in NumPy and by plain loops


def unit(x):
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


def softmax(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def kl(teacher, student, t=1.0):
    p, q = softmax(teacher / t), softmax(student / t)
    return np.mean([sum(p[r] * np.log(p[r] / q[r])) for r in range(len(p))])


def ranking(anchors, candidates, scale):
    scores = scale * unit(anchors) @ unit(candidates).T
    return np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(scores)])


def order_loss(scores, gold):
    wrong = [s - r for s, y in zip(scores, gold, strict=True) for r, z in zip(scores, gold, strict=True) if y < z]
    return np.log(1 + np.exp(wrong).sum())


def angle_score(x, y):
    half = len(x) // 2
    z, w = x[:half] + 1j * x[half:], y[:half] + 1j * y[half:]
    quotient = (z * w.conj()).sum() / np.linalg.norm(z) / np.linalg.norm(w)
    return abs(quotient.real + quotient.imag)


def partners(first, second, gold, scale):
    texts, total = unit(np.concatenate([first, second])), 0.0
    for i in range(len(texts)):
        if gold[i % len(gold)] == 1:
            partner = (i + len(gold)) % len(texts)
            others = [j for j in range(len(texts)) if j != i]
            total += np.log(np.exp(scale * texts[others] @ texts[i]).sum()) - scale * texts[partner] @ texts[i]
    return total / len(texts)


def mixed(first, second, gold, cosent, angle, scale):
    cosines = (unit(first) * unit(second)).sum(axis=1)
    angles = np.array([angle_score(x, y) for x, y in zip(first, second, strict=True)])
    return cosent * order_loss(scale * cosines, gold) + angle * order_loss(scale * angles, gold)


def contrastive(x):
    a, p, n = np.split(x, 3)
    return ranking(a, np.concatenate([p, n]), 20.0)


def triplet_mix(x):
    a, p, n = np.split(x, 3)
    gold = [1] * len(a) + [0] * len(a)
    firsts, seconds = np.concatenate([a, a]), np.concatenate([p, n])
    return 2.0 * ranking(a, seconds, 10.0) + mixed(firsts, seconds, gold, 3.0, 0.5, 10.0)


GOLD = [1, 0, 1, 1, 0, 0]


def pair_mix(x):
    first, second = np.split(x, 2)
    return 2.0 * partners(first, second, GOLD, 10.0) + mixed(first, second, GOLD, 3.0, 0.5, 10.0)


MIX = BaseLoss(contrastive=2.0, cosent=3.0, angle=0.5, scale=10.0)
N, D, B = 4, 32, 12


# Each formula has the states h, the same states held fixed (where the objective takes a target as a constant), the base
# loss, what the step drew, and a frozen teacher's vectors.


def full(h, held, loss, drawn, teacher):
    return loss(h[N])


def mrl(h, held, loss, drawn, teacher):
    return loss(h[N][:, :8]) + loss(h[N][:, :16]) + loss(h[N])


def two_dmse(h, held, loss, drawn, teacher, t=1.0):
    s, d = drawn["layer"], drawn["dim"]
    cut = loss(h[N][:, :d]) + loss(h[s][:, :d])
    return loss(h[N]) + loss(h[s]) + t**2 * kl(h[N], h[s], t) + cut


def two_dmse_weighted(h, held, loss, drawn, teacher, t=1.0):
    s, d = drawn["layer"], drawn["dim"]
    cut = loss(h[N][:, :d]) + loss(h[s][:, :d]) / s
    return loss(h[N]) + loss(h[s]) / s + t * np.log(2 + s) * kl(h[N], h[s], t) + cut


def ese(h, held, loss, drawn, teacher, k=6):
    def compressed(m):
        u, s, _ = np.linalg.svd(softmax(m.T @ m / np.sqrt(D)))
        u = u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(D)])
        return m @ u[:, :k] @ np.diag(s[:k])

    def dist(i):
        x, y = h[i][:, :k], compressed(held[i])
        return ((x - y) ** 2).mean() + kl(y, x)

    shallow = [(loss(h[i][:, :k]) + dist(i)) / (1 + np.log(1 + i)) for i in range(N - 1)]  # 0..n-2
    return loss(h[N]) + loss(h[N][:, :k]) + dist(N) + sum(shallow) / (N - 1)


def st2d(h, held, loss, drawn, teacher, t=0.3):
    i = drawn["layer"]
    return loss(h[N][:, : drawn["last_dim"]]) + loss(h[i][:, : drawn["dim"]]) + t * kl(held[N], h[i], t)


def st2d_2024(h, held, loss, drawn, teacher, t=0.3):
    s = drawn["layer"]
    return loss(h[N][:, : drawn["last_dim"]]) + loss(h[s][:, : drawn["dim"]]) / s + t * kl(h[N], h[s], t)


def starbucks(h, held, loss, drawn, teacher):
    pairs = [(2, 32), (4, 64), (6, 128), (8, 256), (10, 512)]
    return loss(h[12]) + sum(loss(h[n][:, :d]) + 0.3 * kl(h[12][:, :d], h[n][:, :d]) for n, d in pairs)


def neighbours(target, x, t=0.05):
    scores = [unit(v) @ unit(v).T / t for v in (target, x)]
    rows = [kl(*[np.delete(s[i], i)[None] for s in scores]) for i in range(len(x))]
    return np.mean(rows)


GRID = [(n, d) for n in range(1, N + 1) for d in (8, 16, 32)]


def grid(h, held, loss, drawn, teacher, target=lambda n: N):
    base = sum(loss(h[n][:, :d]) for n, d in GRID)
    aligned = sum(neighbours(held[target(n)], h[n][:, :d]) for n, d in GRID if (n, d) != (N, D))
    return (base + aligned) / len(GRID)


def grid_narrow_teacher(h, held, loss, drawn, teacher):
    return 0.3 * loss(h[N]) + sum(neighbours(teacher, h[n][:, :d]) for n, d in GRID) / len(GRID)


def grid_teacher(h, held, loss, drawn, teacher):
    turned = np.mean([1 - (unit(h[n]) * unit(teacher)).sum(axis=1).mean() for n in range(1, N + 1)])
    return grid_narrow_teacher(h, held, loss, drawn, teacher) + turned


def cascade_teacher(h, held, loss, drawn, teacher):
    teachers = {n: held[n + 1] for n in range(1, N)} | {N: teacher}
    turned = np.mean([1 - (unit(h[n]) * unit(teachers[n])).sum(axis=1).mean() for n in range(1, N + 1)])
    return 0.3 * loss(h[N]) + sum(neighbours(teachers[n], h[n][:, :d]) for n, d in GRID) / len(GRID) + turned


def grid_teacher_alone(h, held, loss, drawn, teacher):
    return grid_teacher(h, held, loss, drawn, teacher) - 0.3 * loss(h[N])


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("name", "formula", "options", "base", "loss", "columns"),
    [
        ("full", full, {}, BaseLoss(), contrastive, 3),
        ("full", full, {}, MIX, triplet_mix, 3),
        ("full", full, {}, MIX, pair_mix, 2),
        ("mrl", mrl, {}, BaseLoss(), contrastive, 3),
        ("2dmse", two_dmse, {}, BaseLoss(), contrastive, 3),
        ("2dmse", two_dmse, {}, MIX, triplet_mix, 3),
        ("2dmse", two_dmse, {}, MIX, pair_mix, 2),
        ("2dmse", partial(two_dmse, t=0.5), {"temperature": 0.5}, BaseLoss(), contrastive, 3),
        ("2dmse-weighted", two_dmse_weighted, {}, BaseLoss(), contrastive, 3),
        ("2dmse-weighted", partial(two_dmse_weighted, t=0.5), {"temperature": 0.5}, BaseLoss(), contrastive, 3),
        ("ese", ese, {"compress_dim": 6}, BaseLoss(), contrastive, 3),
        ("st2d", st2d, {}, BaseLoss(), contrastive, 3),
        ("st2d-2024", st2d_2024, {}, BaseLoss(), contrastive, 3),
        ("starbucks", starbucks, {}, BaseLoss(), contrastive, 3),
        ("grid", grid, {}, BaseLoss(), contrastive, 3),
        ("cascade", partial(grid, target=lambda n: min(n + 1, N)), {}, BaseLoss(), contrastive, 3),
        ("cascade", cascade_teacher, {"teacher_dim": D}, BaseLoss(), contrastive, 3),
        ("grid", grid_teacher, {"teacher_dim": D}, BaseLoss(), contrastive, 3),
        ("grid", grid_teacher_alone, {"teacher_dim": D, "last_layer": False}, BaseLoss(), contrastive, 3),
        ("grid", grid_narrow_teacher, {"teacher_dim": 20}, BaseLoss(), contrastive, 3),
    ],
)
def test_a_step_is_its_formula(name, formula, options, base, loss, columns, step):
    rng = np.random.default_rng(7)
    layers, dim = (12, 768) if name == "starbucks" else (N, D)  # the pairs of Starbucks are published for 12 x 768
    h, teacher = rng.normal(size=(layers + 1, B, dim)), rng.normal(size=(B, options.get("teacher_dim") or D))
    gold = None if columns == 3 else torch.tensor(GOLD, dtype=torch.float64)
    plan = Recipe(name, layers, dim, **options).plan(step)

    states = torch.tensor(h, requires_grad=True)
    terms = objective(states, plan, base, columns, gold, torch.tensor(teacher))
    ours = torch.stack(list(terms.values())).sum()
    assert ours.item() == pytest.approx(formula(h, h, loss, plan.sampled, teacher), rel=1e-7)

    ours.backward()
    for _ in range(3):  # the slope along a random direction, from the formula alone
        way = rng.normal(size=h.shape) * 1e-6
        after, before = (formula(h + sign * way, h, loss, plan.sampled, teacher) for sign in (1, -1))
        slope = (states.grad.numpy() * way).sum()
        assert slope == pytest.approx((after - before) / 2, rel=1e-5, abs=1e-13)
