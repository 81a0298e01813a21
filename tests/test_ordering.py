"""Reordered coordinates: the same model, other cuts."""

import json

import numpy as np
import pytest
import torch
from conftest import sentences, tiny_encoder

from twodmse import Encoder, TrainConfig
from twodmse.data.sets import TextSet
from twodmse.training import ordering
from twodmse.training import runs as training
from twodmse.training.ordering import best_order, reorder
from twodmse.training.runs import train_encoder


def test_every_layer_has_its_coordinates_in_the_new_order(architecture):
    encoder, texts = tiny_encoder(architecture), sentences(7)
    before = encoder.states(texts)
    order = np.random.default_rng(0).permutation(encoder.dim)
    reorder(encoder.backbone, order)
    np.testing.assert_allclose(encoder.states(texts), before[:, :, order], atol=1e-5)


@pytest.mark.parametrize("order", [range(31), [0] * 32, range(1, 33)])
def test_an_order_has_each_coordinate_once(order):
    with pytest.raises(ValueError, match=r"an order of 32 coordinates has each of 0..31 once"):
        reorder(tiny_encoder().backbone, order)


def test_an_encoder_made_in_memory_is_of_no_run_that_lies_here(tmp_path, monkeypatch):
    (tmp_path / "train_config.json").write_text(json.dumps(TrainConfig(order_dims=True).to_dict()))
    monkeypatch.chdir(tmp_path)
    assert ordering.is_ordered(".")
    assert not ordering.is_ordered("")


def other_weights(kind):
    """An encoder with weights of which it is not known, or wrongly thought, where the coordinates lie."""
    encoder = tiny_encoder()
    if kind == "unknown":
        encoder.backbone.layers[3].extra = torch.nn.Linear(32, 32)
    else:
        scale = torch.nn.Parameter(torch.linspace(1, 2, 32))
        encoder.backbone.layers[2].register_parameter("scale", scale)
        encoder.backbone.layers[2].register_forward_hook(lambda layer, _, output: output * layer.scale)
    return encoder


@pytest.mark.parametrize("kind", ["unknown", "unthought"])
def test_weights_of_other_kinds_are_left_and_a_module_after_the_pooling_reorders(kind, tmp_path):
    encoder, texts = other_weights(kind), sentences(3)
    before, weights = encoder.states(texts), encoder.backbone.state_dict()
    weights = {name: weight.clone() for name, weight in weights.items()}
    order = np.random.default_rng(0).permutation(32)
    reorder(encoder.backbone, order)
    np.testing.assert_allclose(encoder.states(texts), before[..., order], atol=1e-6)
    assert all(torch.equal(encoder.backbone.state_dict()[name], weight) for name, weight in weights.items())
    assert not any(p.requires_grad for p in encoder.backbone.head.parameters())
    reorder(encoder.backbone, order)  # once more, now of what the module gives
    np.testing.assert_allclose(encoder.states(texts), before[..., order][..., order], atol=1e-6)
    if kind == "unknown":
        loaded = Encoder.load(encoder.submodel(2, 7).save(tmp_path / "cell"))
        np.testing.assert_allclose(loaded.encode(texts), encoder.encode(texts, 2, 7), atol=1e-5)


def test_the_greedy_order_is_the_one_by_hand(triplets):
    """The coordinates taken next are the best of those left by numpy's own correlation."""
    encoder = tiny_encoder()
    small = TextSet("small", tuple(column[:6] for column in triplets.columns))
    order = best_order(encoder, small, progress=False)
    assert sorted(order) == list(range(32))
    states = encoder.states([text for column in small.columns for text in column])[1:].astype(np.float64)
    pairs = [(a * 6 + i, b * 6 + i) for a, b in ((0, 1), (0, 2), (1, 2)) for i in range(6)]
    pairs += [(i, j) for i, j in np.random.default_rng(0).integers(18, size=(18, 2)).tolist() if i != j]

    def cosines(vectors):
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        return np.array([unit[i] @ unit[j] for i, j in pairs])

    wanted = cosines(states[-1])

    def score(dims):
        return np.mean([np.corrcoef(cosines(layer[:, dims]), wanted)[0, 1] for layer in states])

    for taken in (1, 2, 5):
        rest = [j for j in range(32) if j not in order[:taken]]
        assert order[taken] == max(rest, key=lambda j: score([*order[:taken], j]))


def test_a_run_starts_in_order_and_its_teacher_too_and_keeps_the_order(triplets, tmp_path, monkeypatch):
    tiny_encoder().save(tmp_path / "model")
    settings = {"recipe": "grid", "teacher": str(tmp_path / "model"), "order_dims": True, "dropout": 0.0}
    settings |= {"batch_size": 8, "precision": "fp32", "lr": 1e-9, "save_every": 1, "out": str(tmp_path / "run")}
    encoder = tiny_encoder()
    before = encoder.states(sentences(5))
    run = train_encoder(encoder, triplets, TrainConfig(**settings, steps=1))
    order = json.loads((tmp_path / "run" / "dims_order.json").read_text())
    assert order == best_order(tiny_encoder(), triplets).tolist() != list(range(32))
    # before it moves, the pupil is its teacher
    assert run.history["hold_4"].iloc[0] == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(encoder.states(sentences(5)), before[:, :, order], atol=1e-5)
    monkeypatch.setattr(training, "best_order", lambda *_: pytest.fail("a run that goes on has its order"))
    again = train_encoder(tiny_encoder(), triplets, TrainConfig(**settings, steps=1), resume=True)
    assert torch.equal(*(torch.cat([p.flatten() for p in e.backbone.parameters()]) for e in (encoder, again.encoder)))


def test_a_wide_space_is_ordered_one_by_one_first_then_several_at_a_time(triplets, monkeypatch):
    exact = best_order(tiny_encoder(), triplets, progress=False)
    monkeypatch.setattr(ordering, "WIDE", 31)
    monkeypatch.setattr(ordering, "ONE_BY_ONE", 4)
    found = best_order(tiny_encoder(), triplets, progress=False)
    assert sorted(found) == list(range(32))
    assert found[:4].tolist() == exact[:4].tolist()
    assert found.tolist() != exact.tolist()
