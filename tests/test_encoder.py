import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import DIM, LAYERS, sentences, tiny_encoder, tiny_model, tiny_tokenizer
from tokenizers import normalizers

from twodmse import Encoder
from twodmse.efficiency.costs import layer_costs
from twodmse.encoder.backbone import Backbone, cut, layer_path
from twodmse.encoder.encoder import normalise
from twodmse.encoder.reading import check_texts, is_visible
from twodmse.encoder.storage import Layout
from twodmse.evaluation.cascade import Cascade, cascade_table


def test_states_have_one_slice_a_layer_and_keep_the_order(encoder, texts):
    states = encoder.states(texts)
    assert states.shape == (LAYERS + 1, len(texts), DIM)
    assert states.dtype == np.float32
    one_by_one = np.concatenate([encoder.states([t]) for t in texts], axis=1)
    np.testing.assert_allclose(states, one_by_one, atol=1e-5)


def test_states_of_a_repeated_text_are_computed_once(encoder, texts):
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0][0]["input_ids"])))
    states = encoder.states([texts[0], texts[1], texts[0]])
    assert sum(seen) == 2
    np.testing.assert_array_equal(states[:, 0], states[:, 2])


def test_threads_that_use_one_encoder_at_once_get_their_own_vectors(encoder):
    mine = [sentences(6, seed) for seed in range(16)]
    cells = [(1 + i % LAYERS, DIM) for i in range(len(mine))]
    expected = [encoder.encode(texts, *cell) for texts, cell in zip(mine, cells, strict=True)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda texts, cell: encoder.encode(texts, *cell), mine * 4, cells * 4))
        states = list(threads.map(encoder.states, mine))
    for vectors, wanted in zip(found, expected * 4, strict=True):
        np.testing.assert_allclose(vectors, wanted, atol=1e-6)
    for vectors, texts in zip(states, mine, strict=True):
        np.testing.assert_allclose(vectors, encoder.states(texts), atol=1e-6)


