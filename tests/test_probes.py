"""Probes against their formulas written out the long way, and against answers worked out by hand."""

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import test_plots
import torch
from conftest import DIM, LAYERS, sentences, tiny_encoder
from conftest import run_app as run
from scipy.spatial.distance import pdist
from scipy.special import softmax
from scipy.stats import entropy, spearmanr

from twodmse import plots, probes
from twodmse.commands.probe import PICTURES, draw_probes
from twodmse.data.sets import TextSet
from twodmse.encoder.encoder import normalise
from twodmse.objectives import losses
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import Recipe
from twodmse.probes import checks, conflict, neighbours
from twodmse.training.batches import Collator, DistinctBatches

matplotlib.use("Agg")
_closed, axes = test_plots._closed, test_plots.axes
N, D, TEXTS = 4, 16, 12
LEFT, RIGHT = [0, 1, 2, 3, 4, 5, 6, 2], [6, 7, 8, 9, 10, 11, 3, 5]
GOLD = [5.0, 4.0, 0.5, 1.0, 2.0, 4.5, 3.0, 0.0]


@pytest.fixture
def states() -> np.ndarray:
    """Random states whose layers have different scales, as raw pooled vectors do."""
    rng = np.random.default_rng(3)
    return (rng.normal(size=(N + 1, TEXTS, D)) * np.arange(1, N + 2)[:, None, None]).astype(np.float32)


def at(table: pd.DataFrame, layer: int, dim: int) -> pd.Series:
    (row,) = [row for _, row in table.iterrows() if (row["layer"], row["dim"]) == (layer, dim)]
    return row


# ---------------------------------------------------------------- alignment


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_kl_is_the_alignment_term_that_2dmse_logs(states, temperature):
    table = probes.kl_to_last(states, [D], temperature)
    recipe = Recipe("2dmse", N, D, temperature=temperature)
    seen = set()
    for step in range(12):
        plan = recipe.plan(step)
        term = objective(torch.from_numpy(states), plan, BaseLoss(), 3)["alignment"].item()
        layer = plan.sampled["layer"]
        assert temperature**2 * at(table, layer, D)["kl"] == pytest.approx(term, rel=1e-4)
        seen.add(layer)
    assert seen == {1, 2, 3}


@pytest.mark.parametrize("unit", [False, True])
def test_kl_and_entropies_at_all_dims_at_once_are_scipys(states, unit):
    table = probes.kl_to_last(states, range(1, D + 1), temperature=0.5, normalise=unit)
    assert list(table.columns) == ["layer", "dim", "kl", "entropy_last", "entropy_layer"]
    assert len(table) == (N + 1) * D
    for row in table.itertuples():
        last, layer = (states[n][:, : row.dim].astype(float) for n in (N, row.layer))
        if unit:
            last, layer = normalise(last), normalise(layer)
        p, q = softmax(last / 0.5, axis=1), softmax(layer / 0.5, axis=1)
        assert row.kl == pytest.approx(entropy(p, q, axis=1).mean(), abs=1e-9)
        assert row.entropy_last == pytest.approx(entropy(p, axis=1).mean(), abs=1e-9)
        assert row.entropy_layer == pytest.approx(entropy(q, axis=1).mean(), abs=1e-9)


