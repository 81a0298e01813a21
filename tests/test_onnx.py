"""The ONNX file of all layers, and the files that lie beside an ONNX file."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import DIM, LAYERS, SHAPE, sentences, tiny_tokenizer
from test_exporting import LONG, code_blocks, onnx_vectors, tiny_encoder
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Gemma3TextConfig, Gemma3TextModel

from twodmse.encoder.encoder import Encoder
from twodmse.encoder.storage import Layout
from twodmse.export import cards
from twodmse.export import onnx as exporting_onnx
from twodmse.export.exporting import export


def test_the_file_of_all_layers_gives_the_states(architecture, tmp_path):
    encoder = tiny_encoder(architecture)
    done = export(encoder, tmp_path / "all", format="onnx", all_layers=True)
    assert done.difference < 1e-5
    for texts in (["a dog"], sentences(9), [LONG, "a", "the red cat"]):
        expected = encoder.states(texts)
        assert expected.shape == (LAYERS + 1, len(texts), DIM)
        np.testing.assert_allclose(onnx_vectors(tmp_path / "all", texts, output="states"), expected, atol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "all" / "onnx" / "model.onnx")
    assert [i.name for i in session.get_inputs()] == ["input_ids", "attention_mask"]
    (output,) = session.get_outputs()
    assert (output.name, output.shape[0], output.shape[2]) == ("states", LAYERS + 1, DIM)
    assert isinstance(output.shape[1], str), "the size of a batch is fixed"
    assert not (tmp_path / "all" / "modules.json").exists(), "no reader of vectors may take the states for them"


def test_the_file_of_all_layers_up_to_a_cell_and_in_8_bits(encoder, tmp_path):
    done = export(encoder, tmp_path / "all", 2, 8, "onnx", int8=True, all_layers=True)
    texts = [*sentences(5), LONG]
    expected = encoder.states(texts)[:3, :, :8]
    np.testing.assert_allclose(onnx_vectors(tmp_path / "all", texts, output="states"), expected, atol=1e-4)
    assert done.cosines.shape[0] == 3
    assert 0.9 < done.cosines.min() < 0.99999
    small = onnx_vectors(tmp_path / "all", texts, "model_quantized.onnx", "states")
    lengths = np.linalg.norm(small, axis=-1) * np.linalg.norm(expected, axis=-1)
    assert ((small * expected).sum(-1) / lengths).min() > 0.9
    card = (tmp_path / "all" / "README.md").read_text()
    assert "each of the first 2 of 4 layers" in card
    assert f"on {done.cosines.shape[1]} sentences" in card
    assert "$" not in card


def test_the_code_on_the_card_of_all_layers_runs(encoder, tmp_path, monkeypatch):
    export(encoder, tmp_path / "all", 3, 16, "onnx", all_layers=True)
    (block,) = code_blocks(tmp_path / "all")
    monkeypatch.chdir(tmp_path / "all")
    names = {}
    exec(block, names)
    np.testing.assert_allclose(names["vectors"], encoder.encode(list(cards.EXAMPLES), 3, 16), atol=1e-5)


def test_states_that_differ_are_refused_and_leave_nothing(encoder, tmp_path, monkeypatch):
    def wrong(folder, texts, *args, **kwargs):
        states = encoder.states(texts)
        states[0, 3, 5] += 1e-3 * np.linalg.norm(states[0, 3])
        return states

    monkeypatch.setattr(exporting_onnx, "onnx_states", wrong)
    with pytest.raises(ValueError, match=r"differ by 1\.0e-03, above 1e-04"):
        export(encoder, tmp_path / "all", format="onnx", all_layers=True)
    assert list(tmp_path.iterdir()) == []


def test_all_layers_are_for_onnx(encoder, tmp_path):
    with pytest.raises(ValueError, match="need the format onnx"):
        export(encoder, tmp_path / "all", all_layers=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("all_layers", [False, True])
def test_every_file_names_one_length(encoder, tmp_path, all_layers):
    encoder.tokenizer.init_kwargs["max_length"] = 40  # as tokenizers of the hub have it, from their last call
    export(encoder, tmp_path / "cell", 2, 8, "onnx", all_layers=all_layers)

    def read(name):
        return json.loads((tmp_path / "cell" / name).read_text())

    assert encoder.layout.max_length == 32
    settings = read("tokenizer_config.json")
    assert (settings["model_max_length"], settings.get("max_length", 32)) == (32, 32)
    assert read("tokenizer.json")["truncation"]["max_length"] == 32
    assert read("config.json")["max_position_embeddings"] == 32
    assert encoder.backbone.model.config.max_position_embeddings == 64
    if not all_layers:
        assert read("sentence_bert_config.json")["max_seq_length"] == 32
        assert read("twodmse.json")["max_length"] == 32
    found = AutoTokenizer.from_pretrained(tmp_path / "cell")(LONG, truncation=True)["input_ids"]
    assert found == Tokenizer.from_file(str(tmp_path / "cell" / "tokenizer.json")).encode(LONG).ids
    assert len(found) == 32


def test_a_mask_that_the_tracer_cannot_follow_is_named(tmp_path):
    sizes = SHAPE | {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
    for both_sides in (False, True):
        config = Gemma3TextConfig(**sizes, sliding_window=8, use_bidirectional_attention=both_sides, pad_token_id=0)
        encoder = Encoder(Gemma3TextModel(config).eval(), tiny_tokenizer(), Layout("mean", 32))
        if both_sides:
            with pytest.raises(ValueError, match=r"^Gemma3TextModel cannot .* torch\.vmap.*: export safetensors$"):
                export(encoder, tmp_path / "both", 1, 8, "onnx")
        else:
            assert export(encoder, tmp_path / "causal", 1, 8, "onnx").difference < 1e-5
    assert [p.name for p in tmp_path.iterdir()] == ["causal"]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_the_card_tells_each_reader_what_it_must_know(tmp_path, pooling):
    tokenizer = tiny_tokenizer()
    encoder = Encoder(tiny_encoder("modernbert").backbone.model, tokenizer, Layout(pooling, 32))
    export(encoder, tmp_path / "cell", 2, 8, "onnx", int8=True)
    card = (tmp_path / "cell" / "README.md").read_text()
    assert "$" not in card
    assert f"PoolingType.{ {'mean': 'MEAN', 'cls': 'CLS', 'last': 'LAST_TOKEN'}[pooling] }" in card
    assert 'model_kwargs={"file_name": "onnx/model_quantized.onnx"}' in card
    assert (f'pooling: "{pooling}"' in card) == (pooling != "last")
    assert "input_ids.data[end] = 3n;" in card, "the closing token of this tokenizer is 3"
    tokenizer.truncation_side = "left"
    export(encoder, tmp_path / "left", 2, 8, "onnx")
    card = (tmp_path / "left" / "README.md").read_text()
    assert "at its end, this model at its start" in card
    assert "model_quantized" not in card
    settings = json.loads((tmp_path / "left" / "tokenizer_config.json").read_text())
    assert (settings["truncation_side"], settings["padding_side"]) == ("left", "right")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_token_vectors_pool_to_the_vectors(tmp_path, pooling):
    encoder = Encoder(tiny_encoder("modernbert").backbone.model, tiny_encoder().tokenizer, Layout(pooling, 32))
    export(encoder, tmp_path / "cell", 2, 8, "onnx")
    texts = [*sentences(5), LONG]
    tokens = torch.from_numpy(onnx_vectors(tmp_path / "cell", texts, output="last_hidden_state"))
    assert tokens.shape == (6, 32, 8)
    own = Tokenizer.from_file(str(tmp_path / "cell" / "tokenizer.json")).encode_batch(texts)
    for row, text in zip(tokens, own, strict=True):
        kept = row[np.array(text.attention_mask) == 1]
        vector = {"mean": kept.mean(0), "cls": kept[0], "last": kept[-1]}[pooling]
        vector = torch.nn.functional.normalize(vector, dim=0)
        expected = encoder.encode([texts[own.index(text)]], 2, 8)[0]
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_the_readme_names_the_versions_that_are_tried():
    root = Path(__file__).parents[1]
    table = (root / "README.md").read_text().split("## In other tools")[1].split("\n## ")[0]
    pins = (root / "tests" / "clients" / "requirements.txt").read_text() + (root / "constraints.txt").read_text()
    pins += (root / "tests" / "clients" / "package.json").read_text()
    for tool in ("sentence-transformers", "fastembed", "optimum-onnx", "faiss-cpu", "lancedb", "onnxruntime"):
        for version in re.findall(rf"^{tool}==(.*)$", pins, re.MULTILINE):
            assert f"`{version}`" in table, f"{tool} {version}"
    assert f"`{re.search(r'transformers.: .([0-9.]+)', pins)[1]}`" in table
