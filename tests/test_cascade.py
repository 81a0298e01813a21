import numpy as np
import pytest
import torch
from conftest import DIM, LAYERS, VOCAB, sentences, tiny_encoder, tiny_tokenizer
from transformers import LongformerConfig, LongformerModel, T5Config, T5EncoderModel

from twodmse import Encoder
from twodmse.encoder.encoder import normalise
from twodmse.encoder.storage import Layout
from twodmse.evaluation.cascade import Cascade, cascade_table, nearest, run_layers

DOCUMENTS, QUERIES = sentences(40, seed=3), sentences(6, seed=4)


def exact(encoder, cell, k):
    """The k nearest documents of each query at a cell, by sorting every cosine."""
    layer, dim = cell
    scores = encoder.encode(QUERIES, layer, dim) @ encoder.encode(DOCUMENTS, layer, dim).T
    return [sorted(range(len(DOCUMENTS)), key=lambda i: -row[i])[:k] for row in scores]


def test_a_pass_that_pauses_gives_the_full_passs_states(architecture):
    encoder = tiny_encoder(architecture)
    states = encoder.states(QUERIES)
    ids = encoder.tokenise(QUERIES)["input_ids"]
    for n in range(1, LAYERS + 1):
        tokens, pooled = run_layers(encoder, ids, None, 0, n)
        assert [t.shape for t in tokens] == [(len(own), DIM) for own in ids]
        np.testing.assert_allclose(pooled, states[n], atol=1e-5)
        for last in range(n, LAYERS + 1):
            _, further = run_layers(encoder, ids, tokens, n, last)
            assert further.shape == (len(QUERIES), DIM)
            np.testing.assert_allclose(further, states[last], atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_find_their_places_again_beside_other_padding(pooling, side):
    encoder = tiny_encoder(pooling=pooling)
    encoder.tokenizer.padding_side = side
    ids = encoder.tokenise(QUERIES)["input_ids"]
    tokens, _ = run_layers(encoder, ids, None, 0, 2)
    short = sorted(range(len(ids)), key=lambda i: len(ids[i]))[:2]  # a batch padded less than the one they come from
    _, alone = run_layers(encoder, [ids[i] for i in short], [tokens[i] for i in short], 2, LAYERS)
    _, whole = run_layers(encoder, ids, tokens, 2, LAYERS)
    np.testing.assert_allclose(alone, whole[short], atol=1e-5)
    if side == "right":  # positions count from the left, so left padding moves them
        np.testing.assert_allclose(whole, encoder.states(QUERIES)[LAYERS], atol=1e-5)


def test_pausing_leaves_the_model_as_it_was(encoder):
    before = encoder.states(QUERIES)
    encoder.backbone.train()
    index = Cascade(encoder, DOCUMENTS, (1, 8), shortlist=10)
    first = index.search(QUERIES)
    assert encoder.backbone.model.training
    encoder.backbone.eval()
    assert first.equals(Cascade(encoder, DOCUMENTS, (1, 8), shortlist=10).search(QUERIES))  # dropout was off
    np.testing.assert_array_equal(encoder.states(QUERIES), before)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in encoder.backbone.layers)


def test_a_shortlist_of_everything_is_the_exact_search(architecture):
    encoder = tiny_encoder(architecture)
    found = Cascade(encoder, DOCUMENTS, (2, 4), (3, 16), shortlist=10**6, batch_size=7).search(QUERIES, k=5)
    assert list(found.columns) == ["query", "rank", "document", "score"]
    assert found.groupby("query")["document"].apply(list).tolist() == exact(encoder, (3, 16), 5)
    cosine = (encoder.encode(QUERIES[:1], 3, 16) @ encoder.encode([DOCUMENTS[found["document"][0]]], 3, 16).T).item()
    assert found["score"][0] == pytest.approx(cosine, abs=1e-5)


def test_only_the_shortlist_is_reranked(encoder):
    index = Cascade(encoder, DOCUMENTS, (1, 4), shortlist=8)
    found = index.search(QUERIES, k=8).groupby("query")["document"].apply(list)
    near, deep = exact(encoder, (1, 4), 8), exact(encoder, (LAYERS, DIM), len(DOCUMENTS))
    for query, documents in found.items():
        assert documents == [i for i in deep[query] if i in near[query]]