def test_kl_by_hand_and_for_huge_coordinates():
    # Last layer: log 3 against 0, so p = (3/4, 1/4); layer 0: q = (1/2, 1/2).
    states = np.array([[[0.0, 0.0]], [[math.log(3), 0.0]]])
    row = at(probes.kl_to_last(states, [2]), 0, 2)
    assert row["kl"] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert row["entropy_layer"] == pytest.approx(math.log(2))
    assert row["entropy_last"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    # A coordinate that dwarfs the others, first or last: KL is how much less likely the layer finds it.
    huge = np.zeros((2, 1, 4))
    huge[1, 0, 3] = 5000.0
    assert at(probes.kl_to_last(huge, [2, 4]), 0, 4)["kl"] == pytest.approx(math.log(4))
    assert at(probes.kl_to_last(huge[..., ::-1], [2, 4]), 0, 4)["kl"] == pytest.approx(math.log(4))


def test_score_kl_is_what_the_grid_recipe_logs(states):
    recipe = Recipe("grid", N, D, dims=(4, D))
    plan = recipe.plan(0)
    terms = objective(torch.from_numpy(states), plan, BaseLoss(), 3)
    table = probes.score_kl(states, [4, D], temperature=0.05)
    share = 1 / (N * 2)
    for layer in (1, 2, 3):
        both = at(table, layer, 4)["kl"] + at(table, layer, D)["kl"]
        assert share * both == pytest.approx(terms[f"align_{layer}"].item(), rel=1e-3)
    assert at(table, N, D)["kl"] == pytest.approx(0, abs=1e-9)


def test_score_kl_is_the_mean_over_whole_batches(states):
    halves = [probes.score_kl(states[:, part], [4], 0.1)["kl"] for part in (slice(0, 5), slice(5, 10))]
    whole = probes.score_kl(states, [4], 0.1, batch_size=5)  # 2 of the 12 texts are left out
    np.testing.assert_allclose(whole["kl"], (halves[0] + halves[1]) / 2)


def test_cka_is_hsic_of_centred_gram_matrices(states):
    states = states + 5  # a mean that centring must take off
    table = probes.cka(states)
    h = np.eye(TEXTS) - 1 / TEXTS

    def hsic(x, y):
        return np.trace(x @ x.T @ h @ y @ y.T @ h) / (TEXTS - 1) ** 2

    for row in table.itertuples():
        x, y = (states[n].astype(float) for n in (row.layer_a, row.layer_b))
        assert row.cka == pytest.approx(hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y)), abs=1e-6)
    assert len(table) == (N + 1) ** 2


def test_cka_knows_a_turned_scaled_layer_and_one_without_spread(states):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    states[1] = 3 * states[4] @ turn + 7
    states[0] = states[0, :1]  # the same vector for every text
    values = probes.cka(states).pivot(index="layer_a", columns="layer_b", values="cka")
    assert values.loc[1, 4] == pytest.approx(1, abs=1e-5)
    assert values.loc[2, 4] < 0.9
    assert values.loc[0].isna().all()


# ---------------------------------------------------------------- neighbours


def test_neighbours_kept_is_the_overlap_of_sorted_lists(states, monkeypatch):
    monkeypatch.setattr(checks, "ROWS", 5)  # blocks of 5, 5 and 2 rows
    table = probes.neighbours_kept(states, [2, 7, D], k=3)

    def nearest(layer, dim):
        unit = normalise(states[layer][:, :dim].astype(float))
        cosines = unit @ unit.T - 9 * np.eye(TEXTS)
        return [set(np.argsort(-row)[:3]) for row in cosines]

    for row in table.itertuples():
        both = zip(nearest(N, D), nearest(row.layer, row.dim), strict=True)
        assert row.kept == pytest.approx(sum(len(a & b) for a, b in both) / (3 * TEXTS))
    assert at(table, N, D)["kept"] == 1
    assert table["kept"].min() < 0.7


def test_nothing_can_be_lost_where_all_are_neighbours(states):
    assert probes.neighbours_kept(states, [3, D], k=TEXTS - 1)["kept"].isna().all()
    assert probes.neighbours_kept(states, [3, D], k=TEXTS - 2)["kept"].notna().all()


def test_order_flips_counts_discordant_twos(states):
    table = probes.order_flips(states, LEFT, RIGHT, [3, D])

    def cosines(layer, dim):
        unit = normalise(states[layer][:, :dim].astype(float))
        return (unit[LEFT] * unit[RIGHT]).sum(1)

    whole = cosines(N, D)
    for row in table.itertuples():
        cell = cosines(row.layer, row.dim)
        twos = [(i, j) for i in range(8) for j in range(i)]
        flipped = sum((whole[i] - whole[j]) * (cell[i] - cell[j]) < 0 for i, j in twos)
        assert row.flipped == pytest.approx(flipped / 28)
    assert at(table, N, D)["flipped"] == pytest.approx(0, abs=1e-12)


