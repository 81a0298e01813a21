"""Cascade search: shortlist at a cheap cell, then let the forward pass go on from there and rerank at a costly one.

Source: adaptive retrieval of Matryoshka representations (Kusupati et al., 2205.13147, section 4.3), there over dims
alone. Here the cells differ in depth too: a query runs n1 layers to be shortlisted and goes on from layer n1's token
vectors to layer n2, never from the start again; so do the documents of its shortlist.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from twodmse.checked import is_whole
from twodmse.encoder.encoder import Encoder, normalise
from twodmse.encoder.loading import check_encoder
from twodmse.encoder.reading import PROGRESS_FROM, as_texts, check_count, directions, evaluating
from twodmse.evaluation.roles import DOCUMENT, QUERY, prompt_for

CACHE_BYTES = 2**30  # of token vectors kept for documents that may go on
Find = Callable[[np.ndarray, int], np.ndarray]  # (Q, d1) vectors and K -> (Q, K) document numbers, best first
QUERY_BLOCK = 256  # queries scored against the whole index at once


class Cascade:
    """An index of texts at a cheap cell whose best candidates are reranked at a deeper one.

    A document goes on at most once: its vector at the deep cell (4 d2 bytes) is kept for later queries, so that the
    index deepens where it is asked. Until then its token vectors at layer n1 are kept, 4 T D bytes for T tokens (some
    40 kB for a sentence at D = 384, where the shallow vector takes 4 d1). That is worth its memory only while there is
    some: up to ``cache_bytes`` in all. Documents beyond that start again from their text when they are shortlisted,
    which costs n1 layers more and gives the same vectors. Texts are read after the model's prompts: see `prompt_for`.

    Args:
        encoder: the encoder.
        texts: the n documents.
        shallow: the cell (n1, d1) that shortlists.
        deep: the cell (n2, d2) that reranks; None is (N, D).
        shortlist: K, documents reranked for a query.
        cache_bytes: memory for token vectors.
        batch_size: texts a forward pass.

    Raises:
        ValueError: for a cell out of range, a deep cell of fewer layers than the shallow one, a model whose pass cannot
            go on from layer n1, such as T5, a shortlist below 1, or bad texts.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        shallow: tuple[int, int],
        deep: tuple[int, int] | None = None,
        shortlist: int = 100,
        cache_bytes: int = CACHE_BYTES,
        batch_size: int = 64,
    ) -> None:
        self.shallow, self.deep = check_cells(encoder, shallow, deep)
        check_count("shortlist", shortlist)
        check_count("batch_size", batch_size)
        if not is_whole(cache_bytes, 0):
            raise ValueError(f"cache_bytes is {cache_bytes!r}: give a whole number from 0 up")
        texts = as_texts(texts)
        self.encoder, self.shortlist, self.batch_size = encoder, min(shortlist, len(texts)), batch_size
        self.ids = encoder.tokenise(texts, prompt_for(encoder, DOCUMENT))["input_ids"]
        self.tokens: list[np.ndarray | None] = [None] * len(texts)  # (T, D) each, at layer n1
        self.shallow_vectors = np.empty((len(texts), self.shallow[1]), dtype=np.float32)
        self.deep_vectors = np.empty((len(texts), self.deep[1]), dtype=np.float32)
        self.deepened = np.zeros(len(texts), dtype=bool)
        self.layers_run = 0  # layers computed so far, a text and a layer each: index and searches
        room = cache_bytes
        for rows, tokens, pooled in self._run(self.ids, None, 0, self.shallow[0]):
            self.shallow_vectors[rows] = directions(pooled[:, : self.shallow[1]], self.shallow, rows)
            for row, own in zip(rows, tokens, strict=True):
                if own.nbytes <= room:
                    room -= own.nbytes
                    self.tokens[row] = own

    def search(self, queries: Sequence[str], k: int = 10, find: Find | None = None) -> pd.DataFrame:
        """The ``k`` nearest documents of each query among its shortlist.

        Args:
            queries: Q queries.
            k: documents wanted a query.
            find: an index over ``shallow_vectors`` that shortlists, given (Q, d1) query vectors of length 1 and the
                number K, by giving document numbers (Q, K); None compares with every document.

        Returns:
            One row a query and rank, columns query (its number), rank (from 1), document (its number), score (cosine
            at the deep cell).

        Raises:
            ValueError: for bad queries, ``k`` outside 1..shortlist, or numbers of an index that fit no shortlist.
        """
        queries = as_texts(queries)
        check_count("k", k)
        if k > self.shortlist:
            raise ValueError(f"k is {k}: it must be in 1..{self.shortlist}, the documents of a shortlist")
        shallow, deep = self._queries(queries)  # (Q, d1), (Q, d2)
        candidates = self._shortlist(shallow, find)  # (Q, K)
        self._deepen(np.unique(candidates))
        rows = []
        for query, documents in enumerate(candidates):
            scores = self.deep_vectors[documents] @ deep[query]  # (K,)
            best = np.argsort(-scores, kind="stable")[:k]
            rows += [(query, rank, documents[i], float(scores[i])) for rank, i in enumerate(best, start=1)]
        return pd.DataFrame(rows, columns=["query", "rank", "document", "score"])

    def _shortlist(self, shallow: np.ndarray, find: Find | None) -> np.ndarray:
        """Document numbers (Q, K) of the shortlists of shallow query vectors (Q, d1); raises as `search`."""
        if find is None:
            return nearest(shallow, self.shallow_vectors, self.shortlist)
        found, wanted = np.asarray(find(shallow, self.shortlist)), (len(shallow), self.shortlist)
        if found.shape != wanted:
            raise ValueError(f"the index gives document numbers of shape {found.shape}, not {wanted}")
        if found.dtype.kind not in "iu":
            raise ValueError(f"the index gives document numbers of type {found.dtype}: they must be integers")
        strange = found[(found < 0) | (found >= len(self.ids))]
        if strange.size:
            raise ValueError(f"the index gives document {strange[0]}: it must be in 0..{len(self.ids) - 1}")
        ordered = np.sort(found, axis=1)  # (Q, K)
        if (twice := ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]]).size:
            raise ValueError(f"the index gives document {twice[0]} twice for one query: a shortlist has each once")
        return found

    def _queries(self, queries: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (Q, d1) and (Q, d2) of the queries from one forward pass that pauses at layer n1."""
        (n1, d1), (n2, d2) = self.shallow, self.deep
        ids = self.encoder.tokenise(queries, prompt_for(self.encoder, QUERY))["input_ids"]
        shallow, deep = np.empty((len(ids), d1), np.float32), np.empty((len(ids), d2), np.float32)
        for rows, tokens, pooled in self._run(ids, None, 0, n1):
            shallow[rows] = directions(pooled[:, :d1], self.shallow, rows, "queries")
            for again, _, further in self._run([ids[i] for i in rows], tokens, n1, n2):
                those = np.asarray(rows)[again]
                deep[those] = directions(further[:, :d2], self.deep, those, "queries")
        return shallow, deep

    def _deepen(self, documents: np.ndarray) -> None:
        """Compute the deep vectors of those of ``documents`` that have none yet."""
        (n1, _), (n2, d2) = self.shallow, self.deep
        todo = [i for i in documents if not self.deepened[i]]
        paused = [i for i in todo if self.tokens[i] is not None]
        for start, group in ((n1, paused), (0, [i for i in todo if self.tokens[i] is None])):
            tokens = [self.tokens[i] for i in group] if start else None
            for rows, _, pooled in self._run([self.ids[i] for i in group], tokens, start, n2):
                those = np.asarray(group)[rows]
                self.deep_vectors[those] = directions(pooled[:, :d2], self.deep, those)
        for i in todo:
            self.deepened[i], self.tokens[i] = True, None

    def _run(
        self, ids: list[list[int]], tokens: list[np.ndarray] | None, start: int, last: int
    ) -> Iterator[tuple[list[int], list[np.ndarray], np.ndarray]]:
        """Run layers ``start`` + 1 to ``last`` batch by batch, longest texts first; count them in ``layers_run``.

        Args:
            ids: token ids of n texts.
            tokens: (T, D) of each text at layer ``start``; None where start is 0.
            start: the layer that ``tokens`` come from.
            last: the last layer to run.

        Yields:
            Row numbers of b texts, their token vectors (T, D) at layer ``last``, their pooled vectors (b, D).
        """
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        with tqdm(total=len(ids), desc="encode", unit="text", disable=len(ids) < PROGRESS_FROM) as bar:
            for at in range(0, len(order), self.batch_size):
                rows = order[at : at + self.batch_size]
                given = None if tokens is None else [tokens[i] for i in rows]
                yield rows, *run_layers(self.encoder, [ids[i] for i in rows], given, start, last)
                self.layers_run += len(rows) * (last - start)
                bar.update(len(rows))


@torch.inference_mode()
def run_layers(
    encoder: Encoder, ids: list[list[int]], tokens: list[np.ndarray] | None, start: int, last: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Token vectors and pooled vectors of one batch at layer ``last``, going on from layer ``start``.

    Args:
        encoder: the encoder.
        ids: token ids of b texts.
        tokens: (T, D) of each text at layer ``start``, as this function gives them; None with ``start`` 0.
        start: the layer that ``tokens`` come from.
        last: the layer to stop after, start <= last <= N.

    Returns:
        b arrays (T, D) float32 without padding, and (b, D) float32: raw, as slice ``last`` of `Encoder.states`.
    """
    backbone = encoder.backbone
    with evaluating(backbone):
        weight = next(backbone.parameters())
        batch = encoder.batch(ids)  # padded on the right, as `Encoder.states` pads
        mask = batch["attention_mask"]  # (b, T)
        if tokens is None:
            hidden = backbone.start(batch, last)  # (b, T, H)
        else:
            hidden = torch.zeros(*mask.shape, tokens[0].shape[1], dtype=weight.dtype, device=weight.device)
            hidden[mask.bool()] = torch.from_numpy(np.concatenate(tokens)).to(hidden)  # padding stays 0, on any side
            hidden = backbone.resume(hidden, mask, start, last)  # (b, T, H)
        pooled = backbone.pooled(hidden, mask).cpu().numpy()  # (b, D)
        flat = hidden[mask.bool()].float().cpu().numpy()  # (tokens of the batch, H)
    lengths = np.cumsum([len(own) for own in ids])[:-1]
    return [part.copy() for part in np.split(flat, lengths)], pooled  # copies: a kept text must not hold its batch


def nearest(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of the ``k`` documents of largest inner product, best first: (Q, d), (n, d) -> (Q, k)."""
    blocks = []
    for at in range(0, len(queries), QUERY_BLOCK):
        scores = queries[at : at + QUERY_BLOCK] @ documents.T  # (q, n)
        blocks.append(np.argsort(-scores, axis=1, kind="stable")[:, :k])  # (q, k)
    return np.concatenate(blocks)


def check_cells(
    encoder: Encoder, shallow: tuple[int, int], deep: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Both cells of a cascade, with a deep cell of None read as (N, D).

    Raises:
        ValueError: for what is no encoder or no cell, one out of range, a deep cell of fewer layers than the shallow
            one, or a model whose pass cannot go on from layer n1, such as T5.
    """
    check_encoder(encoder)
    for cell in (shallow, deep or (None, None)):
        if not isinstance(cell, tuple | list) or len(cell) != 2:
            raise ValueError(f"a cell is {cell!r}: give a layer and a dim, such as (2, 64)")
    first, second = encoder.check_cell(*shallow), encoder.check_cell(*(deep or (None, None)))
    if second[0] < first[0]:
        raise ValueError(
            f"the deep cell {second} has fewer layers than the shallow cell {first}: a forward pass goes on, never back"
        )
    encoder.backbone.check_resumes(first[0], second[0])
    return first, second


def cascade_table(
    encoder: Encoder,
    texts: Sequence[str],
    queries: Sequence[str],
    cells: Sequence[tuple[int, int]],
    shortlists: Sequence[int],
    k: int = 10,
    deep: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """What cascades of several shallow cells and shortlists keep and cost, from one encoding of texts and queries.

    Args:
        encoder: the encoder.
        texts: the n documents.
        queries: Q queries.
        cells: shallow cells (n1, d1).
        shortlists: numbers K of documents reranked.
        k: wanted documents a query.
        deep: the cell (n2, d2) that reranks, and whose exact top k is the truth; None is (N, D).

    Returns:
        One row a shallow cell and shortlist, columns

        - shallow_layer, shallow_dim, deep_layer, deep_dim, shortlist
        - recall: share of the k documents nearest at the deep cell that the cascade returns, mean over queries
        - layers_run: layers computed for one query on a fresh index, a text and a layer each: n2 + K (n2 - n1)
        - index_bytes: of the shallow vectors, 4 d1 n
        - token_bytes: of all documents' token vectors, where `Cascade` has the memory to keep them
        - relative_cost: layers computed for the index and all Q queries, with every document going on at most once,
          over (n + Q) n2, those of an exact search at the deep cell

    Raises:
        ValueError: as `Cascade`, for k above n, or a shortlist outside k..n.
    """
    texts, queries = as_texts(texts), as_texts(queries)
    check_count("k", k)
    pairs = [check_cells(encoder, cell, deep) for cell in cells]
    if not pairs or not len(shortlists):
        raise ValueError("nothing to measure: give at least one shallow cell and one shortlist")
    if k > len(texts):
        raise ValueError(f"k is {k}: it must be in 1..{len(texts)}, the number of texts")
    for K in shortlists:
        check_count("a shortlist", K)
        if not k <= K <= len(texts):
            raise ValueError(f"shortlist {K} is out of range: it must be in {k}..{len(texts)}, from k to all texts")
    before, own = prompt_for(encoder, QUERY), prompt_for(encoder, DOCUMENT)
    documents, asked = encoder.states(texts, prompt=own), encoder.states(queries, prompt=before)  # (N+1, n or Q, D)
    token_bytes = 4 * encoder.backbone.width * sum(map(len, encoder.tokenise(texts, own)["input_ids"]))
    n2, d2 = pairs[0][1]
    exact = nearest(normalise(asked[n2, :, :d2]), normalise(documents[n2, :, :d2]), k)  # (Q, k)
    rows = []
    for (n1, d1), _ in pairs:
        order = nearest(normalise(asked[n1, :, :d1]), normalise(documents[n1, :, :d1]), max(shortlists))  # (Q, K)
        for K in sorted(set(shortlists)):
            found = (exact[:, :, None] == order[:, None, :K]).any(axis=2)  # (Q, k): reranking puts these first
            layers = len(texts) * n1 + len(queries) * n2 + len(np.unique(order[:, :K])) * (n2 - n1)
            costs = (n2 + K * (n2 - n1), 4 * d1 * len(texts), token_bytes)
            relative = layers / ((len(texts) + len(queries)) * n2)
            rows.append((n1, d1, n2, d2, K, found.mean(), *costs, relative))
    columns = ["shallow_layer", "shallow_dim", "deep_layer", "deep_dim", "shortlist", "recall", "layers_run"]
    return pd.DataFrame(rows, columns=[*columns, "index_bytes", "token_bytes", "relative_cost"])