@pytest.mark.parametrize("cache_bytes", [0, 20_000, 2**30])
def test_layers_are_counted_and_no_document_goes_on_twice(encoder, cache_bytes):
    seen = sorted({i for near in exact(encoder, (1, 4), 8) for i in near})
    ran = []
    for layer in encoder.backbone.layers:
        layer.register_forward_hook(lambda _, args, __: ran.append(len(args[0])))
    index = Cascade(encoder, DOCUMENTS, (1, 4), (3, 16), shortlist=8, cache_bytes=cache_bytes)
    assert index.layers_run == sum(ran) == 40
    kept = [tokens is not None for tokens in index.tokens]
    assert sum(tokens.nbytes for tokens in index.tokens if tokens is not None) <= cache_bytes
    assert sum(kept) == {0: 0, 2**30: 40}.get(cache_bytes, sum(kept))
    found = index.search(QUERIES, k=8)
    assert index.deepened.nonzero()[0].tolist() == seen
    assert not any(index.tokens[i] is not None for i in seen)  # memory given back
    assert index.layers_run == sum(ran) == 40 + 6 * 3 + sum(2 if kept[i] else 3 for i in seen)
    assert found.equals(index.search(QUERIES, k=8))
    assert index.layers_run == 40 + 2 * 6 * 3 + sum(2 if kept[i] else 3 for i in seen)


def test_started_again_or_gone_on_the_results_are_the_same(encoder):
    kept, fresh = (Cascade(encoder, DOCUMENTS, (2, 8), shortlist=12, cache_bytes=b).search(QUERIES) for b in (2**30, 0))
    assert kept["document"].tolist() == fresh["document"].tolist()
    np.testing.assert_allclose(kept["score"], fresh["score"], atol=1e-5)


def test_the_table_says_what_the_cascade_does(encoder):
    table = cascade_table(encoder, DOCUMENTS, QUERIES, [(1, 4), (2, 32)], [10, 20, 40], k=5, deep=(3, 16))
    assert table[["shallow_layer", "shallow_dim", "shortlist"]].to_numpy().tolist() == [
        [n, d, K] for n, d in ((1, 4), (2, 32)) for K in (10, 20, 40)
    ]
    truth = exact(encoder, (3, 16), 5)
    for row in table.itertuples():
        assert (row.deep_layer, row.deep_dim) == (3, 16)
        index = Cascade(encoder, DOCUMENTS, (row.shallow_layer, row.shallow_dim), (3, 16), row.shortlist)
        found = index.search(QUERIES, k=5).groupby("query")["document"].apply(set)
        kept = [len(found[q] & set(truth[q])) / 5 for q in range(len(QUERIES))]
        assert row.recall == pytest.approx(np.mean(kept))
        assert row.relative_cost == pytest.approx(index.layers_run / (46 * 3))
        fresh = Cascade(encoder, DOCUMENTS, (row.shallow_layer, row.shallow_dim), (3, 16), row.shortlist)
        before = fresh.layers_run
        fresh.search(QUERIES[:1], k=1)
        assert row.layers_run == fresh.layers_run - before
        assert row.index_bytes == index.shallow_vectors.nbytes == 40 * 4 * row.shallow_dim
        assert row.token_bytes == sum(tokens.nbytes for tokens in Cascade(encoder, DOCUMENTS, (1, 4)).tokens)
    assert (table.query("shortlist == 40")["recall"] == 1).all()
    assert table["recall"].min() < 1  # else nothing was told apart