def test_ties_are_taken_as_kendalls_tau_b_takes_them(monkeypatch):
    columns = {1: [1.0, 1.0, 2.0, 2.0], 2: [1.0, 2.0, 3.0, 4.0]}
    monkeypatch.setattr(neighbours, "_rounded", lambda v, left, right, dims: np.array([columns[int(v[0, 0])]]).T)
    states = np.stack([np.full((8, 2), n) for n in (1.0, 2.0)])
    table = probes.order_flips(states, range(4), range(4, 8), [2])
    tau_b = 4 / math.sqrt(6 * 4)  # four couples in the same order, none in the other; 6 and 4 that each can tell apart
    assert at(table, 0, 2)["flipped"] == pytest.approx((1 - tau_b) / 2)
    assert at(table, 1, 2)["flipped"] == 0


def test_rounding_flips_nothing():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8))
    states = np.stack([vectors * 3, vectors])  # the same cosines, rounded otherwise
    assert at(probes.order_flips(states, range(40), list(range(40)), [8]), 0, 8).isna()["flipped"]  # every cosine is 1
    same = probes.order_flips(states, [*range(30)], [*range(10), *range(10, 30)][::-1], [8])
    assert same["flipped"].max() == pytest.approx(0, abs=1e-12)


# ---------------------------------------------------------------- geometry


def test_alignment_and_uniformity_are_wang_and_isolas(states, monkeypatch):
    monkeypatch.setattr(checks, "ROWS", 5)
    table = probes.alignment_uniformity(states, LEFT, RIGHT, GOLD, [1, 5, D])
    good = [i for i, score in enumerate(GOLD) if score >= 4]
    assert good == [0, 1, 5]
    for row in table.itertuples():
        unit = normalise(states[row.layer][:, : row.dim].astype(float))
        apart = np.linalg.norm(unit[np.array(LEFT)[good]] - unit[np.array(RIGHT)[good]], axis=1)
        assert row.alignment == pytest.approx((apart**2).mean())
        assert row.uniformity == pytest.approx(np.log(np.exp(-2 * pdist(unit) ** 2).mean()))
    with pytest.raises(ValueError, match=r"at least 6 \(the largest is 5\)"):
        probes.alignment_uniformity(states, LEFT, RIGHT, GOLD, positive=6)


def test_anisotropy_is_the_mean_over_twos_and_the_spectrum(states):
    table = probes.anisotropy(states, [2, 9, D])
    for row in table.itertuples():
        cut = states[row.layer][:, : row.dim].astype(float)
        unit = normalise(cut)
        cosines = (unit @ unit.T)[np.triu_indices(TEXTS, 1)]
        assert row.mean_cosine == pytest.approx(cosines.mean())
        eigenvalues = np.linalg.svd(np.cov(cut.T))[1]
        assert row.effective_rank == pytest.approx(math.exp(entropy(eigenvalues + 1e-300)))
        assert row.largest_share == pytest.approx((unit**2).mean(axis=0).max())


def test_texts_of_one_vector_have_no_rank():
    assert probes.anisotropy(np.full((2, 4, 3), 9.0), [3])["effective_rank"].isna().all()


def score(vectors):
    """Spearman of the pairs' cosines."""
    unit = normalise(vectors.astype(float))
    return 100 * spearmanr((unit[LEFT] * unit[RIGHT]).sum(1), GOLD).statistic


@pytest.mark.parametrize("dim", [None, 6])
def test_outliers_removes_one_coordinate_at_a_time(states, dim):
    table = probes.outliers(states, LEFT, RIGHT, GOLD, dim)
    assert table["layer"].tolist() == list(range(N + 1))
    for row in table.itertuples():
        cut = states[row.layer][:, :dim]
        without = [score(np.delete(cut, j, axis=1)) for j in range(cut.shape[1])]
        changes = np.array(without) - score(cut)
        assert abs(row.change) == pytest.approx(np.abs(changes).max())
        assert row.change == pytest.approx(changes[row.coordinate])
        assert row.spearman_without == pytest.approx(without[row.coordinate])


# ---------------------------------------------------------------- controls and conflict


