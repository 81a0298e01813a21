"""What a model folder says: each setting changes the vectors as it does in sentence-transformers, or is refused."""

import json

import numpy as np
import pytest
import torch
from conftest import DIM, LAYERS, VOCAB, sentences, tiny_encoder, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, T5Config, T5EncoderModel

from twodmse import Encoder, sts_grid
from twodmse.efficiency.costs import layer_costs
from twodmse.encoder import hub
from twodmse.encoder.storage import Layout
from twodmse.evaluation.cascade import Cascade
from twodmse.evaluation.grid import check_grid
from twodmse.export.exporting import export

LONG = " ".join(["dog cat"] * 60)
ST = "sentence_transformers.models."


@pytest.fixture
def folder(tmp_path):
    return tiny_encoder().save(tmp_path / "model")


def change(path, **settings):
    """Change settings of a JSON file; an ellipsis takes one away."""
    old = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({k: v for k, v in (old | settings).items() if v is not ...}))


def set_length(folder, **settings):
    (folder / "twodmse.json").unlink(missing_ok=True)
    change(folder / "sentence_bert_config.json", **settings)


@pytest.mark.parametrize(("said", "tokens"), [(20, 20), (64, 64), (500, 64), (None, 48), (..., 48)])
def test_the_length_is_what_the_folder_says_else_the_tokenizer_never_past_the_positions(folder, said, tokens):
    set_length(folder, max_seq_length=said)
    change(folder / "tokenizer_config.json", model_max_length=48)
    loaded = Encoder.load(folder)
    assert loaded.layout.max_length == tokens
    np.testing.assert_allclose(loaded.encode(LONG), loaded.encode(" ".join(LONG.split()[: tokens - 2])), atol=1e-6)


@pytest.mark.parametrize(("asked", "said"), [(64, 0), (65, 1)])
def test_a_length_past_the_positions_is_said_to_be_cut(folder, caplog, asked, said):
    assert Encoder.load(folder, max_length=asked).max_length == 64
    assert caplog.text.count("the model has positions for 64 tokens") == said


def test_the_length_is_found_under_older_names_and_written_wherever_it_is_looked_for(folder, tmp_path):
    (folder / "twodmse.json").unlink()
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    change(folder / "sentence_roberta_config.json", max_seq_length=11)
    again = Encoder.load(folder).submodel(2, 8).save(tmp_path / "again")
    assert json.loads((again / "tokenizer_config.json").read_text())["model_max_length"] == 11
    assert json.loads((again / "sentence_bert_config.json").read_text())["max_seq_length"] == 11


@pytest.mark.parametrize(("length", "message"), [(2, "tokens stand around"), (0, "maximal length is 0")])
def test_a_length_without_room_for_a_text_is_refused(folder, length, message):
    with pytest.raises(ValueError, match=message):
        Encoder.load(folder, max_length=length)


def test_no_length_anywhere_is_refused_not_guessed():
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = int(1e30)
    assert Encoder(tiny_model("roberta"), tokenizer).layout.max_length == 63  # 64 rows, the padding's not counted
    with pytest.raises(ValueError, match="neither the tokenizer nor the model says"):
        Encoder(
            T5EncoderModel(T5Config(vocab_size=VOCAB, d_model=DIM, d_kv=8, d_ff=48, num_layers=2, num_heads=4)),
            tokenizer,
        )


def test_a_default_prompt_stands_before_every_text_and_is_carried_on(folder, tmp_path, texts):
    plain = Encoder.load(folder).encode
    prompts = {"query": "a small dog", "document": ""}
    change(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="query")
    loaded = Encoder.load(folder)
    expected = plain(["a small dog" + text for text in texts])
    for one in (loaded, Encoder.load(loaded.submodel().save(tmp_path / "again"))):
        np.testing.assert_allclose(one.encode(texts), expected, atol=1e-6)
        np.testing.assert_allclose(one.encode(texts, prompt=""), plain(texts), atol=1e-6)
        np.testing.assert_allclose(one.encode(texts, prompt_name="query"), expected, atol=1e-6)
        assert (
            one.tokenise(texts)["input_ids"] == one.tokenise(["a small dog" + text for text in texts], "")["input_ids"]
        )
    with pytest.raises(ValueError, match="no prompt 'passage'; those it has: query, document"):
        loaded.encode(texts, prompt_name="passage")
    np.testing.assert_allclose(loaded.encode(texts, prompt_name="document"), plain(texts), atol=1e-6)
    with pytest.raises(ValueError, match="not both"):
        loaded.encode(texts, prompt="a", prompt_name="query")
    change(folder / "config_sentence_transformers.json", default_prompt_name="other")
    with pytest.raises(ValueError, match="default_prompt_name"):
        Encoder.load(folder)