def test_slice_n_equals_the_cut_model(architecture, texts):
    encoder = tiny_encoder(architecture)
    states = encoder.states(texts)
    for n in range(1, LAYERS + 1):
        alone = copy.deepcopy(cut(encoder.backbone.model, n))
        assert alone.config.num_hidden_layers == n
        batch = encoder.tokenise(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = alone(**batch).last_hidden_state  # the model's own end: final norm included where it has one
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
        np.testing.assert_allclose(states[n], pooled, atol=1e-4)
        np.testing.assert_allclose(encoder.encode(texts, layer=n), normalise(states[n]), atol=1e-4)


def test_states_equal_transformers_own_hidden_states(texts):
    encoder = tiny_encoder("bert")
    batch = encoder.tokenise(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder.backbone.model(**batch, output_hidden_states=True).hidden_states
    mask = batch["attention_mask"].unsqueeze(-1)
    expected = torch.stack([(h * mask).sum(1) / mask.sum(1) for h in hidden]).numpy()
    np.testing.assert_allclose(encoder.states(texts), expected, atol=1e-5)


def test_encoding_leaves_the_mode_of_the_model_alone(encoder, texts):
    for training in (False, True):
        encoder.backbone.train(training)
        first, second = encoder.encode(texts), encoder.encode(texts, layer=2)
        assert encoder.backbone.model.training is training
        np.testing.assert_array_equal(encoder.encode(texts), first)  # dropout is off while encoding
        np.testing.assert_array_equal(encoder.encode(texts, layer=2), second)


def test_encoding_leaves_the_mode_of_each_module_alone(encoder, texts):
    modules = list(encoder.backbone.modules())
    encoder.backbone.train()
    encoder.backbone.layers[0].eval()  # held so by somebody who trains the others
    modes = [module.training for module in modules]
    assert len(set(modes)) == 2
    for layer in (1, None):
        encoder.encode(texts, layer)
        assert [module.training for module in modules] == modes


def test_encode_runs_only_the_layers_it_needs(encoder, texts):
    ran = []
    for number, layer in enumerate(encoder.backbone.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    encoder.encode(texts, layer=2)
    assert set(ran) == {1, 2}


def test_encode_cuts_then_normalises(encoder, texts):
    vectors = encoder.encode(texts, layer=3, dim=5)
    assert vectors.shape == (len(texts), 5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, normalise(encoder.states(texts)[3][:, :5]), atol=1e-6)


def test_chunks_change_nothing(architecture, texts):
    backbone = tiny_encoder(architecture).backbone
    encoder = tiny_encoder(architecture)
    tokens = encoder.tokenise(texts)["input_ids"]
    whole = encoder.tokenizer.pad({"input_ids": tokens}, return_tensors="pt")
    parts = [encoder.tokenizer.pad({"input_ids": tokens[i : i + 2]}, return_tensors="pt") for i in range(0, 7, 2)]
    with torch.inference_mode():
        a, b = backbone([dict(whole)]), backbone([dict(p) for p in parts])
    assert a.shape == (LAYERS + 1, 7, DIM)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_saved_submodel_gives_the_same_vectors(architecture, texts, tmp_path, pooling):
    encoder = tiny_encoder(architecture, pooling=pooling)
    small = encoder.submodel(layer=2, dim=8)
    loaded = Encoder.load(small.save(tmp_path / "small"))
    assert (loaded.num_layers, loaded.dim, loaded.layout) == (2, 8, small.layout)
    assert sum(p.numel() for p in small.backbone.parameters()) < sum(p.numel() for p in encoder.backbone.parameters())
    for candidate in (small, loaded):
        np.testing.assert_allclose(candidate.encode(texts), encoder.encode(texts, layer=2, dim=8), atol=1e-5)
    assert candidate.states(texts).shape == (3, len(texts), 8)


def test_submodel_owns_its_weights(encoder, texts):
    before = encoder.encode(texts)
    small = encoder.submodel(layer=2)
    with torch.no_grad():
        for parameter in small.backbone.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(encoder.encode(texts), before)
    assert encoder.num_layers == LAYERS
    small.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a", "dog")
    np.testing.assert_array_equal(encoder.encode(texts), before)


def test_an_encoder_can_be_copied_and_sent_to_another_process(encoder, texts):
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(other.encode(texts, 2, 7), encoder.encode(texts, 2, 7))


def test_cut_shares_weights_and_leaves_the_model_whole():
    model = tiny_model("bert")
    view = cut(model, 2)
    assert view.encoder.layer[1] is model.encoder.layer[1]
    assert (len(view.encoder.layer), len(model.encoder.layer)) == (2, LAYERS)
    assert (view.config.num_hidden_layers, model.config.num_hidden_layers) == (2, LAYERS)


@pytest.mark.parametrize(
    ("layer", "dim", "word"), [(0, 4, "layer 0"), (5, 4, "layer 5"), (2, 0, "dim 0"), (2, 99, "dim 99")]
)
def test_cells_out_of_range_are_named(encoder, layer, dim, word):
    for call in (lambda: encoder.encode(["a man"], layer, dim), lambda: encoder.submodel(layer, dim)):
        with pytest.raises(ValueError, match=rf"{word} is out of range: this encoder has \w+ 1\.\."):
            call()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "empty"),
        (["a", 3], r"texts\[1\] is 3 \(int\)"),
        (["a", "  "], r"texts\[1\]"),
        (["a", "\u200b"], r"texts\[1\] is '\\u200b': a text must hold at least one character that can be seen"),
        (["a", "\u3164 \ufe0f\x00\n\u2060"], r"texts\[1\]"),
        (["a", "b\ud83d"], r"texts\[1\] .*surrogate"),
        (None, "texts is None"),
        ({"a": 1}, r"\(dict\): give a text or a list"),
        ("  ", r"texts\[0\]"),
    ],
)
def test_bad_texts_are_named(encoder, texts, message):
    with pytest.raises(ValueError, match=message):
        encoder.states(texts)