def test_each_control_keeps_its_own_coordinates(states):
    table = probes.controls(states, LEFT, RIGHT, GOLD, [5], seed=2, draws=3)
    rng = np.random.default_rng(2)
    orders = [rng.permutation(D) for _ in range(3)]
    for layer in range(N + 1):
        found = table[table["layer"] == layer].set_index("control")["spearman"]
        vectors = states[layer]
        directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][:5]
        assert found["first"] == pytest.approx(score(vectors[:, :5]))
        assert found["last"] == pytest.approx(score(vectors[:, -5:]))
        assert found["pca"] == pytest.approx(score(vectors @ directions.T))
        assert found["random"] == pytest.approx(np.mean([score(vectors[:, order[:5]]) for order in orders]))


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert"])
def test_layer_weights_are_the_whole_backbone_once(architecture):
    backbone = tiny_encoder(architecture).backbone
    groups = conflict.layer_weights(backbone)
    assert list(groups) == list(range(LAYERS + 1))
    names = {id(p): name for name, p in backbone.named_parameters()}
    found = [names[id(p)] for group in groups.values() for p in group]
    assert len(found) == len(set(found))
    left_out = set(names.values()) - set(found)
    assert all("final_norm" in name for name in left_out)
    assert all("embeddings" in names[id(p)] for p in groups[0])


def test_conflict_is_the_cosine_of_gradients_taken_one_by_one(encoder, triplets):
    recipe = Recipe("2dmse", LAYERS, DIM, seed=5)
    table = probes.gradient_conflict(encoder, triplets, recipe, batch_size=8, steps=1)
    assert list(table.columns) == ["layer", "term_a", "term_b", "cosine"]
    assert len(table) == (LAYERS + 1) * 10  # 5 terms
    assert all(p.grad is None for p in encoder.backbone.parameters())

    rows = next(iter(DistinctBatches(triplets, 8, 1, 5)))
    batch = Collator(encoder, 1)([triplets[i] for i in rows])
    gradients = {}
    for term in ("last_full", "shallow_cut"):
        encoder.backbone.zero_grad()
        states = encoder.backbone(batch["chunks"])[:, batch["order"]]
        objective(states, recipe.plan(0), BaseLoss(), 3)[term].backward()
        gradients[term] = [
            torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in layer.parameters()])
            for layer in encoder.backbone.layers
        ]
    shallow = recipe.plan(0).sampled["layer"]
    for layer in range(1, LAYERS + 1):
        (found,) = table.query(f"layer == {layer} and term_a == 'last_full' and term_b == 'shallow_cut'")["cosine"]
        if layer > shallow:
            assert math.isnan(found), "a term of a shallow layer reaches no layer above it"
        else:
            x, y = (gradients[term][layer - 1] for term in ("last_full", "shallow_cut"))
            assert found == pytest.approx(torch.nn.functional.cosine_similarity(x, y, dim=0).item(), abs=1e-4)


