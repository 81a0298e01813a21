"""Numbers that are not defined are refused or NaN, never 0; 0/1 labels have a metric of their own."""

import numpy as np
import pandas as pd
import pytest
from conftest import sentences, tiny_encoder
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from twodmse.evaluation.compare import compare_models
from twodmse.evaluation.grid import column_ranks, rank_correlation, sts_grid
from twodmse.evaluation.records import read_grid_table
from twodmse.evaluation.resampling import area_under_curve, bootstrap, resample_counts, resampled_correlations
from twodmse.export.cards import Origin, _code, _origin_lines, _words
from twodmse.files import write_figure


def scored(gold):
    texts = sentences(2 * len(gold), seed=5)
    return {"sentence1": texts[: len(gold)], "sentence2": texts[len(gold) :], "score": list(gold)}


@pytest.mark.parametrize("gold", [[3.0] * 4, [2.0]])
def test_scores_that_are_all_one_are_refused(gold):
    for call in (
        lambda: sts_grid(tiny_encoder(), [scored(gold)]),
        lambda: compare_models(tiny_encoder(), tiny_encoder(), [scored(gold)]),
    ):
        with pytest.raises(ValueError, match="spearman is not defined"):
            call()


def test_a_cell_without_an_order_has_no_score():
    ranks = column_ranks(np.array([[0.5, 0.1], [0.5, 0.2], [0.5, 0.9]]))
    values = rank_correlation(ranks, np.array([1.0, 2.0, 3.0]))
    assert np.isnan(values[0])
    assert values[1] == pytest.approx(1)
    ranks, gold = np.repeat(ranks, 2, axis=0), np.repeat([1.0, 2.0, 3.0], 2)
    low, high = bootstrap(ranks, gold, resample_counts(6, 200, "t"))
    assert np.isnan(low[0])
    assert low[1] == pytest.approx(100)
    assert high[1] == pytest.approx(100)


@pytest.mark.parametrize(("pairs", "metric"), [(2, "spearman"), (4, "spearman"), (4, "auc"), (5, "spearman")])
def test_so_few_pairs_that_any_order_may_be_chance_have_no_interval(pairs, metric):
    rows = scored([0, 1] * 2 if metric == "auc" else range(pairs))
    table = sts_grid(tiny_encoder(), [rows], metric=metric)
    assert table["spearman"].notna().all()
    assert table[["low", "high"]].notna().to_numpy().all() == (pairs >= 5)
    if metric == "spearman":
        found = compare_models(tiny_encoder(), tiny_encoder(pooling="cls"), [rows])
        assert found["low"].notna().all() == (pairs >= 5)
        assert pairs >= 5 or not found["significant"].any()
        with pytest.raises(ValueError, match="resamples is '1000': an interval needs at least 100, as a whole number"):
            compare_models(tiny_encoder(), tiny_encoder(), [rows], resamples="1000")


def test_a_resample_of_one_pair_alone_has_no_score():
    draws = resampled_correlations(np.array([[1.0], [2.0]]), np.array([1.0, 2.0]), np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(draws[0, 0])
    assert draws[1, 0] == pytest.approx(1)


def test_area_under_the_curve_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    gold, scores = rng.integers(2, size=60), rng.normal(size=(60, 3)).round(1)  # with ties
    areas = area_under_curve(column_ranks(scores), gold)
    np.testing.assert_allclose(areas, [roc_auc_score(gold, column) for column in scores.T])
    table = sts_grid(tiny_encoder(), [scored(gold[:20])], dims=[8], metric="auc")
    assert set(table["metric"]) == {"auc"}
    assert ((table["low"] <= table["spearman"]) & (table["spearman"] <= table["high"])).all()
    with pytest.raises(ValueError, match="has 3 different scores: auc needs two"):
        sts_grid(tiny_encoder(), [scored([0, 1, 2])], metric="auc")
    with pytest.raises(ValueError, match="unknown metric 'f1'"):
        sts_grid(tiny_encoder(), [scored([0, 1])], metric="f1")


def test_more_resamples_than_memory_holds_are_refused():
    for resamples in (10**12, 100.0, True, -1):
        with pytest.raises(ValueError, match=f"resamples is {resamples}: it must be a whole number, 0 to 100000"):
            resample_counts(10, resamples, "t")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no header and no rows"),
        ("task,layer,dim,spearman\na,1,8,high\n", "row 1, spearman is 'high': it must be a number"),
        ("task,layer,dim,spearman\na,1.5,8,3\n", "row 1, layer is '1.5': it must be an integer"),
        ("task,layer,dim\na,1,8\n", "it lacks spearman"),
        ("task,layer,dim,spearman\n", "has no rows"),
        ("task,layer,dim,spearman,metric\na,1,8,3,auc\n", "holds auc: give a grid of Spearman"),
    ],
)
def test_a_table_that_is_no_grid_is_refused_by_file(tmp_path, content, message):
    (tmp_path / "g.csv").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_grid_table(tmp_path / "g.csv")
    assert "g.csv" in str(caught.value)


def test_a_table_that_is_a_grid_is_read(tmp_path):
    (tmp_path / "g.csv").write_text("task,layer,dim,spearman,low,n\na,1,8,3.5,,4\nb,2,8,,,4\n")
    expected = pd.DataFrame({"task": ["a", "b"], "layer": [1, 2], "dim": [8, 8], "spearman": [3.5, np.nan]})
    pd.testing.assert_frame_equal(read_grid_table(tmp_path / "g.csv"), expected)


def test_a_dollar_in_a_name_begins_no_formula(tmp_path):
    figure = Figure()
    figure.subplots().set_title(r"a $\frac{1$ b")
    write_figure(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 0


def test_texts_of_others_are_no_markup_in_a_card():
    hostile = "x](javascript:alert(1)) <script>`\n# title"
    lines = _origin_lines(Origin(hostile, False, hostile, (hostile,), (f"recipe `{_code(hostile)}`",)))
    body = "\n".join(lines)
    assert len(body.splitlines()) == 4
    assert "`x](javascript:alert(1)) <script>' # title`" in lines[0]
    assert _words(hostile) == r"x\]\(javascript:alert\(1\)\) \<script\>\` \# title"
    assert "<script" not in lines[1].replace(r"\<script", "")
