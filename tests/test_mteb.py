"""mteb's tasks at every cell, on small ones built here: the scores are those of mteb on a cell that was cut out."""

import numpy as np
import pandas as pd
import pytest
from conftest import run_app, sentences, tiny_encoder

mteb = pytest.importorskip("mteb", reason="needs mteb (the extra 'mteb')")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

from datasets import Dataset, DatasetDict  # noqa: E402
from mteb.abstasks.classification import AbsTaskClassification  # noqa: E402
from mteb.abstasks.clustering import AbsTaskClustering  # noqa: E402
from mteb.abstasks.pair_classification import AbsTaskPairClassification  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402
from tokenizers import normalizers  # noqa: E402

from twodmse.data.sets import TextSet  # noqa: E402
from twodmse.evaluation import mteb_grid  # noqa: E402
from twodmse.evaluation.grid import pairs_grid  # noqa: E402
from twodmse.evaluation.mteb_cells import fingerprint, mteb_difference  # noqa: E402

TEXTS = sentences(160, seed=5)
GOLD = np.linspace(0, 5, 40)
CELLS = [(1, 4), (2, 8), (4, 32)]


def facts(kind, name, score, **more):
    values = {
        "name": name, "type": kind, "main_score": score, "description": name, "reference": None, "category": "t2t",
        "dataset": {"path": "none/here", "revision": "1"}, "eval_splits": ["test"], "eval_langs": ["eng-Latn"],
        "date": None, "domains": [], "task_subtypes": [], "license": None, "annotations_creators": None, "dialect": [],
        "sample_creation": None, "bibtex_citation": "", "modalities": ["text"],
    }  # fmt: skip
    return TaskMetadata(**(values | more))


class Sts(AbsTaskSTS):
    metadata = facts("STS", "TinySTS", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, **_):
        columns = {"sentence1": TEXTS[:40], "sentence2": TEXTS[40:80], "score": GOLD}
        self.dataset = DatasetDict(test=Dataset.from_dict(columns))
        self.data_loaded = True


class Pairs(AbsTaskPairClassification):
    metadata = facts("PairClassification", "TinyPairs", "max_ap")

    def load_data(self, **_):
        columns = {"sentence1": TEXTS[:40], "sentence2": TEXTS[40:80], "labels": [i % 2 for i in range(40)]}
        self.dataset = DatasetDict(test=Dataset.from_dict(columns))
        self.data_loaded = True


class Classes(AbsTaskClassification):
    metadata = facts("Classification", "TinyClasses", "accuracy")
    samples_per_label, n_experiments = 8, 3

    def load_data(self, **_):
        label = ["red" in text.split() for text in TEXTS]
        parts = {"train": slice(0, 100), "test": slice(100, 160)}
        self.dataset = DatasetDict(
            {k: Dataset.from_dict({"text": TEXTS[v], "label": list(map(int, label[v]))}) for k, v in parts.items()}
        )
        self.data_loaded = True


class Clusters(AbsTaskClustering):
    metadata = facts("Clustering", "TinyClusters", "v_measure")
    max_document_to_embed, max_fraction_of_documents_to_embed = 100, None

    def load_data(self, **_):
        labels = [len(text.split()) % 3 for text in TEXTS[:100]]
        self.dataset = DatasetDict(test=Dataset.from_dict({"sentences": TEXTS[:100], "labels": labels}))
        self.data_loaded = True


class Retrieval(AbsTaskRetrieval):
    metadata = facts("Retrieval", "TinyRetrieval", "ndcg_at_10")
    ranked = None

    def load_data(self, **_):
        documents = [*TEXTS[40:119], ""]  # as corpora are: one of them is empty
        corpus = [{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(documents)]
        queries = [{"id": f"q{i}", "text": text} for i, text in enumerate(TEXTS[:20])]
        relevant = {f"q{i}": {f"d{j}": 1 for j in (2 * i, 2 * i + 1)} for i in range(20)}
        split = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries), "relevant_docs": relevant}
        self.dataset = {"default": {"test": split | {"top_ranked": self.ranked}}}
        self.data_loaded = True


class Reranking(Retrieval):
    metadata = facts("Reranking", "TinyReranking", "map_at_1000")

    @property
    def ranked(self):
        return {f"q{i}": [f"d{j}" for j in range(2 * i, 2 * i + 10)] for i in range(20)}


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture
def passes(encoder):
    """How many texts went through the encoder."""
    counted = []
    hook = encoder.backbone.model.register_forward_pre_hook(
        lambda _, args, kwargs: counted.append(len(kwargs["attention_mask"])), with_kwargs=True
    )
    yield counted
    hook.remove()