def test_conflicts_leave_frozen_weights_aside_and_the_mode_as_it_was(encoder, triplets, monkeypatch):
    recipe = Recipe("2dmse", LAYERS, DIM)
    encoder.backbone.head = torch.nn.Linear(DIM, DIM, bias=False).requires_grad_(False)
    assert np.isfinite(probes.gradient_conflict(encoder, triplets, recipe, batch_size=8, steps=1)["cosine"]).any()
    encoder.backbone.train()
    monkeypatch.setattr(conflict, "_cosines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probes.gradient_conflict(encoder, triplets, recipe, batch_size=8, steps=1)
    assert encoder.backbone.training


def test_conflict_averages_steps_and_takes_scored_pairs(encoder, pairs):
    recipe = Recipe("2dmse", LAYERS, DIM)
    one = [probes.gradient_conflict(encoder, pairs, recipe, batch_size=8, steps=steps)["cosine"] for steps in (1, 2)]
    assert not np.allclose(one[0], one[1], equal_nan=True)
    encoder.backbone.train()
    again = probes.gradient_conflict(encoder, pairs, recipe, batch_size=8, steps=2)
    np.testing.assert_allclose(again["cosine"], one[1], atol=1e-5)  # no dropout in either mode
    assert encoder.backbone.training


def test_two_terms_that_are_one_another_agree_and_disagree(encoder):
    states = encoder.backbone([dict(encoder.tokenise(sentences(4), padding=True, return_tensors="pt"))])
    loss = losses.kl_coordinates(states[4], states[2])
    groups = conflict.layer_weights(encoder.backbone)
    rows = conflict._cosines({"a": loss, "b": 2 * loss, "c": -loss, "d": 0 * loss}, groups)
    for _, a, b, cosine in rows:
        wanted = math.nan if b == "d" else 1 if (a, b) == ("a", "b") else -1
        assert cosine == pytest.approx(wanted, abs=1e-4, nan_ok=True)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: probes.kl_to_last(s[0]), r"shape \(12, 16\)"),
        (lambda s: probes.kl_to_last(s, [0]), "dim 0 is out of range"),
        (lambda s: probes.kl_to_last(s, [D + 1]), "1..16"),
        (lambda s: probes.kl_to_last(s, []), "no dims"),
        (lambda s: probes.kl_to_last(s, temperature=0), "temperature is 0"),
        (lambda s: probes.kl_to_last(s * np.nan), "NaN"),
        (lambda s: probes.score_kl(s, batch_size=2), "batch_size is 2"),
        (lambda s: probes.cka(s[:, :2]), "3 texts"),
        (lambda s: probes.neighbours_kept(s, k=TEXTS), "1..11"),
        (lambda s: probes.neighbours_kept(s, k=2.0), "k is 2.0"),
        (lambda s: probes.neighbours_kept(s.tolist()), "states are a list: give a NumPy array"),
        (lambda s: probes.alignment_uniformity(s, [0, 1], [2, 3], [5, np.nan]), "pair 1 has no score"),
        (lambda s: probes.order_flips(s, [0, 1], [1]), "2 and 1"),
        (lambda s: probes.order_flips(s, [0, 1], [1, TEXTS]), "text 12"),
        (lambda s: probes.outliers(s, LEFT, RIGHT, GOLD[:-1]), "8 and 8 and 7"),
        (lambda s: probes.outliers(s, LEFT, RIGHT, GOLD, 1), "dim is 1"),
        (lambda s: probes.controls(s, LEFT, RIGHT, GOLD, draws=0), "draws is 0"),
    ],
)
def test_what_cannot_be_probed_is_refused(states, call, words):
    with pytest.raises(ValueError, match=words):
        call(states)


def test_conflicts_that_cannot_be_measured_are_refused(encoder, triplets):
    for recipe, words in (
        (Recipe("2dmse", LAYERS + 1, DIM), "N, D = 5, 32"),
        (Recipe("grid", LAYERS, DIM, teacher_dim=DIM), "teacher"),
        (Recipe("full", LAYERS, DIM), "one term"),
    ):
        with pytest.raises(ValueError, match=words):
            probes.gradient_conflict(encoder, triplets, recipe, batch_size=4, steps=1)


def test_a_report_refuses_before_anything_is_encoded(encoder, pairs, triplets, monkeypatch):
    monkeypatch.setattr(encoder, "states", lambda *_: pytest.fail("encoded before checking"))
    low = TextSet("low", pairs.columns, pairs.gold / 5)
    few = TextSet("few", (("a", "b"), ("c", "d")))
    for scored, train, options, words in (
        (low, triplets, {}, "lower `positive`"),
        (triplets, triplets, {}, "no scores"),
        (pairs, triplets, {"dims": [99]}, "out of range"),
        (pairs, triplets, {"recipe": "3dmse"}, "unknown recipe"),
        (pairs, triplets, {"recipe": "full"}, "one term"),
        (pairs, few, {}, "few has 2 rows"),
    ):
        with pytest.raises(ValueError, match=words):
            probes.probe_encoder(encoder, scored, train, **options)


# ---------------------------------------------------------------- pictures