def test_whatever_can_be_seen_is_a_text():
    family, heart = "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f"
    check_texts([family, heart, "\u200b\u05d0", " \u00e9", "\u0663", "-", "\ue000", "\u200f!"])
    for text in ("", "\t\x07", "\u200d\u200d", "\ufeff", "\u00ad", "\u2800", "\U000e0100", "\U000e0041"):
        assert not is_visible(text)


def test_long_texts_are_cut_at_the_maximal_length(encoder):
    long = " ".join(["dog"] * 100)
    np.testing.assert_allclose(encoder.encode([long]), encoder.encode([long + " cat"]), atol=1e-6)


def test_save_refuses_to_overwrite_and_leaves_nothing_half_written(encoder, tmp_path, monkeypatch):
    encoder.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        encoder.save(tmp_path / "model")
    monkeypatch.setattr(encoder.tokenizer, "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        encoder.save(tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    with pytest.raises(OSError, match="disk full"):
        encoder.save(tmp_path / "model", overwrite=True)
    assert Encoder.load(tmp_path / "model").num_layers == LAYERS


def test_plain_transformers_folder_loads_mean_pooled(tmp_path, texts):
    model, tokenizer = tiny_model("roberta"), tiny_tokenizer()
    model.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    loaded = Encoder.load(tmp_path / "plain")
    assert loaded.layout.pooling == "mean"
    np.testing.assert_allclose(loaded.encode(texts), tiny_encoder("roberta").encode(texts), atol=1e-5)
    assert Encoder.load(tmp_path / "plain", pooling="cls", max_length=9).layout == Layout("cls", 9, DIM)


def test_folder_whose_layers_are_gone_is_refused(encoder, tmp_path):
    folder = encoder.submodel(layer=2).save(tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(ValueError, match="random numbers"):
        Encoder.load(folder)


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all"])
def test_unknown_model_names_are_refused(name):
    with pytest.raises(FileNotFoundError, match="give 'bundled', a folder, or a hub id"):
        Encoder.load(name)


def test_folders_that_are_no_model_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        Encoder.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        Encoder.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        Encoder.load(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="could not be loaded"):
        Encoder.load(tmp_path)


def test_models_without_a_list_of_layers_are_refused():
    with pytest.raises(ValueError, match="Linear has no list of layers"):
        layer_path(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="unknown pooling"):
        Backbone(tiny_model("bert"), "max")


def test_many_sentences_of_all_lengths_come_back_in_order(encoder):
    many = sentences(150)
    np.testing.assert_allclose(encoder.encode(many, batch_size=16), encoder.encode(many, batch_size=150), atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (pd.DataFrame({"text": ["a dog", "a cat"]}), r"texts is a table \(DataFrame\): give one of its columns"),
        (pa.table({"text": ["a dog", "a cat"]}), r"texts is a table \(Table\): give one of its columns"),
        (np.array("a dog"), "texts has 0 dimensions"),
        (np.array([["a dog", "a cat"]]), "texts has 2 dimensions"),
        ({"a dog", "a cat"}, "give a text or a list of texts"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_by_all_that_read_texts(encoder, texts, message, tmp_path):
    for read in (
        encoder.encode,
        encoder.states,
        lambda given: encoder.encode(given, out=tmp_path / "v.npy"),
        lambda given: Cascade(encoder, given, (1, 4)),
        lambda given: Cascade(encoder, ["a dog", "a cat"], (1, 4)).search(given, k=1),
        lambda given: cascade_table(encoder, given, ["a dog"], [(1, 4)], [1], k=1),
        lambda given: layer_costs(encoder, given),
    ):
        with pytest.raises(ValueError, match=message):
            read(texts)


def test_a_series_and_a_generator_are_lists_of_texts_in_a_file_too(encoder, texts, tmp_path):
    expected = encoder.encode(texts)
    series = pd.Series(texts, index=range(9, 9 + len(texts)))
    for number, given in enumerate((series, (text for text in texts))):
        written = encoder.encode(given, out=tmp_path / f"{number}.npy")
        np.testing.assert_allclose(np.load(written), expected, atol=1e-6)