def test_nearest_over_several_blocks(monkeypatch):
    monkeypatch.setattr("twodmse.evaluation.cascade.QUERY_BLOCK", 3)
    rng = np.random.default_rng(0)
    queries, documents = normalise(rng.normal(size=(8, 5))), normalise(rng.normal(size=(20, 5)))
    expected = [sorted(range(20), key=lambda i: -(documents[i] @ q))[:4] for q in queries]
    assert nearest(queries, documents, 4).tolist() == expected
    assert nearest(np.ones((1, 2)), np.ones((5, 2)), 3).tolist() == [[0, 1, 2]]  # ties in the order of the documents


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shallow": (5, 4)}, "layer 5 is out of range"),
        ({"shallow": (1, 99)}, "dim 99 is out of range"),
        ({"deep": (1, 4)}, r"deep cell \(1, 4\) has fewer layers than the shallow cell \(2, 4\)"),
        ({"shortlist": 0}, "shortlist is 0"),
        ({"shortlist": 2.5}, r"shortlist is 2\.5: give a whole number"),
        ({"shortlist": True}, "shortlist is True"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shallow": 3}, "a cell is 3: give a layer and a dim"),
        ({"shallow": (1,)}, r"a cell is \(1,\): give"),
        ({"texts": []}, "texts is empty"),
        ({"texts": ["a man", " "]}, r"texts\[1\]"),
    ],
)
def test_bad_cascades_are_refused_before_anything_is_encoded(encoder, monkeypatch, change, message):
    monkeypatch.setattr(encoder.backbone, "start", lambda *_: pytest.fail("encoded before checking"))
    with pytest.raises(ValueError, match=message):
        Cascade(encoder, **({"texts": DOCUMENTS, "shallow": (2, 4)} | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shortlists": [3]}, r"shortlist 3 is out of range: it must be in 5\.\.40"),
        ({"shortlists": [41]}, "shortlist 41"),
        ({"shortlists": []}, "nothing to measure"),
        ({"cells": []}, "nothing to measure"),
        ({"cells": [(4, 4)], "deep": (3, 4)}, "fewer layers"),
        ({"k": 0}, "k is 0"),
        ({"k": "2"}, "k is '2'"),
        ({"cells": (1, 8)}, "a cell is 1: give a layer and a dim"),
        ({"shortlists": [10.5]}, r"a shortlist is 10\.5"),
        ({"k": 41}, r"k is 41: it must be in 1\.\.40"),
        ({"queries": []}, "texts is empty"),
    ],
)
def test_bad_tables_are_refused_before_anything_is_encoded(encoder, monkeypatch, change, message):
    monkeypatch.setattr(encoder, "states", lambda *_: pytest.fail("encoded before checking"))
    settings = {"texts": DOCUMENTS, "queries": QUERIES, "cells": [(1, 4)], "shortlists": [10], "k": 5}
    with pytest.raises(ValueError, match=message):
        cascade_table(encoder, **(settings | change))


def test_a_model_whose_pass_cannot_go_on_is_refused_before_anything_is_encoded(monkeypatch):
    config = T5Config(vocab_size=VOCAB, d_model=DIM, d_kv=8, d_ff=48, num_layers=3, num_heads=4)
    encoder = Encoder(T5EncoderModel(config), tiny_tokenizer(), Layout("mean", 32))
    assert len(Cascade(encoder, DOCUMENTS, (2, 4), (2, 8)).search(QUERIES, 1)) == len(QUERIES)  # nothing to go on with
    monkeypatch.setattr(Encoder, "states", lambda *_: pytest.fail("encoded before checking"))
    monkeypatch.setattr(encoder.backbone, "start", lambda *_: pytest.fail("encoded before checking"))
    message = "T5EncoderModel makes its positions in layer 1: no pass can go on from layer 2"
    with pytest.raises(ValueError, match=message):
        Cascade(encoder, DOCUMENTS, (2, 4))
    with pytest.raises(ValueError, match=message):
        cascade_table(encoder, DOCUMENTS, QUERIES, [(2, 4)], [10], 5)


def test_a_search_for_more_than_the_shortlist_is_refused(encoder):
    with pytest.raises(ValueError, match=r"k is 9: it must be in 1\.\.8"):
        Cascade(encoder, DOCUMENTS, (1, 4), shortlist=8).search(QUERIES, k=9)


def test_half_precision_weights_go_on_too(encoder):
    encoder.backbone.to(torch.float16)
    states = encoder.states(QUERIES)
    ids = encoder.tokenise(QUERIES)["input_ids"]
    _, pooled = run_layers(encoder, ids, run_layers(encoder, ids, None, 0, 2)[0], 2, LAYERS)
    np.testing.assert_allclose(pooled, states[LAYERS], atol=1e-2)


def test_a_tokenizer_that_pads_on_the_left_changes_no_vector():
    encoder, texts = tiny_encoder("bert"), ["a man", "a man is playing the guitar on the stage", "a dog"]
    encoder.tokenizer.padding_side = "left"
    shallow = Cascade(encoder, texts, (1, 8), shortlist=2).shallow_vectors
    np.testing.assert_allclose(shallow, encoder.encode(texts, 1, 8), atol=1e-5)


@pytest.mark.parametrize("cache_bytes", [None, -1, 2.5])
def test_memory_that_is_none_is_refused(encoder, cache_bytes):
    with pytest.raises(ValueError, match=f"cache_bytes is {cache_bytes}: give a whole number from 0 up"):
        Cascade(encoder, DOCUMENTS, (1, 4), cache_bytes=cache_bytes)