def test_an_empty_default_prompt_is_none(folder, texts):
    plain = Encoder.load(folder).encode(texts)
    change(folder / "config_sentence_transformers.json", prompts={"document": ""}, default_prompt_name="document")
    assert Encoder.load(folder).layout.default_prompt_name is None
    np.testing.assert_allclose(Encoder.load(folder).encode(texts), plain, atol=1e-6)


def test_a_model_that_would_add_token_types_to_its_words_is_refused(tmp_path):
    config = AutoConfig.for_model("gpt2", vocab_size=VOCAB, n_embd=DIM, n_layer=2, n_head=4, n_positions=48)
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    Encoder(AutoModel.from_config(config), tokenizer, Layout("mean", 32)).save(tmp_path / "model")
    Encoder.load(tmp_path / "model")
    change(tmp_path / "model" / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids"])
    with pytest.raises(ValueError, match="GPT2Model gives other vectors with the token_type_ids of its tokenizer"):
        Encoder.load(tmp_path / "model")


def test_a_prompt_that_is_not_included_is_read_but_not_pooled(folder, tmp_path):
    change(folder / "1_Pooling" / "config.json", include_prompt=False)
    loaded = Encoder.load(Encoder.load(folder).save(tmp_path / "again"))
    texts = ["dog runs", "cat in the house"]
    found = loaded.states(texts, prompt="a red ")
    for i, text in enumerate(texts):
        batch = loaded.tokenise(["a red " + text], return_tensors="pt")
        with torch.inference_mode():
            hidden = loaded.backbone.model(**batch).last_hidden_state[0, 3:].mean(dim=0)  # [CLS] a red
        np.testing.assert_allclose(found[-1, i], hidden.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match=r"no token of '.*' is left to pool after the prompt"):
        loaded.encode(texts, prompt="a red " * 100)


def test_lower_casing_is_applied_and_carried_on(folder, tmp_path):
    upper, lower = ["THE Dog RUNS", "a Red CAT"], ["the dog runs", "a red cat"]
    expected = Encoder.load(folder).encode(lower)
    change(folder / "sentence_bert_config.json", do_lower_case=True)
    loaded = Encoder.load(folder)
    again = loaded.save(tmp_path / "again")
    assert json.loads((again / "sentence_bert_config.json").read_text())["do_lower_case"] is True
    for one in (loaded, Encoder.load(again)):
        np.testing.assert_allclose(one.encode(upper), expected, atol=1e-6)


def test_truncate_dim_is_the_width(folder, tmp_path, texts):
    (folder / "twodmse.json").unlink()
    expected = Encoder.load(folder).encode(texts, dim=12)
    change(folder / "config_sentence_transformers.json", truncate_dim=12)
    loaded = Encoder.load(folder)
    np.testing.assert_allclose(loaded.encode(texts), expected, atol=1e-6)
    assert Encoder.load(loaded.save(tmp_path / "again")).dim == 12


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": ["cls", "mean"]}, None),
        ({"pooling_mode": "weightedmean"}, None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
    ],
)
def test_poolings_of_all_versions(folder, settings, pooling):
    (folder / "twodmse.json").unlink()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": DIM} | settings))
    if pooling:
        assert Encoder.load(folder).layout.pooling == pooling
    else:
        with pytest.raises(ValueError, match="twodmse pools by one of mean, cls, lasttoken"):
            Encoder.load(folder)


