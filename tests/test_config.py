import json
from pathlib import Path

import numpy as np
import pytest

from twodmse import RECIPES, TrainConfig
from twodmse.config import PRESETS


def test_round_trip_through_json():
    config = TrainConfig(recipe="mrl", dims=(8, 16), loss="mix", mix=(1, 2, 3), lr=1e-4)
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
        ("dims", 16), ("dims", None), ("dims", "16"), ("mix", 1), ("recipe", ["mrl"]), ("recipe", 2), ("data", 5),
        ("data", None), ("data", ""), ("out", None), ("pooling", ""), ("pooling", "max"), ("scale", 1e30),
        ("max_length", 2), ("lr", 1e300), ("first_lr", 1e300), ("seed", 2**32), ("steps", 10**30), ("keep", "2"),
        ("log_every", 101), ("weight_decay", float("inf")), ("teacher", 3), ("lr", True), ("noise", [0.5]),
        ("seed", -1), ("dropout", 1.0), ("temperature", 0), ("alignment", "no"), ("save_every", 0),
        ("angle_scale", 0), ("hard_weight", -1),
    ],
)  # fmt: skip
def test_bad_values_name_the_field_and_the_value(field, value):
    with pytest.raises(ValueError, match=rf"^{field}(\[\d+\])? is .*: it must be"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"recipe": "2dmse", "teacher": "bundled"}, "teacher"),
        *(({"recipe": "starbucks", n: v}, n) for n, v in (("align_weight", 2.0), ("temperature", 0.5), ("dims", (8,)))),
        ({"recipe": "ese", "align_weight": 2.0}, "align_weight"),
        *(
            ({"recipe": r, n: v}, n)
            for r in ("st2d", "st2d-2024")
            for n, v in (("alignment", False), ("last_layer", False), ("shallow_weight", 0.5))
        ),
        ({"mix": (1, 0, 1)}, "mix"),
        ({"loss": "cosent", "angle_scale": 1.0}, "angle_scale"),
        ({"loss": "angle", "hard_weight": 1.0}, "hard_weight"),
    ],
)
def test_what_recipe_or_loss_do_not_use_is_refused_by_name(settings, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        TrainConfig(**settings)


def test_presets_follow_their_sources():
    for name in PRESETS:
        TrainConfig.preset(name)  # nothing in it is without effect
    first = TrainConfig.preset("paper-74e5ba2")  # train_cli.py: w1 = w2 = w3 = 1, angle_tau 1, 32 rows, 20 epochs
    assert (first.recipe, first.loss, first.mix, first.scale, first.angle_scale) == ("2dmse", "mix", (1, 1, 1), 20, 1)
    assert (first.two_passes, first.pooling, first.max_length, first.seed) == (True, "cls", 512, 42)
    assert (first.batch_size, first.lr, first.steps) == (32, 1e-5, 348_656)
    assert round(first.warmup * first.steps) == 100
    readme = TrainConfig.preset("readme-2dmse")  # --w2 20 --w1 1 --w3 1 --angle_tau 20, 16 rows, 1 epoch
    assert (readme.mix, readme.scale, readme.angle_scale, readme.two_passes) == ((20, 1, 1), 20, None, True)
    assert (readme.batch_size, readme.lr, readme.steps, readme.max_length) == (16, 1e-5, 34_865, 128)
    assert round(readme.warmup * readme.steps) == 100
    nli = TrainConfig.preset("angle-nli")  # --ibn_w 30 --cosine_w 0 --angle_w 1 --angle_tau 20, 128 rows, 10 epochs
    assert (nli.recipe, nli.data, nli.mix, nli.angle_scale) == ("full", "all-nli-labelled", (30, 0, 1), None)
    assert (nli.batch_size, nli.lr, nli.steps, nli.seed) == (128, 5e-5, 87_164, 42)
    assert round(nli.warmup * nli.steps) == 50


def test_paper_is_the_code_published_with_the_paper():
    assert TrainConfig.preset("paper") == TrainConfig.preset("paper-74e5ba2")
    assert TrainConfig.preset("paper", steps=3).steps == 3
    with pytest.raises(ValueError, match="unknown preset 'best'"):
        TrainConfig.preset("best")


def test_config_is_frozen():
    with pytest.raises(AttributeError):
        TrainConfig().lr = 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": "bundled"}, "teacher is 'bundled': recipe '2dmse' does not use it, leave it at None"),
        ({"recipe": "starbucks", "dims": (8,)}, r"dims is \(8,\): recipe 'starbucks' does not"),
        ({"recipe": "starbucks", "temperature": 0.5}, "temperature is 0.5"),
        ({"recipe": "starbucks", "align_weight": 2}, "align_weight is 2"),
        ({"recipe": "ese", "align_weight": 2}, "align_weight is 2"),
        ({"recipe": "ese", "dims": (8,)}, "dims is"),
        ({"recipe": "st2d", "alignment": False}, "alignment is False"),
        ({"recipe": "st2d", "last_layer": False}, "last_layer is False"),
        ({"recipe": "st2d", "shallow_weight": 0.5}, "shallow_weight is 0.5"),
        ({"recipe": "full", "noise": 0.5}, "noise is 0.5"),
        ({"recipe": "mrl", "two_passes": True}, "two_passes is True"),
        ({"recipe": "mrl", "compress_dim": 64}, "compress_dim is 64"),
        ({"recipe": "grid", "pair_weight": 2.0}, "pair_weight is 2.0: recipe 'grid' without a teacher does not"),
        ({"recipe": "grid", "hold_weight": 2.0}, "hold_weight is 2.0: recipe 'grid' without a teacher"),
        ({"recipe": "grid", "teacher": "bundled", "alignment": False}, "recipe 'grid' with a teacher does not"),
        ({"alignment": False, "temperature": 0.5}, "temperature is 0.5: without alignment it has no effect"),
        ({"matryoshka": False, "dims": (8,)}, "dims is .*: without matryoshka it has no effect"),
    ],
)
def test_a_setting_without_effect_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_every_preset_and_every_recipe_at_its_defaults_is_accepted():
    assert all(TrainConfig.preset(name) for name in PRESETS)
    assert [TrainConfig(recipe=name).recipe for name in RECIPES] == list(RECIPES)


