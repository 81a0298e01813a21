import json
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import DIM, LAYERS, sentences, tiny_encoder
from conftest import run_app as run
from scipy.stats import rankdata, spearmanr

from twodmse.data.sets import STS_TASKS, TextSet
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation import published, records
from twodmse.evaluation.compare import compare_models, overall
from twodmse.evaluation.grid import sts_grid
from twodmse.evaluation.published import minus_published, published_grid, published_names
from twodmse.evaluation.records import read_grid_json, write_grid_json
from twodmse.evaluation.resampling import resample_counts, resamples_of


def scored(name, seed, n=60):
    column = sentences(2 * n, seed=seed)
    return TextSet(name, (tuple(column[:n]), tuple(column[n:])), np.random.default_rng(seed).normal(size=n))


SETS = {"one": scored("one", 5), "two": scored("two", 6, n=50)}


@pytest.fixture
def sets(monkeypatch):
    monkeypatch.setattr("twodmse.data.tasks.load_pairs", SETS.__getitem__)


@pytest.fixture
def models() -> tuple[Encoder, Encoder]:
    return tiny_encoder("bert"), tiny_encoder("mpnet")


def test_differences_equal_the_two_grids_and_their_mean(sets, models):
    table = compare_models(*models, ["one", "two"], dims=[5, DIM], layers=[1, 3], resamples=100)
    assert list(table.columns) == [
        "task", "layer", "dim", "first", "second", "difference", "low", "high", "p", "significant",
    ]  # fmt: skip
    assert table["task"].tolist() == ["one"] * 4 + ["two"] * 4 + ["mean"] * 4
    for side, model in zip(("first", "second"), models, strict=True):
        grid = sts_grid(model, ["one", "two"], [5, DIM], [1, 3], resamples=0)
        np.testing.assert_allclose(table[side][:8], grid["spearman"], atol=1e-9)
        np.testing.assert_allclose(table[side][8:], (grid["spearman"][:4].to_numpy() + grid["spearman"][4:]) / 2)
    np.testing.assert_allclose(table["difference"], table["second"] - table["first"], atol=1e-12)


def test_resamples_go_by_the_rows_wherever_a_file_lies_and_by_the_name_of_a_named_set():
    pairs = SETS["one"]
    first = resamples_of(pairs, 10)
    np.testing.assert_array_equal(first, resamples_of(TextSet("/there/two.csv", pairs.columns, pairs.gold), 10))
    assert (first != resamples_of(TextSet("one", pairs.columns, pairs.gold + 1), 10)).any()
    stsb = resamples_of(TextSet("stsb", pairs.columns, pairs.gold), 10)
    np.testing.assert_array_equal(stsb, resample_counts(len(pairs), 10, "stsb"))


def test_intervals_and_p_are_those_of_a_paired_bootstrap_pair_by_pair(sets, models):
    table = compare_models(*models, ["one", "two"], dims=[DIM], layers=[2], resamples=400).set_index("task")
    every = []
    for pairs in SETS.values():
        vectors = [[m.encode(column, 2, DIM).astype(float) for column in pairs.columns] for m in models]
        cosines = [(a * b).sum(axis=1) for a, b in vectors]
        draws = []
        for counts in resamples_of(pairs, 400).astype(int):
            index = np.repeat(np.arange(len(pairs)), counts)  # one resample, the same rows for both models
            one, two = (spearmanr(column[index], pairs.gold[index]).statistic for column in cosines)
            draws.append(100 * (two - one))
        every.append(np.array(draws))
    every.append(np.mean(every, axis=0))
    for name, draws in zip([*SETS, "mean"], every, strict=True):
        row = table.loc[name]
        np.testing.assert_allclose([row["low"], row["high"]], np.percentile(draws, [2.5, 97.5]), atol=1e-2)
        beyond = min((draws <= 0).sum(), (draws >= 0).sum())
        assert row["p"] == pytest.approx(min(1, 2 * (beyond + 1) / 401), abs=2.1 / 401)
        assert row["significant"] == (row["low"] > 0 or row["high"] < 0)