def test_weights_in_a_sub_folder(folder, texts):
    expected = Encoder.load(folder).encode(texts)
    inside = folder / "0_Transformer"
    inside.mkdir()
    for file in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ):
        (folder / file).rename(inside / file)
    listing = json.loads((folder / "modules.json").read_text())
    listing[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(listing))
    np.testing.assert_allclose(Encoder.load(folder).encode(texts), expected, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_module_after_the_pooling_is_applied_and_carried_on(folder, tmp_path, texts, bias):
    plain = Encoder.load(folder).states(texts)
    weight, shift = torch.randn(20, DIM), torch.randn(20) * bias
    listing = json.loads((folder / "modules.json").read_text())
    listing.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": ST + "Dense"})
    (folder / "modules.json").write_text(json.dumps(listing))
    (folder / "2_Dense").mkdir()
    (folder / "twodmse.json").unlink()
    tensors = {"linear.weight": weight} | ({"linear.bias": shift} if bias else {})
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    settings = {"in_features": DIM, "out_features": 20, "bias": bias}
    change(folder / "2_Dense" / "config.json", **settings, activation_function="torch.nn.modules.linear.Identity")
    expected = plain @ weight.numpy().T + shift.numpy()
    loaded = Encoder.load(folder)
    assert loaded.dim == 20
    np.testing.assert_allclose(loaded.states(texts), expected, atol=1e-4)
    small = Encoder.load(loaded.submodel(2, 7).save(tmp_path / "small"))
    assert (small.num_layers, small.dim) == (2, 7)
    np.testing.assert_allclose(small.states(texts), expected[:3, :, :7], atol=1e-4)
    change(folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    with pytest.raises(ValueError, match="activation_function"):
        Encoder.load(folder)


@pytest.mark.parametrize(
    ("file", "settings", "named"),
    [
        ("sentence_bert_config.json", {"max_seq_length": "128"}, "max_seq_length"),
        ("sentence_bert_config.json", {"max_seq_length": -3}, "max_seq_length"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 9}}}, "processing_kwargs"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
        ("sentence_bert_config.json", {"model_args": {"rope_theta": 3}}, "model_args"),
        ("sentence_bert_config.json", {"a_new_one": 1}, "a_new_one"),
        ("1_Pooling/config.json", {"a_new_one": "x"}, "a_new_one"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "prompts"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim"),
        ("config_sentence_transformers.json", {"rescale": 2}, "rescale"),
        ("twodmse.json", {"max_length": 128.5}, "max_length"),
        ("twodmse.json", {"pooling": ...}, "pooling"),
        ("twodmse.json", {"max_length": 7}, "twodmse.json"),  # not what the files beside it say
        ("config.json", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("config.json", {"is_encoder_decoder": True}, "with a decoder"),
        ("config.json", {"max_position_embeddings": 32}, "position_embeddings"),
        ("config.json", {"model_type": "unheard", "auto_map": {"AutoModel": "x.Y"}}, "twodmse runs none"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(folder, file, settings, named):
    change(folder / file, **settings)
    with pytest.raises(ValueError, match=named):
        Encoder.load(folder)


def test_an_infinity_in_the_models_own_config_is_taken(folder):
    change(folder / "config.json", time_step_limit=[0.0, float("inf")])  # as transformers writes Mamba's
    assert Encoder.load(folder).num_layers == LAYERS


def test_a_file_that_is_listed_and_missing_is_named(folder):
    (folder / "twodmse.json").unlink()
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"1_Pooling/config\.json cannot be read \(No such file"):
        Encoder.load(folder)


@pytest.mark.parametrize("text", ["", "null", "[1]", "{", '{"a": ' * 2000])
@pytest.mark.parametrize("file", ["twodmse.json", "modules.json", "sentence_bert_config.json", "config.json"])
def test_files_that_hold_something_else_are_named(folder, file, text):
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=file):
        Encoder.load(folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "x"}, "type and a path"),
        ({"type": ST + "Pooling"}, "type and a path"),
        ({"type": "own.Transformer", "path": "x"}, "own.Transformer.*runs none"),
        ({"type": ST + "LayerNorm", "path": "x"}, "LayerNorm"),
        ({"type": ST + "Normalize", "path": "../x"}, "inside the folder"),
        ({"type": ST + "Pooling", "path": "1_Pooling"}, "in this order"),
    ],
)
def test_modules_that_cannot_be_read_are_named(folder, entry, message):
    listing = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*listing, entry]))
    with pytest.raises(ValueError, match=message):
        Encoder.load(folder)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_a_tokenizer_that_pads_on_the_left_changes_no_vector(architecture, tmp_path, texts):
    encoder = tiny_encoder(architecture)
    expected = [encoder.encode(text) for text in texts]
    folder = encoder.save(tmp_path / "left")
    change(folder / "tokenizer_config.json", padding_side="left")
    np.testing.assert_allclose(Encoder.load(folder).encode(texts), expected, atol=1e-5)


def test_a_tokenizer_without_a_padding_token_will_do(texts):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    encoder = Encoder(tiny_model("modernbert"), tokenizer)
    np.testing.assert_allclose(encoder.encode(texts), [encoder.encode(text) for text in texts], atol=1e-5)


