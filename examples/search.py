"""Search in two stages over a real index: FAISS or LanceDB shortlists at cell (3, 64), `Cascade` reranks at (6, 384).

Usage: python examples/search.py [--model bundled] [--data mini-nli] [--shortlist 50]   (pip install faiss-cpu lancedb)

The documents are the texts of a data set, the queries the first sentences of the bundled test pairs. Beside full search
at the deep cell it prints, for each index, seconds to fill it, its bytes, milliseconds a query, and recall: the share
of the 10 documents nearest at the deep cell that are found. An untouched model is poor at layer 3, and its recall with
it: give one that `twodmse train --preset grid` made.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence

import faiss
import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa

from twodmse import Encoder
from twodmse.data.sets import load_pairs, load_texts
from twodmse.evaluation.cascade import Cascade
from twodmse.evaluation.roles import DOCUMENT, QUERY, prompt_for

SHALLOW, DEEP, K = (3, 64), (6, 384), 10
Find = Callable[[np.ndarray, int], np.ndarray]  # (Q, d) query vectors and how many -> (Q, K) document numbers


def faiss_index(vectors: np.ndarray) -> Find:
    """An HNSW graph of FAISS over vectors (n, d) of length 1."""
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = 128
    index.add(vectors)
    return lambda queries, number: index.search(queries, number)[1]


def lancedb_index(vectors: np.ndarray) -> Find:
    """A table of the embedded database LanceDB, in a temporary folder, over vectors (n, d) of length 1."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    database = lancedb.connect(tempfile.mkdtemp(prefix="search-"))
    table = database.create_table("documents", pa.table({"document": np.arange(len(vectors)), "vector": column}))

    def find(queries: np.ndarray, number: int) -> np.ndarray:
        found = [table.search(query).distance_type("cosine").limit(number).to_arrow() for query in queries]
        return np.array([rows["document"].to_numpy() for rows in found])

    return find


INDEXES = {"faiss": faiss_index, "lancedb": lancedb_index}


def compare(
    encoder: Encoder,
    documents: Sequence[str],
    queries: Sequence[str],
    shallow: tuple[int, int] = SHALLOW,
    deep: tuple[int, int] = DEEP,
    shortlist: int = 50,
    k: int = K,
) -> pd.DataFrame:
    """Full search and cascades side by side.

    Returns:
        One row a search, columns search, index_seconds (documents encoded and put in), index_bytes (of its vectors),
        first_ms and again_ms (a query, when it is asked for the first time, and when its documents have been deepened),
        recall (of the k documents nearest at the deep cell).
    """
    rows = []
    start = time.perf_counter()
    vectors = encoder.encode(documents, *deep, prompt=prompt_for(encoder, DOCUMENT))
    before = prompt_for(encoder, QUERY)
    filled = time.perf_counter() - start
    truth, ms = timed(
        lambda: np.argsort(-(encoder.encode(queries, *deep, prompt=before) @ vectors.T), axis=1)[:, :k], len(queries)
    )
    rows.append(("full search", filled, vectors.nbytes, ms, ms, 1.0))
    for name, fill in INDEXES.items():
        start = time.perf_counter()
        cascade = Cascade(encoder, documents, shallow, deep, shortlist)
        find = fill(cascade.shallow_vectors)
        filled = time.perf_counter() - start
        found, first = timed(lambda c=cascade, f=find: c.search(queries, k, f), len(queries))
        _, again = timed(lambda c=cascade, f=find: c.search(queries, k, f), len(queries))
        best = found["document"].to_numpy().reshape(len(queries), k)
        recall = np.mean([len(set(row) & set(own)) / k for row, own in zip(best, truth, strict=True)])
        rows.append((f"cascade over {name}", filled, cascade.shallow_vectors.nbytes, first, again, recall))
    return pd.DataFrame(rows, columns=["search", "index_seconds", "index_bytes", "first_ms", "again_ms", "recall"])


def timed(call: Callable[[], object], queries: int) -> tuple[object, float]:
    """What a call gives, and the milliseconds it took a query."""
    start = time.perf_counter()
    result = call()
    return result, 1000 * (time.perf_counter() - start) / queries


def main() -> None:
    """Compare on texts of a data set and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--data", default="mini-nli")
    parser.add_argument("--shortlist", type=int, default=50)
    settings = parser.parse_args()
    queries = list(dict.fromkeys(load_pairs("mini-sts").columns[0]))
    texts = dict.fromkeys(text for column in load_texts(settings.data).columns for text in column)
    documents = [text for text in texts if text not in set(queries)]
    encoder = Encoder.load(settings.model)
    encoder.encode(documents[:64])  # the first pass is slower
    table = compare(encoder, documents, queries, shortlist=settings.shortlist)
    print(f"{len(documents)} documents, {len(queries)} queries, shortlists of {settings.shortlist}")
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