def test_layer_curves_draw_the_wanted_dim_of_every_model(states):
    table = probes.kl_to_last(states, [4, D])
    ax = plots.kl_curves({"before": table, "after": table.assign(kl=table["kl"] / 2)}, axes(), dim=4)
    wanted = [at(table, layer, 4)["kl"] for layer in range(N + 1)]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), wanted)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), np.array(wanted) / 2)
    assert [line.get_label() for line in ax.get_lines()] == ["before", "after"]
    assert ax.get_xlabel().endswith("d = 4")
    shape = plots.shape_curves({"m": probes.anisotropy(states, [4, D])}, axes(), "mean_cosine")
    assert len(shape.lines[0].get_ydata()) == N + 1
    with pytest.raises(ValueError, match="column is 'kl'"):
        plots.shape_curves({"m": table}, axes(), "kl")
    with pytest.raises(ValueError, match="no rows"):
        plots.kl_curves({"m": table}, axes(), dim=5)


def test_maps_put_the_last_layer_on_top(states):
    kept = plots.neighbours_map(probes.neighbours_kept(states, [4, D], k=3), axes())
    assert [t.get_text() for t in kept.get_yticklabels()] == ["4", "3", "2", "1", "0"]
    assert kept.texts[1].get_text() == "100"
    assert kept.collections[0].get_clim() == (0, 100)
    mistakes = plots.cell_map(probes.neighbours_kept(states, [4, D], k=3), axes(), "kept", worst=50, best=0)
    assert mistakes.collections[0].get_clim() == (0, 50)
    assert mistakes.collections[0].get_cmap()(0.0) == kept.collections[0].get_cmap()(1.0)  # bright is good in both
    matrix = plots.cka_matrix(probes.cka(states), axes())
    assert matrix.texts[N].get_text() == "1.00"
    assert matrix.collections[0].get_clim() == (0, 1)


def test_conflicts_are_drawn_around_zero_and_blank_where_there_are_none():
    table = pd.DataFrame(
        [(0, "a", "b_c", -0.5), (1, "a", "b_c", math.nan)], columns=["layer", "term_a", "term_b", "cosine"]
    )
    ax = plots.conflict_map(table, axes())
    assert [t.get_text() for t in ax.texts] == ["-0.50"]
    assert ax.get_yticklabels()[0].get_text() == "a / b c"
    assert ax.collections[0].get_clim() == (-1, 1)


def test_control_curves_draw_one_layer(states):
    table = probes.controls(states, LEFT, RIGHT, GOLD, [4, 8, D])
    ax = plots.control_curves(table, axes(), layer=2)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["first", "last", "random", "PCA"]
    wanted = table.query("control == 'last' and layer == 2")["spearman"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), wanted)
    higher = table.assign(spearman=table["spearman"] + 50)
    both = plots.side_by_side({"x": table, "y": higher}, plots.control_curves, title="t")
    assert both[0].get_ylim() == both[1].get_ylim()
    assert [ax.get_title() for ax in both] == ["x", "y"]
    with pytest.raises(ValueError, match="no rows"):
        plots.control_curves(table, axes(), layer=9)


# ---------------------------------------------------------------- command


@pytest.fixture
def files(tmp_path, pairs, triplets):
    model = tiny_encoder().save(tmp_path / "model")
    other = tiny_encoder("distilbert", layers=3).save(tmp_path / "other")
    scored = pd.DataFrame({"sentence1": pairs.columns[0], "sentence2": pairs.columns[1], "score": pairs.gold})
    scored.to_csv(tmp_path / "pairs.csv", index=False)
    rows = pd.DataFrame(dict(zip(("anchor", "positive", "negative"), triplets.columns, strict=True)))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    return {"MODEL": model, "OTHER": other, "PAIRS": tmp_path / "pairs.csv", "ROWS": tmp_path / "rows.csv"}


