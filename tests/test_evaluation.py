import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import DIM, LAYERS, tiny_encoder
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score

from twodmse.data.sets import load_pairs
from twodmse.data.tasks import expand, load_tasks
from twodmse.encoder.encoder import normalise
from twodmse.evaluation.grid import cell_cosines, column_ranks, default_dims, pairs_grid, sts_grid
from twodmse.evaluation.resampling import bootstrap, resample_counts, resampled_areas, resampled_correlations


def test_a_file_is_one_task_by_whatever_way_it_is_named_and_goes_by_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.csv").write_text("sentence1,sentence2,score\na man,a dog,1\na cat,a dog,2\n")
    names = ["own.csv", "mini-sts", "./own.csv", str(tmp_path / "own.csv"), "gone.csv", "./gone.csv"]
    assert expand(names) == ["own.csv", "mini-sts", "gone.csv", "./gone.csv"]
    assert [texts.name for texts in load_tasks(["./own.csv", "own.csv", Path("own.csv")])] == ["./own.csv"]
    with pytest.raises(ValueError, match=r"two tasks have the same name, \./own\.csv"):
        load_tasks(["own.csv", load_pairs("./own.csv")])
    with pytest.raises(ValueError, match=r"two tasks have the same name, own\.csv"):
        load_tasks([load_pairs("./own.csv"), "own.csv"])
    in_memory = dataclasses.replace(load_pairs("own.csv"), name="paper")
    assert load_tasks([in_memory]) == [in_memory]  # no name of sets of ours: its owner calls it so
    with pytest.raises(ValueError, match="no tasks given"):
        load_tasks([])


def test_every_cell_is_scipys_spearman_of_the_encoded_cosines(encoder, pairs):
    grid = pairs_grid(encoder, pairs, [1, 5, DIM], [0, 1, 2, 3, 4], resamples=0)
    assert list(grid.columns) == ["task", "layer", "dim", "spearman", "low", "high", "n"]
    assert len(grid) == 15
    for row in grid.itertuples():
        if row.dim == 1:
            continue  # at one coordinate every cosine is 1 or -1, and a constant column has no correlation
        vectors = [normalise(encoder.states(column)[row.layer][:, : row.dim]) for column in pairs.columns]
        expected = 100 * spearmanr((vectors[0] * vectors[1]).sum(1).round(9), pairs.gold).statistic
        assert row.spearman == pytest.approx(expected, abs=1e-3)


def test_all_dims_at_once_equal_one_dim_at_a_time():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 20)).astype(np.float32)
    left, right = rng.integers(9, size=30), rng.integers(9, size=30)
    fast = cell_cosines(vectors, left, right, range(1, 21))
    assert fast.shape == (30, 20)
    for d in range(1, 21):
        unit = normalise(vectors[:, :d].astype(np.float64))
        np.testing.assert_allclose(fast[:, d - 1], (unit[left] * unit[right]).sum(1), atol=1e-12)


def test_columns_are_ranked_alike_in_blocks():
    scores = np.random.default_rng(2).integers(7, size=(50, 9)).astype(float)  # many ties
    np.testing.assert_array_equal(column_ranks(scores, block=4), rankdata(scores, axis=0))


def resampled_slowly(score, scores, gold, counts):
    """A score of each column in each resample, its pairs written out."""
    rows = [np.repeat(np.arange(len(gold)), row) for row in counts.astype(int)]
    return np.array([[score(gold[row], column[row]) for column in scores.T] for row in rows])


@pytest.mark.parametrize(("pairs", "atol"), [(8, 1e-9), (40, 1e-9), (499, 1e-9), (500, 0.6)])
def test_intervals_are_those_of_a_bootstrap_that_ranks_anew(pairs, atol):
    rng = np.random.default_rng(1)
    gold = rng.integers(6, size=pairs) + 0.5  # with ties
    scores = np.stack([gold + rng.normal(size=pairs), rng.integers(4, size=pairs)], axis=1)
    counts = resample_counts(pairs, 300, "task")
    low, high = bootstrap(rankdata(scores, axis=0), rankdata(gold), counts)
    slow = 100 * resampled_slowly(lambda x, y: spearmanr(x, y).statistic, scores, gold, counts)
    np.testing.assert_allclose([low, high], np.nanpercentile(slow, [2.5, 97.5], axis=0), atol=atol)


def test_areas_are_those_of_each_resample_and_never_above_1(monkeypatch):
    rng = np.random.default_rng(2)
    gold = np.repeat([0.0, 1.0], 36)
    scores = np.stack([gold, gold + rng.normal(size=72), rng.integers(3, size=72)], axis=1)  # the first is perfect
    counts = resample_counts(72, 100, "task")
    areas = resampled_areas(rankdata(scores, axis=0), rankdata(gold), counts)
    np.testing.assert_allclose(areas, resampled_slowly(roc_auc_score, scores, gold, counts))
    assert (areas[:, 0] == 1).all()
    monkeypatch.setattr("twodmse.evaluation.resampling.BLOCK", 72 * 7)  # seven resamples at a time
    np.testing.assert_array_equal(resampled_areas(rankdata(scores, axis=0), rankdata(gold), counts), areas)


