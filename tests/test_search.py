"""Search over a real index: what the example shows, and what `Cascade` asks of an index."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from conftest import sentences, tiny_encoder

from twodmse.encoder.encoder import normalise
from twodmse.evaluation.cascade import Cascade

pytest.importorskip("faiss", reason="faiss-cpu is not installed: pip install 'twodmse[search]'")
pytest.importorskip("lancedb", reason="lancedb is not installed: pip install 'twodmse[search]'")
DOCUMENTS, QUERIES = sentences(60, seed=3), sentences(8, seed=4)
SHALLOW, DEEP = (2, 8), (4, 32)


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[1] / "examples" / "search.py"
    spec = importlib.util.spec_from_file_location("search_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def texts_encoder():
    return tiny_encoder()


def by_hand(encoder, shortlist, k):
    """The k documents of each query that reranking a shortlist gives, and those nearest at the deep cell."""

    def vectors(texts, layer, dim):
        return normalise(encoder.states(texts)[layer, :, :dim])

    shallow = vectors(QUERIES, *SHALLOW) @ vectors(DOCUMENTS, *SHALLOW).T
    deep = vectors(QUERIES, *DEEP) @ vectors(DOCUMENTS, *DEEP).T
    kept = [sorted(np.argsort(-row)[:shortlist], key=lambda i, q=q: -deep[q, i])[:k] for q, row in enumerate(shallow)]
    return kept, np.argsort(-deep, axis=1)[:, :k]


@pytest.mark.parametrize("name", ["faiss", "lancedb"])
def test_an_index_shortlists_and_the_cascade_reranks(example, texts_encoder, name):
    cascade = Cascade(texts_encoder, DOCUMENTS, SHALLOW, DEEP, shortlist=12)
    asked = []
    index = example.INDEXES[name](cascade.shallow_vectors)

    def find(vectors, number):
        asked.append((vectors.shape, number))
        return index(vectors, number)

    found = cascade.search(QUERIES, 5, find)
    assert asked == [((8, 8), 12)]
    kept, _ = by_hand(texts_encoder, 12, 5)
    assert found["document"].to_numpy().reshape(8, 5).tolist() == [list(row) for row in kept]


def test_the_table_says_what_was_kept(example, texts_encoder):
    table = example.compare(texts_encoder, DOCUMENTS, QUERIES, SHALLOW, DEEP, shortlist=12, k=5).set_index("search")
    kept, truth = by_hand(texts_encoder, 12, 5)
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(kept, truth, strict=True)])
    assert 0.1 < recall < 1, "a recall that says nothing"
    assert table["recall"].tolist() == pytest.approx([1, recall, recall])
    assert table["index_bytes"].tolist() == [60 * 32 * 4, 60 * 8 * 4, 60 * 8 * 4]
    assert (table[["index_seconds", "first_ms", "again_ms"]] > 0).all(axis=None)
    assert list(table.index) == ["full search", "cascade over faiss", "cascade over lancedb"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.zeros((8, 11), dtype=int), r"\(8, 11\), not \(8, 12\)"),
        (np.full((8, 12), -1), "document -1: it must be in 0..59"),
        (np.full((8, 12), 60), "document 60: it must be in 0..59"),
    ],
)
def test_an_index_that_answers_something_else_is_refused(texts_encoder, answer, words):
    cascade = Cascade(texts_encoder, DOCUMENTS, SHALLOW, DEEP, shortlist=12)
    with pytest.raises(ValueError, match=words):
        cascade.search(QUERIES, 5, lambda *_: answer)