def test_probe_writes_a_table_a_probe_and_pictures(files, pairs, tmp_path):
    out = tmp_path / "out"
    args = ["probe", files["MODEL"], "--out", out, "--texts", files["PAIRS"], "--data", files["ROWS"], "--dims", "4,32"]
    result = run(*args, "--compare", files["OTHER"])
    assert result.exit_code == 0, result.output
    wanted = "alignment_uniformity anisotropy cka controls gradient_conflict kl_to_last neighbours_kept order_flips"
    assert sorted(p.stem for p in out.glob("*.csv")) == [*wanted.split(), "outliers", "score_kl"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in out.glob("*.png"))
    assert len(list(out.glob("*.png"))) == 6
    table = pd.read_csv(out / "kl_to_last.csv")
    assert table.groupby("model", sort=False).size().to_dict() == {
        str(files["MODEL"]): 5 * 2 * 2, str(files["OTHER"]): 4 * 2 * 2,
    }  # fmt: skip
    encoder = tiny_encoder()
    expected = probes.kl_to_last(encoder.states(probes.distinct(pairs)[0]), [4, 32])
    raw = table[(table["model"] == str(files["MODEL"])) & ~table["normalised"]]
    np.testing.assert_allclose(raw["kl"], expected["kl"], rtol=1e-4)
    assert f"{at(expected, 1, 32)['kl']:.4g}" in result.output
    assert f"{files['MODEL']} on {files['PAIRS']}, full width, by layer" in result.output
    narrow = run("probe", files["MODEL"], "--out", tmp_path / "narrow", *args[4:-1], "4")
    assert f"{files['MODEL']} on {files['PAIRS']}, dim 4, by layer" in narrow.output
    again = run(*args)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["/nowhere"], "no model '/nowhere'"),
        (["MODEL", "--compare", "MODEL"], "the same as the model"),
        (["MODEL", "--compare", "/nowhere"], "no model '/nowhere'"),
        (["MODEL", "--texts", "ROWS"], "has no scores"),
        (["MODEL", "--texts", "sts99"], "unknown data set 'sts99'"),
        (["MODEL", "--texts", "PAIRS", "--dims", "33"], "dim 33 is out of range"),
        (["MODEL", "--texts", "PAIRS", "--recipe", "3dmse"], "unknown recipe '3dmse'"),
        (["MODEL", "--texts", "PAIRS", "--positive", "9"], "lower `positive`"),
        (["MODEL", "--out", "PAIRS"], "is a file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(args, words, files, tmp_path):
    out = [] if "--out" in args else ["--out", tmp_path / "out"]
    result = run("probe", *[files.get(a, a) for a in args], *out)
    assert result.exit_code == 1
    message = result.stderr.strip().splitlines()[-1]  # below the bar that reading a file may draw
    assert message.startswith("twodmse: ")
    assert words in message
    assert not (tmp_path / "out").exists()


def test_models_whose_paths_end_alike_are_both_drawn(encoder, pairs, triplets):
    tables = probes.probe_encoder(encoder, pairs, triplets, [DIM])
    end = "/a/long/path/that/ends/like/the/other/model"
    drawn = draw_probes({"first" + end: tables, "second" + end: tables})
    assert [ax.get_title() for ax in drawn["cka"]] == ["first" + end, "second" + end]
    assert len(drawn["kl_to_last"][0].lines) == 2
    assert set(drawn) == set(PICTURES)


def test_outliers_of_layers_without_any_order_have_no_number():
    states = np.random.default_rng(0).uniform(1, 2, (3, 12, 2)).astype(np.float32)  # less one, cosines are all 1
    table = probes.outliers(states, LEFT, RIGHT, GOLD)
    assert table[["coordinate", "spearman_without", "change"]].isna().all(axis=None)


def test_probes_of_zero_vectors_have_no_number(states):
    states = states.copy()
    states[:, 0, :3] = 0
    table = probes.alignment_uniformity(states, LEFT, RIGHT, GOLD, [3, D], positive=1)
    assert table.loc[table["dim"] == 3, "uniformity"].isna().all()
    assert table.loc[table["dim"] == D].notna().all(axis=None)
    table = probes.anisotropy(states, [3, D])
    assert table.loc[table["dim"] == 3, ["mean_cosine", "largest_share"]].isna().all(axis=None)
    assert table.loc[table["dim"] == D].notna().all(axis=None)
    table = probes.neighbours_kept(states, [3, D], k=2)
    assert table.loc[table["dim"] == 3, "kept"].isna().all()
    assert table.loc[table["dim"] == D, "kept"].notna().all()