def test_a_resample_of_one_class_or_one_score_has_no_number():
    ranks, gold, counts = rankdata([[1.0], [2.0], [3.0]], axis=0), rankdata([0, 1, 1]), np.array([[0, 2, 1], [1, 1, 1]])
    assert np.isnan(resampled_areas(ranks, gold, counts)).tolist() == [[True], [False]]
    assert np.isnan(resampled_correlations(ranks, gold, counts)).tolist() == [[True], [False]]
    none = np.full((3, 1), np.nan)  # a vector of zeros has no cosine
    assert np.isnan(resampled_correlations(none, gold, counts)).all()
    assert np.isnan(resampled_areas(none, gold, counts)).all()


def test_resamples_are_the_same_for_every_model_and_differ_between_tasks():
    first = resample_counts(50, 10, "stsb")
    assert (first.sum(axis=1) == 50).all()
    np.testing.assert_array_equal(first, resample_counts(50, 10, "stsb"))
    assert (first != resample_counts(50, 10, "sickr")).any()


def test_one_encoding_pass_scores_every_cell(encoder, pairs, monkeypatch):
    monkeypatch.setattr("twodmse.data.tasks.load_pairs", lambda _: pairs)
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0][0]["input_ids"])))
    grid = sts_grid(encoder, ["any"], dims=range(1, DIM + 1), resamples=10)
    assert len(grid) == LAYERS * DIM
    assert sum(seen) == len({t for c in pairs.columns for t in c})
    assert (
        grid.query("dim > 1")["low"] <= grid.query("dim > 1")["high"]
    ).all()  # of one coordinate cosines are 1 or -1


def test_bad_cells_and_tasks_are_refused_before_anything_is_encoded(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "states", lambda *_: pytest.fail("encoded before checking"))
    for bad in ({"dims": [0]}, {"dims": [DIM + 1]}, {"layers": [LAYERS + 1]}, {"dims": []}):
        with pytest.raises(ValueError, match=r"out of range|no cell"):
            sts_grid(encoder, ["mini-sts"], **bad)
    with pytest.raises(ValueError, match="unknown data set 'sts99'"):
        sts_grid(encoder, ["mini-sts", "sts99"])
    with pytest.raises(ValueError, match="no tasks"):
        sts_grid(encoder, [])


def test_default_dims_and_the_papers_tasks():
    assert default_dims(384) == [8, 16, 32, 64, 128, 256, 384]
    assert expand(["paper"]) == ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"]
    assert expand(["senteval"]) == ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr-test"]
    assert expand(["paper", "senteval", "stsb"])[6:] == ["sickr", "sickr-test"]  # each once


def test_tasks_in_memory_are_scored_like_those_of_a_file(encoder, pairs, tmp_path):
    table = pd.DataFrame({"sentence1": pairs.columns[0], "sentence2": pairs.columns[1], "score": pairs.gold})
    table.to_csv(tmp_path / "p.csv", index=False)
    named, *others = (
        sts_grid(encoder, tasks, [4, 32], resamples=0)
        for tasks in (
            [str(tmp_path / "p.csv")],
            table,
            [pairs],
            [tmp_path / "p.csv", pairs, table],
            table.to_dict("records"),
            [table.to_dict("records"), table.to_dict("list") | {"score": list(pairs.gold)}],
        )
    )
    for grid in others:
        assert grid["spearman"].tolist() == named["spearman"].tolist() * (len(grid) // len(named))
    assert others[2]["task"].unique().tolist() == [str(tmp_path / "p.csv"), "tiny-pairs", "task 3"]
    with pytest.raises(ValueError, match="two tasks have the same name, tiny-pairs"):
        sts_grid(encoder, [pairs, pairs])
    with pytest.raises(ValueError, match="task 1 has no scores"):
        sts_grid(encoder, [table[["sentence1", "sentence2"]].set_axis(["anchor", "positive"], axis=1)])


def test_only_the_layers_that_are_asked_for_are_computed(encoder, pairs, monkeypatch):
    whole = sts_grid(encoder, [pairs], [8], resamples=0).set_index("layer")["spearman"]
    read, real = [], type(encoder).states
    monkeypatch.setattr(type(encoder), "states", lambda *a, **kw: read.append(kw["layers"]) or real(*a, **kw))
    some = sts_grid(encoder, [pairs], [8], layers=[3, 1], resamples=0).set_index("layer")["spearman"]
    assert read == [[1, 3]]
    assert some.to_dict() == pytest.approx(whole[[1, 3]].to_dict())


def test_a_cell_of_one_cosine_has_no_spearman_and_an_area_of_a_half(pairs):
    encoder = tiny_encoder(pooling="cls")
    labelled = dataclasses.replace(pairs, gold=(pairs.gold > np.median(pairs.gold)).astype(float))
    assert sts_grid(encoder, [labelled], [8], layers=[0])["spearman"].isna().all()
    area = sts_grid(encoder, [labelled], [8], layers=[0], metric="auc")
    assert area[["spearman", "low", "high"]].to_numpy().tolist() == [[50, 50, 50]]


def test_no_set_is_called_as_the_mean_is(pairs):
    with pytest.raises(ValueError, match="task 1 is called 'mean', as the mean over tasks is: rename it"):
        load_tasks([dataclasses.replace(pairs, name="mean")])


def test_a_zero_vector_has_no_cosine():
    vectors = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    found = cell_cosines(vectors, [0, 1, 1], [1, 1, 2], [1, 2, 3])
    assert np.isnan(found).tolist() == [[True, True, False], [False, False, False], [True, False, False]]
    assert found[0, 2] == pytest.approx(1 / np.sqrt(2))
    assert found[2, 1] == 0