def alone(encoder, task, layer, dim, folder, prompts=None):
    """mteb's score of a cell that was cut out and saved, run as anybody would run it; and the texts it encoded."""
    model = SentenceTransformer(str(encoder.submodel(layer, dim).save(folder)), device="cpu", prompts=prompts)
    counted = []
    model.register_forward_pre_hook(lambda _, args: counted.append(len(args[0]["input_ids"])))
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return 100 * result.task_results[0].get_score(), sum(counted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Sts, Pairs, Classes, Clusters, Retrieval, Reranking])
def test_the_score_of_a_cell_is_that_of_mteb_on_the_cell_cut_out(kind, encoder, tmp_path):
    table = mteb_grid(encoder, [kind()], CELLS)
    assert list(table.columns) == ["task", "layer", "dim", "spearman", "low", "high", "n", "metric"]
    assert set(table["task"]) == {kind.metadata.name}
    assert set(table["metric"]) == {kind.metadata.main_score}
    assert table["spearman"].nunique() > 1
    for layer, dim in CELLS[1:]:
        score, _ = alone(encoder, kind(), layer, dim, tmp_path / f"{layer}-{dim}")
        found = table.query(f"layer == {layer} and dim == {dim}")["spearman"].item()
        assert found == pytest.approx(score, abs=0.01)


def test_sts_is_the_grid_of_this_package(encoder):
    found = mteb_grid(encoder, [Sts()])
    pairs = TextSet("TinySTS", (tuple(TEXTS[:40]), tuple(TEXTS[40:80])), GOLD)
    wanted = pairs_grid(encoder, pairs, [8, 16, 32], [1, 2, 3, 4], resamples=0)
    pd.testing.assert_frame_equal(found[["task", "layer", "dim"]], wanted[["task", "layer", "dim"]])
    np.testing.assert_allclose(found["spearman"], wanted["spearman"], atol=0.01)


def test_each_text_is_encoded_once_for_all_cells(encoder, passes, tmp_path):
    mteb_grid(encoder, [Sts(), Retrieval()], CELLS)
    ours = sum(passes)
    plain = sum(alone(encoder, task, 4, 32, tmp_path / task.metadata.name)[1] for task in (Sts(), Retrieval()))
    assert ours == 80 + 100
    assert ours <= 1.3 * plain


def test_the_file_of_states_holds_the_wanted_layers_and_dims_alone(encoder, monkeypatch):
    sizes = []
    read = np.memmap

    def watched(path, **options):
        sizes.append((path.stat().st_size, options["shape"]))
        return read(path, **options)

    monkeypatch.setattr(np, "memmap", watched)
    mteb_grid(encoder, [Sts()], [(2, 8), (3, 4)])
    assert sizes[-1] == (80 * 2 * 8 * 4, (80, 2, 8))


@pytest.mark.slow
def test_prompts_are_put_where_mteb_puts_them(encoder, tmp_path):
    prompts = {"query": "red house ", "document": "never ", "STS": "a big dog "}
    for task in (Retrieval, Sts):
        found = mteb_grid(encoder, [task()], [(4, 32)], prompts=prompts)["spearman"].item()
        score, _ = alone(encoder, task(), 4, 32, tmp_path / task.metadata.name, prompts)
        assert found == pytest.approx(score, abs=0.01)
        assert found != pytest.approx(mteb_grid(encoder, [task()], [(4, 32)])["spearman"].item(), abs=0.01)


def test_mtebs_own_result_files_are_written_and_read_again(encoder, passes, tmp_path):
    first = mteb_grid(encoder, [Sts()], CELLS, results=tmp_path, name="tiny")
    files = sorted(tmp_path.glob("results/twodmse__tiny-layer-*-dim-*/*/TinySTS.json"))
    assert len(files) == 3
    passes.clear()
    again = mteb_grid(encoder, [Sts()], CELLS, results=tmp_path, name="tiny")
    assert not passes
    pd.testing.assert_frame_equal(again.drop(columns="n"), first.drop(columns="n"))
    lower = tiny_encoder()
    assert fingerprint(lower, {}) == fingerprint(encoder, {})
    assert fingerprint(lower, {"query": "a "}) != fingerprint(encoder, {})
    lower.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("dog", "cat")
    assert fingerprint(lower, {}) != fingerprint(encoder, {})
    other = tiny_encoder("mpnet")
    assert not mteb_grid(other, [Sts()], CELLS, results=tmp_path, name="tiny")["spearman"].equals(first["spearman"])


class Preset(Sts):
    """Data that are put on the object: nothing can load them again."""

    metadata = facts("STS", "TinyPreset", "cosine_spearman")

    def load_data(self, **_):
        raise AssertionError("these data are there already")


def test_data_that_a_task_holds_stay_and_those_loaded_here_go(encoder):
    preset, fresh = Preset(), Sts()
    Sts.load_data(preset)
    first, again = (mteb_grid(encoder, [preset, fresh], [(2, 8)]) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert (preset.data_loaded, fresh.data_loaded) == (True, False)
    assert len(preset.dataset["test"]) == 40


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            TypeError("'int' object\nis not iterable"),
            r"\(TypeError: 'int' object is not iterable\): mend its load_data",
        ),
        (FileNotFoundError("no own.csv"), r"\(FileNotFoundError: no own\.csv\): mend its load_data"),
        (ConnectionError("no answer"), r"\(ConnectionError: no answer\): check the network"),
        (TimeoutError(), r"\(TimeoutError\): check the network"),
    ],
)
def test_why_data_could_not_be_read_is_said(encoder, error, message):
    class Broken(Sts):
        metadata = facts("STS", "Broken", "cosine_spearman")

        def load_data(self, **_):
            raise error

    with pytest.raises(FileNotFoundError, match=f"the data of mteb's Broken could not be read {message}"):
        mteb_grid(encoder, [Broken()], [(2, 8)])