def test_a_model_does_not_differ_from_itself_and_differs_from_its_opposite(sets, models, monkeypatch):
    same = compare_models(models[0], models[0], ["one"], dims=[DIM], layers=[1], resamples=100)
    assert same[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]] * 2
    assert same["p"].tolist() == [1, 1]
    assert not same["significant"].any()
    cosine = {id(models[0]): 1.0, id(models[1]): -1.0}
    pairs = SETS["one"]
    monkeypatch.setattr("twodmse.evaluation.grid.cell_cosines", lambda sign, *_: sign * rankdata(pairs.gold)[:, None])
    for model in models:
        monkeypatch.setattr(model, "states", lambda _, layers, model=model: [cosine[id(model)]])
    apart = compare_models(*models, ["one"], dims=[DIM], layers=[1], resamples=100)
    assert apart["difference"].tolist() == pytest.approx([-200, -200])
    assert apart["p"].tolist() == pytest.approx([2 / 101] * 2)
    assert apart["significant"].all()


def test_models_of_different_size_are_compared_where_both_have_cells(sets):
    small = tiny_encoder(layers=LAYERS).submodel(layer=2, dim=16)
    table = compare_models(tiny_encoder(), small, ["one"], resamples=100)
    assert sorted(set(table["layer"])) == [1, 2]
    assert sorted(set(table["dim"])) == [8, 16]
    assert table["difference"].abs().max() < 1e-9  # the same cells of the same weights


def test_each_model_encodes_each_task_once(sets, models):
    seen = []
    for model in models:
        model.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0][0]["input_ids"])))
    compare_models(*models, ["one", "two"], resamples=100)
    assert sum(seen) == 2 * sum(len(set(p.columns[0] + p.columns[1])) for p in SETS.values())


def test_what_is_not_defined_has_no_p(models):
    first, second = models
    same = TextSet("same", (("a", "b", "c", "d", "e", "f"),) * 2, np.arange(6.0))  # every cosine is 1
    few = TextSet("few", tuple(column[:3] for column in SETS["one"].columns), np.arange(3.0))
    table = compare_models(first, second, [SETS["one"], same, few], dims=[DIM], layers=[1], resamples=100)
    rows = table.set_index("task")
    assert rows.loc["same", ["difference", "low", "high", "p"]].isna().all()
    assert rows.loc["few", "difference"] == rows.loc["few", "second"] - rows.loc["few", "first"]
    assert rows.loc[["few", "mean"], ["low", "high", "p"]].isna().all(axis=None)
    assert rows["p"].notna().tolist() == [True, False, False, False]
    assert not rows["significant"][1:].any()
    with pytest.raises(ValueError, match="encoder"):
        compare_models("bundled", second, [SETS["one"]])


def test_what_is_not_defined_is_said(tmp_path):
    for name in ("a", "b"):
        tiny_encoder("bert" if name == "a" else "mpnet").save(tmp_path / name)
    head = "sentence1,sentence2,score\n"
    (tmp_path / "same.csv").write_text(head + "".join(f"{w},{w},{i}\n" for i, w in enumerate(("a", "dog", "cat"))))
    (tmp_path / "few.csv").write_text(head + "a dog,a cat,1\na man,red park,2\n")
    both = (tmp_path / "a", tmp_path / "b")
    result = run("compare", *both, "--tasks", f"{tmp_path / 'same.csv'},{tmp_path / 'few.csv'}", "--dims", DIM)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'same.csv'} has no difference in {LAYERS} of {LAYERS} cells: no score" in result.output
    assert f"{tmp_path / 'few.csv'} has no interval: its pairs are too few to say much" in result.output
    result = run("pick", both[0], "--tasks", tmp_path / "few.csv")
    assert "few.csv has 2 pairs: too few to say much" in result.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resamples": 99}, "resamples is 99: an interval needs at least 100"),
        ({"layers": [3]}, r"layer 3 is out of range: this encoder has layers 1\.\.2"),
        ({"dims": [17]}, r"dim 17 is out of range: this encoder has dims 1\.\.16"),
        ({"tasks": []}, "no tasks"),
        ({"dims": [[8]]}, r"dims is \[\[8\]\]: give a list of integers"),
        ({"tasks": ["sts99"]}, "unknown data set 'sts99'"),
    ],
)
def test_bad_comparisons_are_refused_before_anything_is_encoded(monkeypatch, settings, message):
    first, second = tiny_encoder(), tiny_encoder().submodel(layer=2, dim=16)
    for model in (first, second):
        monkeypatch.setattr(model, "states", lambda *_, **__: pytest.fail("encoded before checking"))
    with pytest.raises(ValueError, match=message):
        compare_models(first, second, **settings)


