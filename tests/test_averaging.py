"""The mean of the weights of encoders trained from one start."""

import copy

import numpy as np
import pytest
import torch
from conftest import sentences, tiny_encoder

from twodmse import Encoder, average
from twodmse.training.ordering import reorder


def moved(encoder, by, seed):
    """An encoder a little away from another, as a short training would leave it."""
    other, noise = copy.deepcopy(encoder), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.backbone.parameters():
            weight += by * torch.randn(weight.shape, generator=noise)
    return other


def test_every_weight_is_the_weighted_mean(architecture, tmp_path):
    start = tiny_encoder(architecture)
    one, two = moved(start, 0.005, 1), moved(start, 0.005, 2)
    before = start.states(sentences(3))
    mean = average([start, one, two], [0.5, 0.2, 0.3])
    parts = [e.backbone.state_dict() for e in (start, one, two)]
    for name, weight in mean.backbone.state_dict().items():
        expected = 0.5 * parts[0][name] + 0.2 * parts[1][name] + 0.3 * parts[2][name]
        torch.testing.assert_close(weight.float(), expected.float(), atol=1e-6, rtol=0)
    np.testing.assert_array_equal(start.states(sentences(3)), before)  # untouched
    assert not mean.backbone.training
    loaded = Encoder.load(mean.save(tmp_path / "mean"))
    np.testing.assert_allclose(loaded.encode(sentences(3), 2, 7), mean.encode(sentences(3), 2, 7), atol=1e-6)


def test_equal_parts_without_shares_and_the_whole_share_is_the_encoder_itself():
    start = tiny_encoder()
    other = moved(start, 0.005, 1)
    halves = average([start, other]).states(sentences(3))
    np.testing.assert_allclose(halves, average([other, start], [0.5, 0.5]).states(sentences(3)), atol=1e-6)
    whole = average([start, other], [0, 1]).states(sentences(3))
    np.testing.assert_allclose(whole, other.states(sentences(3)), atol=1e-6)
    np.testing.assert_allclose(average([other]).states(sentences(3)), other.states(sentences(3)), atol=1e-6)


def test_an_encoder_with_its_coordinates_in_another_order_is_refused():
    start, other = tiny_encoder(), tiny_encoder()
    reorder(other.backbone, np.random.default_rng(0).permutation(32))
    with pytest.raises(ValueError, match=r"encoders\[1\] and encoders\[0\] do not come from one start.*order_dims"):
        average([start, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.submodel(3), r"encoders\[1\] has not the shape of encoders\[0\]: of .*none"),
        (lambda e: e.submodel(dim=7), r"encoders\[1\] makes its vectors otherwise than encoders\[0\]"),
        (lambda e: Encoder(e.backbone.model, e.tokenizer, e.layout._replace(pooling="cls")), r"otherwise than"),
    ],
)
def test_encoders_of_another_shape_or_layout_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        average([tiny_encoder(), change(tiny_encoder())])


def test_another_vocabulary_is_refused():
    start, other = tiny_encoder(), tiny_encoder()
    other.tokenizer.add_tokens(["brown"])
    with pytest.raises(ValueError, match="has another vocabulary"):
        average([start, other])


@pytest.mark.parametrize("given", ["bundled", ["bundled"], [None]])
def test_what_is_no_encoder_is_refused(given):
    with pytest.raises(ValueError, match=r"encoders\[0\] is .*: give encoders, as Encoder.load gives them"):
        average(given)


@pytest.mark.parametrize(
    ("count", "shares", "message"),
    [
        (0, None, "there are no encoders to average"),
        (2, [1.0], "there are 2 encoders and 1 shares: give one share for each"),
        (2, [0.5, 0.4], "the shares sum to 0.9: they must sum to 1"),
        (2, [1.5, -0.5], r"shares\[0\] is 1.5: it must be a number from 0 to 1"),
        (2, [float("nan"), 1], r"shares\[0\] is nan"),
        (2, ["a", 1], r"shares\[0\] is 'a'"),
        (1, [True], r"shares\[0\] is True"),
        (2, 0.5, "shares is 0.5: give one share for each encoder"),
    ],
)
def test_shares_that_do_not_fit_are_refused(count, shares, message):
    with pytest.raises(ValueError, match=message):
        average([tiny_encoder()] * count, shares)
