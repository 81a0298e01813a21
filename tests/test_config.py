import json

import pytest

from twodmse import TrainConfig


def test_round_trip_through_json():
    config = TrainConfig(recipe="mrl", dims=(8, 16), mix=(1, 2, 3), lr=1e-4)
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.dims == (8, 16)


def test_unknown_keys_are_refused_with_a_hint():
    with pytest.raises(ValueError, match="unknown config key 'batchsize': did you mean 'batch_size'"):
        TrainConfig.from_dict({"batchsize": 3})
    with pytest.raises(ValueError, match="known keys"):
        TrainConfig.from_dict({"zzz": 3})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise", 1.5), ("pair_weight", -1),
        ("steps", 0), ("steps", 1.5), ("steps", True), ("batch_size", 1), ("lr", 0), ("lr", float("nan")),
        ("lr", "fast"),
        ("warmup", 1.0), ("precision", "fp16"), ("dims", (0,)), ("dims", ("a",)), ("mix", (1, 2)), ("mix", (0, 0, 0)),
        ("first_lr", 0),
        ("seed", -1), ("dropout", 1.0), ("temperature", 0), ("alignment", "no"), ("save_every", 0),
    ],
)  # fmt: skip
def test_bad_values_name_the_field_and_the_value(field, value):
    with pytest.raises(ValueError, match=rf"^{field} is .*: it must be"):
        TrainConfig(**{field: value})


def test_presets():
    paper = TrainConfig.preset("paper", steps=3)
    assert (paper.backbone, paper.pooling, paper.loss, paper.steps) == (
        "google-bert/bert-base-uncased",
        "cls",
        "mix",
        3,
    )
    assert paper.two_passes
    with pytest.raises(ValueError, match="unknown preset 'best'"):
        TrainConfig.preset("best")


def test_config_is_frozen():
    with pytest.raises(AttributeError):
        TrainConfig().lr = 1.0