def test_scores_that_are_all_the_same_are_refused_before_anything_is_encoded(monkeypatch):
    even = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1, 1]}
    monkeypatch.setattr(Encoder, "states", lambda *_, **__: pytest.fail("encoded before checking"))
    with pytest.raises(ValueError, match="its 2 scores are all 1"):
        compare_models(tiny_encoder(), tiny_encoder("mpnet"), ["mini-sts", even], resamples=100)


def test_published_scores_are_those_printed():
    tables = [name for name in published_names() if "/" not in name]
    assert tables == [
        "reproduce_grid_7sts", "starbucks_table_a1", "layers_only_stsb", "full_size_7sts", "minilm_mteb",
        "mmbert_2d_card",
    ]  # fmt: skip
    known = [  # read off the sources
        ("reproduce_grid_7sts", "2DMSE-v1", 2, 8, "mean", 55.9),
        ("reproduce_grid_7sts", "2DMSE-v2", 12, 768, "mean-senteval", 81.5),
        ("reproduce_grid_7sts", "BERT-S-v1", 10, 512, "mean", 79.6),
        ("starbucks_table_a1", "SMAE-SRL (Starbucks)", 2, 32, "stsb", 74.55),
        ("starbucks_table_a1", "BERT-2DMSE", 6, 128, "sickr", 75.22),
        ("layers_only_stsb", "stsb-roberta-base-distilled", 3, 768, "stsb", 84.39),
        ("full_size_7sts", "angle-llama-7b-nli-v2", 32, 4096, "sts12", 79.00),
        ("full_size_7sts", "unsup-simcse-bert-base-uncased", 12, 768, "mean-senteval", 76.25),
        ("full_size_7sts", "angle-bert-base-uncased-nli-en-v1 (angle_emb 0.1.1)", 12, 768, "sickr-test", 80.99),
        ("mmbert_2d_card", "mmbert-embed-32k-2d-matryoshka", 22, 768, "stsb", 80.5),
        ("minilm_mteb", "sentence-transformers/all-MiniLM-L6-v2", 6, 384, "sts16", 78.99),
    ]
    for table, *cell, value in known:
        grid = published_grid(table).set_index(["model", "layer", "dim", "task"])
        assert grid.loc[tuple(cell), "spearman"] == pytest.approx(value), (table, cell)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("reproduce_grid_7sts", 6 * 8 * 8),
        ("starbucks_table_a1", 6 * 5 * 8),
        ("layers_only_stsb", 7),
        ("full_size_7sts", 8 * 8 + 1),
        ("minilm_mteb", 8),
        ("mmbert_2d_card", 1),
    ],
)
def test_published_tables_are_tidy_and_whole(name, rows):
    grid = published_grid(name)
    assert list(grid.columns) == ["source", "model", "layer", "dim", "task", "spearman"]
    assert len(grid) == rows
    assert not grid.isna().any().any()
    assert set(grid["task"]) <= {*STS_TASKS, "sickr-test", *published.MEANS}
    assert grid["spearman"].between(20, 100).all()
    assert not grid.duplicated(["model", "layer", "dim", "task"]).any()
    models = [full.removeprefix(f"{name}/") for full in published_names() if full.startswith(f"{name}/")]
    assert set(models) == set(grid["model"])
    parts = [published_grid(f"{name}/{model}") for model in models]
    assert sum(map(len, parts)) == rows
    for mean, sets in published.MEANS.items():
        if set(sets) <= set(grid["task"]):  # the printed means are those of the printed sets
            wide = grid.pivot_table(index=["model", "layer", "dim"], columns="task", values="spearman").dropna()
            np.testing.assert_allclose(wide[mean], wide[list(sets)].mean(axis=1), atol=0.0101)


