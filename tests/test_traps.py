"""Known traps of training and scoring cut encoders, one test each where no other module has one."""

import copy
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import LAYERS, SHAPE, sentences, tiny_encoder, tiny_tokenizer
from scipy.stats import spearmanr
from test_hub import SERVER, hub  # noqa: F401
from torch.testing import assert_close
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    DebertaV2Config,
    DebertaV2Model,
    ElectraConfig,
    ElectraModel,
)

from twodmse import Encoder, TrainConfig
from twodmse.data.sets import TextSet
from twodmse.encoder.backbone import cut
from twodmse.encoder.encoder import normalise
from twodmse.encoder.storage import Layout
from twodmse.evaluation.grid import pairs_grid
from twodmse.objectives import losses
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import Cell, Plan, Recipe
from twodmse.training import trainer
from twodmse.training.runs import train_encoder


def mean_pooled(hidden, batch):
    mask = batch["attention_mask"].unsqueeze(-1)
    return ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).numpy()


def less_known(architecture):
    """A random encoder of an architecture that keeps its layers, or what comes before them, in its own way."""
    torch.manual_seed(0)
    sizes = SHAPE | {"num_hidden_layers": LAYERS, "max_position_embeddings": 64}
    if architecture == "electra":
        model = ElectraModel(ElectraConfig(**sizes, embedding_size=16))  # embeddings narrower than the layers
    elif architecture == "albert":
        model = AlbertModel(AlbertConfig(**sizes, embedding_size=16))
    else:
        relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
        model = DebertaV2Model(DebertaV2Config(**sizes, **relative, norm_rel_ebd="layer_norm", share_att_key=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("architecture", ["roberta", "mpnet", "distilbert", "modernbert"])
def test_trap_1_hidden_states_start_with_the_embedding_output(architecture, texts):
    encoder = tiny_encoder(architecture)
    batch = encoder.tokenise(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder.backbone.model(**batch, output_hidden_states=True).hidden_states
    states = encoder.states(texts)
    assert len(hidden) == len(states) == LAYERS + 1
    if architecture == "modernbert":  # the states of a pre-norm model have had its final norm, here also state 0
        norm = encoder.backbone.model.final_norm
        with torch.inference_mode():
            hidden = [*(norm(h) for h in hidden[:-1]), hidden[-1]]
    for n, layer in enumerate(hidden):
        np.testing.assert_allclose(states[n], mean_pooled(layer, batch), atol=1e-5)


@pytest.mark.parametrize("architecture", ["electra", "deberta-v2"])
def test_trap_3_layers_are_found_in_other_architectures(architecture, texts, tmp_path):
    encoder = Encoder(less_known(architecture), tiny_tokenizer(), Layout("mean", 32))
    batch = encoder.tokenise(texts, padding=True, return_tensors="pt")
    states = encoder.states(texts)
    for n in range(1, LAYERS + 1):
        with torch.inference_mode():
            alone = copy.deepcopy(cut(encoder.backbone.model, n))(**batch).last_hidden_state
        np.testing.assert_allclose(states[n], mean_pooled(alone, batch), atol=1e-5)
    loaded = Encoder.load(encoder.submodel(2, 8).save(tmp_path / "small"))
    np.testing.assert_allclose(loaded.encode(texts), encoder.encode(texts, 2, 8), atol=1e-6)


def test_trap_3_one_block_used_for_every_layer_is_a_layer_each_time(texts, tmp_path):
    encoder = Encoder(less_known("albert"), tiny_tokenizer(), Layout("mean", 32))
    batch = encoder.tokenise(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder.backbone.model(**batch, output_hidden_states=True).hidden_states
    states = encoder.states(texts)
    assert len(hidden) == len(states) == LAYERS + 1
    for n in range(1, LAYERS + 1):
        np.testing.assert_allclose(states[n], mean_pooled(hidden[n], batch), atol=1e-5)
    loaded = Encoder.load(encoder.submodel(2, 8).save(tmp_path / "small"))
    np.testing.assert_allclose(loaded.encode(texts), encoder.encode(texts, 2, 8), atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "key"), [("bert", "num_hidden_layers"), ("distilbert", "n_layers"), ("modernbert", "layer_types")]
)
def test_trap_4_the_saved_config_counts_the_layers_that_are_left(architecture, key, tmp_path):
    folder = tiny_encoder(architecture).submodel(layer=3).save(tmp_path / "small")
    value = json.loads((folder / "config.json").read_text())[key]
    assert (len(value) if isinstance(value, list) else value) == 3
    _, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    invented = [name for name in report["missing_keys"] if not name.startswith("pooler.")]
    assert (invented, list(report["unexpected_keys"])) == ([], [])


def test_trap_9_cls_at_state_0_knows_nothing_of_the_text(texts):
    encoder = tiny_encoder(pooling="cls")
    states = encoder.states(texts)
    np.testing.assert_allclose(states[0], np.broadcast_to(states[0, :1], states[0].shape), atol=1e-6)
    assert states[1].std(axis=0).max() > 0.01
    assert tiny_encoder().states(texts)[0].std(axis=0).max() > 0.01  # mean pooling sees the words

    # Recipes that train layer 0 learn nothing there, and are not spoilt: every candidate scores the same, ln 4.
    inside = torch.tensor(states[:, :6], requires_grad=True)
    value = objective(inside, Plan([Cell(0, 8, 1.0, "x")], [], {}), BaseLoss(), 3)["x"]
    assert value.item() == pytest.approx(math.log(4), abs=1e-5)
    for recipe in (Recipe("ese", LAYERS, 32, compress_dim=8), Recipe("st2d", LAYERS, 32)):
        plan = next(p for p in map(recipe.plan, range(50)) if any(cell.layer == 0 for cell in p.cells))
        sum(objective(inside, plan, BaseLoss(), 3).values()).backward()
    assert torch.isfinite(inside.grad).all()


def test_trap_11_spearman_is_of_all_pairs_pooled_not_a_mean_over_parts(encoder):
    first, second = sentences(60, seed=3)[:30], sentences(60, seed=3)[30:]
    left, right = (normalise(encoder.states(column)[LAYERS]) for column in (first, second))
    cosines = (left * right).sum(axis=1)
    order = np.argsort(cosines)
    gold = np.empty(30)
    gold[order[:15]] = np.arange(15) + 100  # follows the cosine within each half, not across them
    gold[order[15:]] = np.arange(15)
    parts = [100 * spearmanr(cosines[half], gold[half]).statistic for half in (order[:15], order[15:])]
    assert parts == pytest.approx([100, 100])
    grid = pairs_grid(encoder, TextSet("two halves", (tuple(first), tuple(second)), gold), [32], [LAYERS], resamples=0)
    # ranks 16..30 then 1..15: the 30 differences are 15 each, so rho = 1 - 6 * 30 * 15^2 / (30 * (30^2 - 1))
    assert grid["spearman"].item() == pytest.approx(100 * (1 - 6 * 225 / 899), abs=1e-6)


@pytest.mark.hub
@pytest.mark.skipif(not SERVER.is_file(), reason="the hub's data and server are not beside this checkout")
def test_trap_11_the_test_sets_have_the_published_numbers_of_pairs(hub, tmp_path):  # noqa: F811
    code = (
        "from twodmse.data.sets import STS_TASKS, load_pairs\n"
        "print([len(load_pairs(name)) for name in (*STS_TASKS, 'sickr-test')])\n"
        "parts = load_pairs('sickr'), load_pairs('sickr-test')\n"
        "assert [c[5000:] for c in parts[0].columns] == [*parts[1].columns]"
    )
    done = subprocess.run([sys.executable, "-c", code], env=hub, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[3108, 1500, 3750, 3000, 1186, 1379, 9927, 4927]", done.stderr


@pytest.mark.parametrize("cache_chunk", [0, 8])
def test_trap_13_losses_run_in_float32_under_bfloat16(cache_chunk, triplets, tmp_path, monkeypatch):
    real, seen = trainer.objective, []

    def watched(states, *rest):
        seen.append((states.dtype, torch.is_autocast_enabled("cpu")))
        return real(states, *rest)

    monkeypatch.setattr(trainer, "objective", watched)
    settings = {"recipe": "full", "loss": "mix", "precision": "bf16", "steps": 1, "batch_size": 8}
    config = TrainConfig(**settings, cache_chunk=cache_chunk, out=str(tmp_path / "run"))
    layers = []
    encoder = tiny_encoder()
    encoder.backbone.layers[0].register_forward_hook(lambda *_: layers.append(torch.is_autocast_enabled("cpu")))
    run = train_encoder(encoder, triplets, config)
    assert seen == [(torch.float32, False)]
    assert all(layers)  # the encoder itself did run in bfloat16
    assert np.isfinite(run.history["loss"]).all()


@pytest.mark.parametrize("d", [8, 3, 2, 1])
def test_trap_14_the_angle_term_of_a_narrow_cut_has_few_complex_coordinates(d):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 32))
    pad = [(0, 0), (0, d % 2)]
    half = (d + 1) // 2  # 4 complex coordinates at d = 8: coordinate i is paired with i + 4, not with i + 16
    z, w = ((v := np.pad(part[:, :d], pad))[:, :half] + 1j * v[:, half:] for part in (x, y))
    quotient = (z * w.conj()).sum(axis=1) / (np.linalg.norm(z, axis=1) * np.linalg.norm(w, axis=1))
    left, right = torch.tensor(x, requires_grad=True), torch.tensor(y)
    ours = losses.angle_scores(left[:, :d], right[:, :d])
    assert_close(ours, torch.tensor(abs(quotient.real + quotient.imag)), atol=1e-12, rtol=0)
    gold = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5], dtype=torch.float64)
    value = BaseLoss(contrastive=0.0, angle=1.0)([left, right], gold, [d, 32])[0]
    assert_close(value, losses.angle(left[:, :d], right[:, :d], gold, 20.0))
    value.backward()
    assert torch.isfinite(left.grad).all()
    assert (left.grad[:, d:] == 0).all()