def test_adapters_and_missing_tokenizers_are_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapter"):
        Encoder.load(folder)
    (folder / "adapter_config.json").unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        Encoder.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder.layer.1.output.dense.weight", float("nan"), "NaN or infinite .first in encoder.layer.1"),
        ("encoder.layer.0.output.LayerNorm.bias", float("inf"), "NaN or infinite"),
        ("embeddings.word_embeddings.weight", 0.0, "zeros in its vocabulary"),
        ("encoder.layer.2.", 0.0, "zeros in its layer 3"),
    ],
)
def test_damaged_weights_are_refused(folder, key, value, message):
    weights = load_file(folder / "model.safetensors")
    weights |= {name: torch.full_like(w, value) for name, w in weights.items() if name.startswith(key)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        Encoder.load(folder)


def test_a_tokenizer_of_another_model_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:20].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change(folder / "config.json", vocab_size=20)
    with pytest.raises(ValueError, match="tokenizer is not that of this model"):
        Encoder.load(folder)


def test_a_plain_folder_says_nothing_of_pooling_and_its_tokenizer_the_length(tmp_path, texts):
    for part in (tiny_model("bert"), tiny_tokenizer()):
        part.save_pretrained(tmp_path)
    assert Encoder.load(tmp_path).layout == Layout("mean", 48, DIM)


def test_one_text_gives_one_vector_and_layers_can_be_chosen(texts):
    encoder = tiny_encoder()
    states = encoder.states(texts)
    np.testing.assert_allclose(encoder.encode(texts[0], 2, 5), encoder.encode(texts, 2, 5)[0], atol=1e-6)
    np.testing.assert_allclose(encoder.states(texts[0]), states[:, 0], atol=1e-5)
    np.testing.assert_allclose(encoder.states((t for t in texts), layers=[3, 0, 3]), states[[3, 0, 3]], atol=1e-5)
    repeated = [*texts, *texts[::-1], texts[3]]
    np.testing.assert_allclose(encoder.states(repeated, batch_size=3)[4, -1], states[4, 3], atol=1e-5)
    for size in (-1, 0, 1.5, True):
        with pytest.raises(ValueError, match="batch_size"):
            encoder.encode(texts, batch_size=size)
    with pytest.raises(ValueError, match=r"layer 5 is out of range: this encoder has layers 0..4"):
        encoder.states(texts, layers=[5])
    assert repr(encoder) == "Encoder(BertModel: 4 layers x 32 dims, mean pooling, 32 tokens, cpu)"


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_vectors_of_any_size_have_length_1(scale, texts):
    encoder = tiny_encoder()
    norm = encoder.backbone.layers[-1].output.LayerNorm
    with torch.no_grad():
        norm.weight.mul_(scale)
        norm.bias.mul_(scale)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(texts), axis=1), 1, atol=1e-5)
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()
    with pytest.raises(ValueError, match=r"texts\[\d\] at layer 4, dim 32 is zero"):
        encoder.encode(texts)
    encoder.backbone.train()
    with torch.no_grad():
        norm.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        encoder.states(texts)
    assert encoder.backbone.training  # given back after an error too


class Answer:
    """What the hub sends back."""

    def __init__(self, status):
        self.status_code, self.headers, self.request = status, {}, None


def test_ways_that_a_download_fails_are_told_apart(monkeypatch):
    from huggingface_hub import errors

    def told(error, name="me/model"):
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(error))
        with pytest.raises(FileNotFoundError) as caught:
            hub.resolve(name)
        return str(caught.value)

    assert "is gated: ask for access" in told(errors.GatedRepoError("x", response=Answer(403)))
    assert "no model 'me/model' that you may read" in told(errors.RepositoryNotFoundError("x", response=Answer(404)))
    assert "no revision 'v9'" in told(errors.RevisionNotFoundError("x", response=Answer(404)), "me/model@v9")
    assert "fewer requests" in told(errors.HfHubHTTPError("x", response=Answer(429)))
    assert "answered 503" in told(errors.HfHubHTTPError("x", response=Answer(503)))
    assert "the hub does not answer" in told(errors.LocalEntryNotFoundError("x"))
    assert "no hub id is written so" in told(errors.HFValidationError("x"), "me/a b")
    assert "make room" in told(OSError(28, "No space left on device"))