def test_every_published_file_is_named_with_its_source():
    folder = published.files("twodmse") / "resources" / "published"
    text = (folder / "README.md").read_text()
    stems = {path.name.removesuffix(".csv") for path in folder.iterdir() if path.name.endswith(".csv")}
    assert stems == {name for name in published_names() if "/" not in name}
    assert all(f"`{stem}.csv`" in text for stem in stems)


def grid_of(tasks, cells):
    rows = [(task, n, d, 10.0 * i + n + d / 1000) for i, task in enumerate(tasks) for n, d in cells]
    return pd.DataFrame(rows, columns=["task", "layer", "dim", "spearman"])


def test_minus_published_at_the_common_cells_alone():
    grid = grid_of(["stsb", "mini-sts"], [(2, 32), (2, 64), (4, 64), (4, 65)])
    table = minus_published(grid, "starbucks_table_a1/BERT")
    assert list(table.columns) == ["model", "task", "layer", "dim", "ours", "published", "difference"]
    assert table[["model", "task", "layer", "dim"]].to_numpy().tolist() == [
        ["BERT", "stsb", 2, 32], ["BERT", "stsb", 4, 64],
    ]  # fmt: skip
    assert table["ours"].tolist() == pytest.approx([2.032, 4.064])
    assert table["published"].tolist() == pytest.approx([59.19, 60.21])
    assert table["difference"].tolist() == pytest.approx([2.032 - 59.19, 4.064 - 60.21])
    every = minus_published(grid, "starbucks_table_a1")
    assert every.groupby("model").size().to_dict() == dict.fromkeys(published_grid("starbucks_table_a1")["model"], 2)


def test_a_mean_of_fewer_than_the_seven_sets_is_none_and_other_metrics_are_refused():
    seven = ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"]
    grid = grid_of(seven, [(12, 64), (12, 768)])
    gap = (grid["task"] == "sickr") & (grid["dim"] == 64)
    for lacking, dims in ((grid[~gap], [768]), (grid.assign(spearman=grid["spearman"].mask(gap)), [64, 768])):
        table = minus_published(lacking, "reproduce_grid_7sts/2DMSE-v1")
        assert table["dim"].tolist() == dims
        assert table.set_index("dim")["ours"].notna().to_dict() == {dim: dim == 768 for dim in dims}
    with pytest.raises(ValueError, match="the grid holds auc, and published ones Spearman"):
        minus_published(grid.assign(metric="auc"), "reproduce_grid_7sts/2DMSE-v1")
    with pytest.raises(ValueError, match="the grid has a cell of a task more than once"):
        minus_published(pd.concat([grid, grid]), "reproduce_grid_7sts/2DMSE-v1")


def test_the_published_mean_is_compared_with_the_mean_of_the_seven_sets():
    seven = [*STS_TASKS, "mini-sts"]  # values 0, 10, ..., 60 above the cell's own; mini-sts (70) must not count
    table = minus_published(grid_of(seven, [(12, 768)]), "reproduce_grid_7sts/2DMSE-v1")
    assert table[["task", "ours", "published"]].to_numpy().tolist() == [["mean", pytest.approx(42.768), 79.5]]
    with pytest.raises(ValueError, match="no task in common"):
        minus_published(grid_of(seven[1:], [(12, 768)]), "reproduce_grid_7sts")


