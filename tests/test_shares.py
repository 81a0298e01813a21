import numpy as np
import pytest
import torch
from conftest import DIM, LAYERS, sentences, tiny_encoder

from twodmse import Encoder
from twodmse.encoder.storage import Layout
from twodmse.probes.maps import reference_map, text_map
from twodmse.probes.shares import coordinate_shares, token_shares, token_vectors, unknown_texts


def test_coordinate_shares_by_hand():
    first, second = np.array([3.0, 4, 9]), np.array([1.0, -1, 5])
    shares = coordinate_shares(first, second, 2)
    np.testing.assert_allclose(shares, [3 / (5 * np.sqrt(2)), -4 / (5 * np.sqrt(2))])
    with pytest.raises(ValueError, match="dim 4 is out of range"):
        coordinate_shares(first, second, 4)
    with pytest.raises(ValueError, match="undefined"):
        coordinate_shares(np.array([0.0, 1]), np.array([1.0, 1]), 1)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_shares_add_up_to_the_cosine_of_the_library(architecture, pooling):
    encoder = tiny_encoder(architecture, pooling=pooling)
    texts = ["a man plays in the park", "two big dog runs"]
    states = encoder.states(texts)  # (N+1, 2, D)
    first, second = (token_vectors(encoder, text) for text in texts)
    for layer, dim in ((1, 3), (2, 17), (LAYERS, DIM)):
        vectors = encoder.encode(texts, layer, dim).astype(np.float64)
        cosine = float(vectors[0] @ vectors[1])
        assert coordinate_shares(*states[layer], dim).sum() == pytest.approx(cosine, abs=1e-5)
        shares = token_shares(first, second, layer, dim)
        assert shares.shape == (len(first.tokens), len(second.tokens)) == (8, 6)  # with [CLS] and [SEP]
        assert shares.sum() == pytest.approx(cosine, abs=1e-5)
    if pooling == "cls":
        assert np.count_nonzero(shares) == 1
    with pytest.raises(ValueError, match="layer 5 is out of range"):
        token_shares(first, second, LAYERS + 1, 3)


def test_shares_add_up_to_the_cosine_after_a_linear_module(encoder):
    torch.manual_seed(0)
    texts = ["a man plays in the park", "two big dog runs"]
    narrow = Encoder(encoder.backbone.model, encoder.tokenizer, Layout("mean", 32), torch.nn.Linear(DIM, 12))
    plain = Encoder(encoder.backbone.model, encoder.tokenizer, encoder.layout)
    vectors = narrow.encode(texts, 3, 8).astype(np.float64)
    first, second = (token_vectors(narrow, text) for text in texts)
    assert first.layers[3].shape == (8, 12)
    assert token_shares(first, second, 3, 8).sum() == pytest.approx(vectors[0] @ vectors[1], abs=1e-5)
    assert np.abs(vectors - plain.encode(texts, 3, 8)).max() > 0.01


def test_texts_without_a_known_word_are_named(encoder):
    assert unknown_texts(encoder, ["a man", "😀", "😀 🎉", "a 😀", "xyzzy"]) == ["😀", "😀 🎉", "xyzzy"]
    assert unknown_texts(encoder, []) == []
    first, second = encoder.encode(["😀", "🎉"])
    assert first @ second == pytest.approx(1)  # why they must be named


def test_the_map_of_the_full_size_is_its_principal_components(encoder):
    states = encoder.states(sentences(20, seed=8))
    reference = reference_map(states)
    units = states[-1] / np.linalg.norm(states[-1], axis=1, keepdims=True)
    centred = units - units.mean(axis=0)
    values = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    np.testing.assert_allclose(np.square(reference.points).sum(axis=0), values[:2], rtol=1e-4)
    assert reference.shown == pytest.approx(values[:2].sum() / values.sum(), rel=1e-4)
    again = text_map(states, LAYERS, DIM, reference)
    np.testing.assert_allclose(again.points, reference.points, atol=1e-5)


def test_the_map_does_not_jump_where_the_cell_hardly_changes(encoder):
    states = encoder.states(sentences(20, seed=8))
    reference = reference_map(states)
    turned = states.copy()
    turned[2] = states[3] @ np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]  # the same, turned
    own = text_map(states, 3, DIM, reference).points
    np.testing.assert_allclose(text_map(turned, 2, DIM, reference).points, own, atol=1e-5)
    size = np.sqrt(np.square(own).sum(axis=1).mean())
    before = own
    for dim in range(DIM - 1, 15, -1):
        here = text_map(states, 3, dim, reference).points
        assert np.sqrt(np.square(here - before).sum(axis=1).mean()) < size  # mirrored, it would be 2 sizes
        before = here
    assert text_map(states, 1, 2, reference).points.shape == (20, 2)


def test_texts_of_one_vector_have_no_map(encoder):
    states = np.repeat(encoder.states(["a man"]), 4, axis=1)
    with pytest.raises(ValueError, match="the same vector"):
        reference_map(states)
    with pytest.raises(ValueError, match="at least one layer and 3 texts"):
        reference_map(states[:, :2])


def test_token_vectors_are_those_of_an_encoder_at_rest(encoder):
    for module in encoder.backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    encoder.backbone.train()
    first, second = token_vectors(encoder, "a man runs"), token_vectors(encoder, "a man runs")
    assert (first.layers[4] == second.layers[4]).all()
    assert encoder.backbone.training