def test_a_part_of_a_hub_model_in_the_cache_is_not_taken_for_all_of_it(tmp_path, monkeypatch):
    encoder = tiny_encoder(pooling="cls")
    commit = "0" * 40
    snapshot = tmp_path / "models--me--cls" / "snapshots" / commit
    encoder.save(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    whole = Encoder.load("me/cls")
    assert whole.layout.pooling == "cls"
    (snapshot / "modules.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"a part of it, without modules.json"):
        Encoder.load("me/cls")


def test_accelerators_are_found_and_computed_on_in_half_precision(monkeypatch, folder):
    from twodmse.encoder import reading

    seen = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(Encoder, "to", lambda self, device=None, dtype=None: seen.append((device, dtype)) or self)
    encoder = Encoder.load(folder)
    assert seen == [(torch.device("cuda"), None)]
    monkeypatch.setattr(Encoder, "device", torch.device("cuda"))
    assert isinstance(reading._precision(encoder), torch.autocast)
    encoder.dtype = torch.float32
    assert not isinstance(reading._precision(encoder), torch.autocast)


def test_dtype_and_sentences_of_half_precision(folder, texts):
    half = Encoder.load(folder, device="cpu", dtype=torch.bfloat16)
    assert next(half.backbone.parameters()).dtype is torch.bfloat16
    np.testing.assert_allclose(half.encode(texts), Encoder.load(folder).encode(texts), atol=0.05)
    assert half.encode(sentences(3)).dtype == np.float32
    assert half.num_layers == LAYERS


def test_a_model_of_ours_saved_again_by_sentence_transformers_keeps_length_prompts_and_cut(tmp_path):
    from sentence_transformers import SentenceTransformer

    layout = Layout("mean", 12, 8, {"query": "red dog ", "passage": "big cat "}, "query")
    ours = Encoder(tiny_model("bert"), tiny_tokenizer(), layout)
    folder = ours.save(tmp_path / "ours")
    SentenceTransformer(str(folder), device="cpu").save(str(tmp_path / "theirs"))
    again = Encoder.load(tmp_path / "theirs")
    assert (again.max_length, again.dim, again.num_layers) == (12, 8, 4)
    assert {name: text for name, text in again.layout.prompts.items() if text} == dict(layout.prompts)
    assert again.layout.default_prompt_name == "query"
    texts = ["a man eats", "two red cat not small " * 9]
    for options in ({}, {"prompt_name": "passage"}, {"prompt": ""}):
        np.testing.assert_allclose(again.encode(texts, **options), ours.encode(texts, **options), atol=1e-5)


@pytest.mark.parametrize("layers", [3, "3", 2.5, np.int64(2)])
def test_one_number_where_several_are_due_is_refused(layers):
    with pytest.raises(ValueError, match=r"layers is .*: give a list of integers"):
        tiny_encoder().states(["a man"], layers=layers)
    with pytest.raises(ValueError, match=r"dims is .*: give a list of integers"):
        check_grid(tiny_encoder(), None, layers)


def test_numpys_numbers_are_numbers():
    encoder = tiny_encoder()
    np.testing.assert_array_equal(
        encoder.states(["a man"], layers=np.arange(3)), encoder.states(["a man"], layers=[0, 1, 2])
    )
    assert check_grid(encoder, np.arange(3), np.array([8, 16])) == ([0, 1, 2], [8, 16])


@pytest.mark.parametrize("dtype", [torch.int64, "float16", np.float32])
def test_a_dtype_that_weights_cannot_have_is_refused(dtype, tmp_path):
    with pytest.raises(ValueError, match=r"dtype is .*: give one of torch.float32"):
        tiny_encoder().to(dtype=dtype)
    with pytest.raises(ValueError, match=r"dtype is .*: give one of torch.float32"):
        Encoder.load(tmp_path, dtype=dtype)


@pytest.mark.parametrize("device", ["foo", "hpu", 1.5])
def test_a_device_that_torch_cannot_use_is_refused(device, tmp_path):
    with pytest.raises(ValueError, match=rf"torch cannot use the device {device!r} here: this machine has \w+"):
        tiny_encoder().to(device)
    with pytest.raises(ValueError, match=r"torch cannot use the device"):
        Encoder.load(tmp_path, device=device)  # before it looks at the folder


@pytest.mark.parametrize(
    "use",
    [
        sts_grid,
        layer_costs,
        lambda encoder: Cascade(encoder, ["a"], (1, 2)),
        lambda encoder: export(encoder, "never written"),
    ],
)
def test_a_models_name_in_the_place_of_an_encoder_is_refused(use):
    with pytest.raises(ValueError, match=r"the encoder is 'bundled': give an Encoder, such as Encoder.load gives"):
        use("bundled")