def test_scores_of_senteval_are_compared_with_the_test_split_of_sick_alone():
    eight = [*STS_TASKS, "sickr-test"]  # sickr has 60 and the cell's own, sickr-test 70
    table = minus_published(grid_of(eight, [(12, 768)]), "full_size_7sts/sup-simcse-bert-base-uncased")
    ours = table.set_index("task")["ours"]
    assert "sickr" not in ours.index
    assert ours["sickr-test"] == pytest.approx(82.768)
    assert ours["mean-senteval"] == pytest.approx((0 + 10 + 20 + 30 + 40 + 50 + 70) / 7 + 12.768)
    for name, means in {"2DMSE-v1": {"mean"}, "2DMSE-v2": {"mean-senteval"}}.items():
        assert set(minus_published(grid_of(eight, [(12, 768)]), f"reproduce_grid_7sts/{name}")["task"]) == means
    assert "sickr-test" not in set(minus_published(grid_of(eight, [(12, 768)]), "starbucks_table_a1/BERT")["task"])
    with pytest.raises(ValueError, match=r"no task in common.*senteval"):
        minus_published(grid_of(STS_TASKS, [(12, 768)]), "reproduce_grid_7sts/2DMSE-v2")


@pytest.mark.parametrize(
    ("grid", "name", "message"),
    [
        (grid_of(["mini-sts"], [(6, 384)]), "minilm_mteb", "no task in common with minilm_mteb: it has .*mini-sts"),
        (
            grid_of(["stsb"], [(1, 8), (2, 8)]), "layers_only_stsb",
            "no cell in common with layers_only_stsb: it has layers 1, 2, 3, 4, 6, 8, 12 and dims 768, "
            "the grid has layers 1, 2 and dims 8",
        ),
        (grid_of(["stsb"], [(1, d) for d in range(1, 99)]), "minilm_mteb", r"the grid has layers 1 and dims 1\.\.98"),
        (grid_of(["stsb"], [(1, 8)]), "nothing", "unknown published table 'nothing': choose one of repro"),
        (grid_of(["stsb"], [(1, 8)]), "starbucks_table_a1/x", "unknown model 'x' .* choose one of BERT, BERT-Separate"),
    ],
)  # fmt: skip
def test_nothing_to_subtract_is_said(grid, name, message):
    with pytest.raises(ValueError, match=message):
        minus_published(grid, name)


def test_overall_is_one_row_a_cell():
    many = minus_published(grid_of(["stsb", "sickr"], [(2, 32)]), "starbucks_table_a1/BERT")
    row = overall(many)
    assert row[["layer", "dim"]].to_numpy().tolist() == [[2, 32]]
    assert row["difference"].item() == pytest.approx((2.032 - 59.19 + 12.032 - 59.96) / 2)
    one = many[many["task"] == "stsb"]
    assert overall(one)["difference"].tolist() == one["difference"].tolist()
    seven = minus_published(grid_of(STS_TASKS, [(2, 32)]), "starbucks_table_a1/BERT")
    assert overall(seven)["task"].tolist() == ["mean"]


GRID = pd.DataFrame(
    {"task": ["a", "a", "b"], "layer": [1, 2, 1], "dim": [8, 8, 8], "spearman": [1.5, 2.25, -3.0],
     "low": [1.0, np.nan, -4.0], "high": [2.0, np.nan, -2.0], "n": [10, 10, 20]}
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_grid_json_comes_back_as_it_was_written(folder):
    path = write_grid_json(folder, GRID, "me/model", seeds=[np.int64(3)])
    assert path == folder / "grid.json"
    back = read_grid_json(folder)
    pd.testing.assert_frame_equal(back.grid, GRID)
    facts = back.facts
    assert (facts["model"], facts["seeds"]) == ("me/model", [3])
    assert facts["scorer"] == "spearman of cosine, pooled, x100"
    assert facts["tasks"] == [{"name": "a", "n": 10}, {"name": "b", "n": 20}]
    assert set(facts["versions"]) == {"twodmse", "torch", "transformers"}
    assert facts["versions"]["torch"].startswith("2.")
    assert pd.Timestamp(facts["date"]).utcoffset().total_seconds() == 0
    raw = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert raw["cells"][1] == {"task": "a", "layer": 2, "dim": 8, "spearman": 2.25, "low": None, "high": None}


def test_a_grid_of_the_layer_before_the_first_alone_comes_back_undefined(folder):
    grid = GRID.assign(layer=0, spearman=np.nan).drop_duplicates(["task", "dim"], ignore_index=True)
    write_grid_json(folder, grid, "me/model")
    pd.testing.assert_frame_equal(read_grid_json(folder).grid, grid)


def test_grid_json_is_not_written_over_unasked(folder):
    write_grid_json(folder, GRID, "first")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_grid_json(folder, GRID, "second")
    assert read_grid_json(folder).facts["model"] == "first"
    write_grid_json(folder, GRID, "second", overwrite=True)
    assert read_grid_json(folder).facts["model"] == "second"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "grid.json"]