def test_a_stored_config_is_read_without_what_has_no_effect_in_it(tmp_path, caplog):
    stored = TrainConfig(recipe="full", steps=7).to_dict() | {"compress_dim": 8}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert TrainConfig.read(tmp_path / "config.json") == TrainConfig(recipe="full", steps=7)
    assert "compress_dim is left out: recipe 'full' does not use it" in caplog.text


def test_paths_and_numbers_of_numpy_are_taken():
    config = TrainConfig(
        data=Path("a.csv"), out=Path("runs/a"), steps=np.int64(7), dims=np.array([8, 16]), lr=np.float32(0.5)
    )
    assert (config.data, config.out, config.steps, config.dims, config.lr) == ("a.csv", "runs/a", 7, (8, 16), 0.5)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no valid JSON"),
        ("{", "no valid JSON"),
        ("null", "is None: it must be an object"),
        ("[]", r"is \(\): it must be an object"),
        ('{"lr": NaN}', "holds NaN"),
        ('{"recipe": [1]}', "recipe is .* it must be a text"),
        ('{"steps": "7"}', "steps is '7': it must be an integer"),
        ('{"stepz": 7}', "unknown config key 'stepz'"),
        ("[" * 100_000, "nested too deep"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_damaged_config_is_refused_by_file(tmp_path, content, message):
    path = tmp_path / "train_config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        TrainConfig.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_chunk": 16, "chunks": 9}, "chunks is 9: cache_chunk says how many texts a chunk has"),
        ({"loss": "own:mine", "scale": 5.0}, "scale is 5.0: loss 'own:mine' does not use it"),
    ],
)
def test_settings_that_another_one_stands_in_for_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)