def test_an_index_gives_each_document_once_by_a_whole_number(encoder):
    index = Cascade(encoder, DOCUMENTS, (1, 8), shortlist=5)
    for give, message in (
        (lambda Q, K: np.zeros((len(Q), K), int), "the index gives document 0 twice for one query"),
        (lambda Q, K: np.tile(np.arange(K, dtype=float), (len(Q), 1)), "of type float64: they must be integers"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(QUERIES, k=3, find=give)


def test_token_bytes_are_those_that_are_kept(encoder):
    head = torch.nn.Linear(DIM, 8, bias=False)
    narrow = Encoder(encoder.backbone.model, encoder.tokenizer, encoder.layout._replace(dim=8), head)
    index = Cascade(narrow, DOCUMENTS, (2, 4), shortlist=5)
    table = cascade_table(narrow, DOCUMENTS, QUERIES, [(2, 4)], [10], k=5)
    assert table["token_bytes"].tolist() == [sum(tokens.nbytes for tokens in index.tokens)]


def test_a_text_without_a_direction_is_refused(encoder):
    with torch.no_grad():
        for layer in range(LAYERS):
            norm = encoder.backbone.layers[layer].output.LayerNorm
            norm.weight[:4], norm.bias[:4] = 0, 0
    index = Cascade(encoder, DOCUMENTS, (1, 8), (2, 4))  # its deep cell is zero
    with pytest.raises(ValueError, match=r"the vector of queries\[\d\] at layer 2, dim 4 is zero: it has no direction"):
        index.search(QUERIES[:2], k=3)
    with pytest.raises(ValueError, match=r"the vector of texts\[\d+\] at layer 1, dim 4 is zero: it has no direction"):
        Cascade(encoder, DOCUMENTS, (1, 4))


def test_a_model_that_pads_to_its_window_is_refused_before_the_index():
    sizes = {"vocab_size": VOCAB, "hidden_size": DIM, "num_hidden_layers": 3, "num_attention_heads": 4}
    more = {"intermediate_size": 48, "max_position_embeddings": 64, "attention_window": [8] * 3, "pad_token_id": 0}
    model = LongformerModel(LongformerConfig(**sizes, **more)).eval()
    encoder = Encoder(model, tiny_tokenizer(), Layout(max_length=16))
    with pytest.raises(ValueError, match="LongformerModel pads texts to its window: no pass can go on from layer 1"):
        Cascade(encoder, DOCUMENTS, (1, 8))


def test_queries_and_documents_are_read_after_the_models_own_prompts():
    encoder = tiny_encoder()
    encoder.layout = encoder.layout._replace(prompts={"query": "a man is ", "passage": "some dog "})
    documents, queries = sentences(30, seed=1), sentences(4, seed=2)
    found = Cascade(encoder, documents, (2, 8), (4, 16), shortlist=30).search(queries, k=30)
    asked, kept = (encoder.encode(t, 4, 16, prompt_name=n) for t, n in ((queries, "query"), (documents, "passage")))
    for query, row in enumerate(asked @ kept.T):
        ranked = found[found["query"] == query].set_index("document")["score"]
        np.testing.assert_allclose(ranked.sort_index(), row, atol=1e-5)
    plain = encoder.encode(queries, 4, 16) @ encoder.encode(documents, 4, 16).T
    assert np.abs(plain - asked @ kept.T).max() > 0.01, "prompts that change nothing show nothing"
    best = np.argsort(-(asked @ kept.T), axis=1, kind="stable")[:, :3]
    first = cascade_table(encoder, documents, queries, [(4, 16)], [3], k=3, deep=(4, 16))
    assert first["recall"].tolist() == [1.0]
    shallow = [encoder.encode(t, 1, 4, prompt_name=n) for t, n in ((queries, "query"), (documents, "passage"))]
    order = np.argsort(-(shallow[0] @ shallow[1].T), axis=1, kind="stable")[:, :5]
    recall = np.mean([len({*a} & {*b}) / 3 for a, b in zip(best, order, strict=True)])
    assert cascade_table(encoder, documents, queries, [(1, 4)], [5], k=3, deep=(4, 16))["recall"].tolist() == [
        pytest.approx(recall)
    ]


def test_a_prompt_that_is_not_pooled_is_refused():
    encoder = tiny_encoder()
    encoder.layout = encoder.layout._replace(prompts={"query": "q: "}, include_prompt=False)
    cascade = Cascade(encoder, sentences(5), (2, 8))
    with pytest.raises(ValueError, match=r"pools without its prompt 'query' \(include_prompt=False\)"):
        cascade.search(["a man"], k=1)