def test_the_table_goes_where_a_grid_goes(encoder):
    from matplotlib import pyplot as plt

    from twodmse import plots
    from twodmse.efficiency.costs import best_cell

    table = mteb_grid(encoder, [Retrieval()])
    plt.close(plots.heatmaps({"tiny": table}, "ndcg")[0].figure)
    layers = [1, 2, 3, 4]
    costs = pd.DataFrame({"layer": layers, "one_text_ms": layers, "ratio": [n / 4 for n in layers]})
    cell = best_cell(table, costs)
    assert cell.spearman == table["spearman"].max()


def test_what_cannot_be_scored_is_refused(encoder):
    with pytest.raises(ValueError, match=r"mteb has no task 'STSBenchmrk'.*STSBenchmark"):
        mteb_grid(encoder, ["mteb:STSBenchmrk"])
    with pytest.raises(ValueError, match="no tasks given"):
        mteb_grid(encoder, [])
    with pytest.raises(ValueError, match="dim 33 is out of range"):
        mteb_grid(encoder, [Sts()], [(4, 33)])
    with pytest.raises(ValueError, match=r"mteb has no task 'STSBenchmrk'"):
        mteb_grid(encoder, "STSBenchmrk")
    with pytest.raises(ValueError, match="task None is no task of mteb"):
        mteb_grid(encoder, [None])
    with pytest.raises(ValueError, match=r"cells is \[3\]: give a list of layers and dims"):
        mteb_grid(encoder, Sts(), [3])
    with pytest.raises(ValueError, match="prompts is 'x': give a dictionary"):
        mteb_grid(encoder, [Sts()], prompts="x")


def test_a_mean_over_tasks_has_no_score_where_one_of_them_has_none():
    rows = {"task": ["A", "B"], "layer": 1, "dim": 8, "metric": "m"}
    first, second = (pd.DataFrame(rows | {"spearman": scores}) for scores in ([10.0, np.nan], [20.0, 40.0]))
    mean = mteb_difference(first, second).iloc[-1]
    assert (mean["task"], mean["second"]) == ("mean", 30)
    assert np.isnan(mean["first"])
    assert np.isnan(mean["difference"])


@pytest.fixture
def known(monkeypatch):
    """The tasks of this file by name, as mteb's own are."""
    tasks = {kind.metadata.name: kind for kind in (Sts, Retrieval)}
    monkeypatch.setattr(mteb, "get_task", lambda name: tasks[name]())


@pytest.mark.slow
def test_the_command_line_scores_compares_and_picks(known, encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder.save(tmp_path / "one")
    tiny_encoder("roberta").save(tmp_path / "two")

    def run(*args):
        result = run_app(*args, "--tasks", "mteb:TinySTS,mteb:TinyRetrieval")
        assert result.exit_code == 0, result.output
        return result.output

    shown = run("grid", "one", "--dims", "8,32", "--out", "one.csv", "--results", "files", "--picture", "one.png")
    assert "cosine_spearman x 100" in shown
    assert "ndcg_at_10 x 100" in shown
    first = pd.read_csv("one.csv")
    wanted = mteb_grid(encoder, ["mteb:TinySTS", "TinyRetrieval"], [(n, d) for n in (1, 2, 3, 4) for d in (8, 32)])
    pd.testing.assert_frame_equal(first, wanted, check_exact=False, atol=1e-3)
    assert len(list((tmp_path / "files").rglob("TinySTS.json"))) == 8
    run("compare", "one", "two", "--dims", "8,32", "--out", "both.csv", "--picture", "both.png")
    both = pd.read_csv("both.csv")
    assert both["task"].value_counts().to_dict() == {"TinySTS": 8, "TinyRetrieval": 8, "mean": 8}
    assert both["first"][:16].tolist() == pytest.approx(first["spearman"].tolist(), abs=1e-3)
    np.testing.assert_allclose(both["difference"], both["second"] - both["first"])
    assert "cosine_spearman, ndcg_at_10 x 100" in run("pick", "one")


def test_the_command_line_refuses_what_mteb_cannot_give(known, encoder, tmp_path):
    folder = str(encoder.save(tmp_path / "one"))
    for args, words in [
        (["grid", folder, "--tasks", "mteb:TinySTS", "--save"], "--save stores Spearman grids"),
        (["compare", folder, folder, "--tasks", "mteb:TinySTS,mini-sts"], "compare them apart"),
        (["grid", folder, "--tasks", "mteb:Nothing"], "mteb has no task 'Nothing'"),
    ]:
        result = run_app(*args)
        assert result.exit_code == 1
        assert words in result.output