def test_a_grid_saved_beside_a_model_is_ours_and_one_put_there_is_not(tmp_path):
    encoder = tiny_encoder(layers=2)
    write_grid_json(encoder.save(tmp_path / "model"), GRID, "first")
    encoder.save(tmp_path / "model", overwrite=True)
    assert not (tmp_path / "model" / "grid.json").exists()
    (tmp_path / "model" / "grid.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds grid\.json, which is not among what twodmse wrote"):
        encoder.save(tmp_path / "model", overwrite=True)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (GRID.drop(columns="low"), "no grid: missing low"),
        (GRID.iloc[:0], "it has no rows"),
        (pd.concat([GRID, GRID]), "task a, layer 1, dim 8 more than once"),
        (GRID.assign(metric="auc"), "this grid holds auc: give one of Spearman"),
    ],
)
def test_tables_that_are_no_grid_are_not_written(folder, grid, message):
    with pytest.raises(ValueError, match=message):
        write_grid_json(folder, grid, "x")
    assert not (folder / "grid.json").exists()


def test_grids_that_cannot_be_read_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of a saved model"):
        write_grid_json(tmp_path / "nowhere", GRID, "x")
    with pytest.raises(FileNotFoundError, match=r"has no grid\.json: write one with twodmse grid"):
        read_grid_json(folder)
    path = write_grid_json(folder, GRID, "x")
    whole = path.read_text()
    path.write_text(whole.replace("x100", "x1"))
    with pytest.raises(ValueError, match="scores of another kind"):
        read_grid_json(folder)
    for damaged in (whole[:-20], "[]", whole.replace('"cells"', '"cell"')):
        path.write_text(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            read_grid_json(folder)


def test_the_commit_is_that_of_this_packages_checkout(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / "twodmse"
    package.mkdir()
    (package / "records.py").write_text("")
    monkeypatch.setattr(records, "__file__", str(package / "evaluation" / "records.py"))
    assert records.commit() is None
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert records.commit() == head
    (package / "records.py").write_text("changed")
    assert records.commit() == f"{head}-dirty"
    monkeypatch.setattr(
        records, "__file__", str(package / "inside" / "evaluation" / "records.py")
    )  # as site-packages in a checkout
    assert records.commit() is None


@pytest.fixture
def saved(tmp_path):
    """Two model folders and a file of scored pairs."""
    pairs = SETS["one"]
    table = pd.DataFrame({"sentence1": pairs.columns[0], "sentence2": pairs.columns[1], "score": pairs.gold})
    table.to_csv(tmp_path / "pairs.csv", index=False)
    models = [tiny_encoder(a).save(tmp_path / a) for a in ("bert", "mpnet")]
    return *models, tmp_path / "pairs.csv"


def test_compare_prints_and_writes_the_differences(saved, tmp_path):
    first, second, pairs = saved
    files = ["--out", tmp_path / "t.csv", "--picture", tmp_path / "p.png"]
    result = run("compare", first, second, "--tasks", pairs, "--dims", "8,32", "--resamples", 200, *files)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "t.csv")
    assert table.groupby("task").size().to_dict() == {str(pairs): 8, "mean": 8}
    last = table.query("task == 'mean' and layer == 4").sort_values("dim")
    shown = [f"{d:+.2f}{'*' if s else ''}" for d, s in zip(last["difference"], last["significant"], strict=True)]
    line = next(line for line in result.output.splitlines() if line.startswith("4 "))
    assert line.split()[1:] == shown
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    again = run("compare", first, second, "--tasks", pairs, *files)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


def test_compare_with_published_scores_the_common_cells(saved, tmp_path, monkeypatch):
    published_too = [("mine", "ours", 2, 8, str(saved[2]), 50.0), ("mine", "ours", 9, 8, str(saved[2]), 50.0)]
    table = pd.DataFrame(published_too, columns=published.PUBLISHED_COLUMNS)
    monkeypatch.setitem(published.TABLES, "mine", lambda _: table)
    out = tmp_path / "t.csv"
    result = run("compare", saved[0], "--published", "mine", "--out", out, "--picture", tmp_path / "p.pdf")
    assert result.exit_code == 0, result.output
    row = pd.read_csv(out)
    cell = sts_grid(Encoder.load(saved[0]), [str(saved[2])], [8], [2], resamples=0)["spearman"].item()
    assert row[["layer", "dim"]].to_numpy().tolist() == [[2, 8]]
    assert row["difference"].item() == pytest.approx(cell - 50)
    assert f"{cell - 50:+.2f}" in result.output
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_grid_save_puts_the_grid_beside_the_model(saved):
    model, _, pairs = saved
    (model / "train_config.json").write_text('{"seed": 7}')
    result = run("grid", model, "--tasks", f"{pairs},{pairs}", "--dims", "8", "--save")
    assert result.exit_code == 0, result.output
    back = read_grid_json(model)
    assert (back.facts["model"], back.facts["seeds"]) == (str(model), [7])
    expected = sts_grid(Encoder.load(model), [str(pairs)], [8])  # which also loads with grid.json beside it
    np.testing.assert_allclose(back.grid["spearman"], expected["spearman"], atol=1e-6)
    np.testing.assert_allclose(back.grid[["low", "high"]], expected[["low", "high"]], atol=1e-6)
    assert run("grid", model, "--tasks", pairs, "--dims", "8", "--save", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["compare", "A"], ["second model", "--published"]),
        (["compare", "A", "B", "--published", "minilm_mteb"], ["second model", "--published"]),
        (["compare", "A", "/nowhere"], ["no model '/nowhere'"]),
        (["compare", "A", "B", "--tasks", "sts99"], ["unknown data set 'sts99'"]),
        (["compare", "A", "B", "--tasks", ","], ["no tasks"]),
        (["compare", "A", "B", "--dims", "x"], ["--dims is 'x'"]),
        (["compare", "A", "B", "--dims", "33"], ["dim 33 is out of range"]),
        (["compare", "A", "B", "--resamples", "5"], ["resamples is 5"]),
        (["compare", "A", "B", "--resamples", "0"], ["resamples is 0"]),
        (["compare", "A", "--published", "minilm_mteb", "--resamples", "500"], ["--resamples", "leave it out"]),
        (["compare", "A", "B", "--tasks", "mteb:STS12", "--resamples", "500"], ["--resamples", "leave it out"]),
        (["grid", "A", "--tasks", "mteb:STS12", "--metric", "auc"], ["--metric auc is for scored pairs"]),
        (["compare", "A", "--published", "none"], ["unknown published table 'none'", "minilm_mteb"]),
        (["compare", "A", "--published", "starbucks_table_a1"], ["several models", "BERT-2DMSE"]),
        (["compare", "A", "--published", "minilm_mteb"], ["no cell in common", "dims 384", "layers 1, 2, 3, 4"]),
        (["compare", "A", "--published", "minilm_mteb", "--tasks", "mini-sts"], ["no task in common"]),
        (["grid", "bundled", "--save"], ["bundled is no folder of a saved model"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(args, words, saved, monkeypatch):
    monkeypatch.setattr(
        "twodmse.encoder.encoder.Encoder.states", lambda *_, **__: pytest.fail("encoded before checking")
    )
    result = run(*[{"A": saved[0], "B": saved[1]}.get(a, a) for a in args])
    assert result.exit_code == 1, result.output
    message = result.stderr.strip()
    assert message.startswith("twodmse: ")
    assert "\n" not in message
    assert all(word in message for word in words), message
