"""The table of architectures: small random models of many kinds load and are read rightly, or are refused by name."""

import numpy as np
import pytest
import torch
from conftest import sentences, tiny_tokenizer
from transformers import AutoConfig, AutoModel, MT5EncoderModel, T5EncoderModel, UMT5EncoderModel

from twodmse import Encoder, TrainConfig
from twodmse.export.exporting import export
from twodmse.training.ordering import reorder
from twodmse.training.runs import train_encoder

pytestmark = pytest.mark.slow

TOKENS = {"vocab_size": 40, "pad_token_id": 0}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3}
BASE = TOKENS | {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 64,
}  # fmt: skip
DECODER = BASE | SPECIAL | {"num_key_value_heads": 2}
NARROW = BASE | {"embedding_size": 16}
T5 = TOKENS | {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 3, "num_heads": 4}
DEBERTA = BASE | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
GPT = TOKENS | SPECIAL | {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
LOADED = {
    "bert": BASE, "roberta": BASE, "xlm-roberta": BASE, "camembert": BASE, "mpnet": BASE, "ernie": BASE,
    "data2vec-text": BASE, "roberta-prelayernorm": BASE, "megatron-bert": BASE, "roformer": BASE, "nomic_bert": BASE,
    "distilbert": TOKENS | {"dim": 48, "hidden_dim": 96, "n_heads": 4, "n_layers": 3, "max_position_embeddings": 64},
    "modernbert": BASE | SPECIAL | {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 8},
    "electra": NARROW, "albert": NARROW, "rembert": BASE | {"input_embedding_size": 16},
    "deberta": DEBERTA, "deberta-v2": DEBERTA | {"position_buckets": 16, "share_att_key": True},
    "t5": T5, "mt5": T5, "umt5": T5,
    "longformer": BASE | {"attention_window": [16] * 3},
    "esm": BASE | {"mask_token_id": 4, "position_embedding_type": "rotary"},
    "eurobert": DECODER, "llama": DECODER, "mistral": DECODER, "phi3": DECODER, "qwen3": DECODER | {"head_dim": 12},
    "gemma": DECODER | {"head_dim": 12}, "gemma2": DECODER | {"head_dim": 12},
    "gemma3_text": DECODER | {"head_dim": 12},
    "phi": BASE, "gpt_neox": BASE, "gpt2": GPT,
}  # fmt: skip
REFUSED = {
    "fnet": ({k: v for k, v in BASE.items() if k != "num_attention_heads"}, "does not mask padding"),
    "convbert": (BASE | {"embedding_size": 48}, "does not mask padding"),
    "bart": (TOKENS | {"d_model": 48, "encoder_layers": 3, "decoder_layers": 1}, "with a decoder"),
    "xlnet": (TOKENS | {"d_model": 48, "n_layer": 3, "n_head": 4, "d_inner": 96}, "no list of layers"),
    "canine": (BASE, "no table of word vectors"),
}
T5_ENCODERS = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}


def saved(kind, settings, folder):
    """A random model of that kind, whose layers differ, and the tokenizer over a few words."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    model = T5_ENCODERS[kind](config) if kind in T5_ENCODERS else AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", LOADED)
def test_a_kind_that_loads_is_read_cut_saved_reordered_and_trained(kind, tmp_path, triplets):
    encoder = Encoder.load(saved(kind, LOADED[kind], tmp_path / "model"))
    texts = sentences(6)
    states = encoder.states(texts)
    alone = np.stack([encoder.states(text) for text in texts], axis=1)
    np.testing.assert_allclose(states, alone, atol=1e-3)
    assert encoder.num_layers == 3
    for n in (1, 2, 3):
        small = Encoder.load(encoder.submodel(n, 20).save(tmp_path / f"cut-{n}"))
        assert small.num_layers == n
        np.testing.assert_allclose(small.encode(texts), encoder.encode(texts, n, 20), atol=1e-4)
    order = np.random.default_rng(0).permutation(encoder.dim)
    reorder(encoder.backbone, order)
    np.testing.assert_allclose(encoder.states(texts), states[..., order], atol=1e-3)
    settings = {"steps": 1, "batch_size": 8, "precision": "fp32", "log_every": 1, "dropout": 0.0}
    run = train_encoder(encoder, triplets, TrainConfig(recipe="mrl", out=str(tmp_path / "run"), **settings))
    assert np.isfinite(run.history["loss"]).all()
    assert not np.allclose(run.encoder.states(texts), states[..., order], atol=1e-7)


@pytest.mark.parametrize("kind", LOADED)
def test_a_kind_that_loads_is_exported_and_trained_by_the_preset_grid(kind, tmp_path, triplets):
    from sentence_transformers import SentenceTransformer

    folder = saved(kind, LOADED[kind], tmp_path / "model")
    encoder, texts = Encoder.load(folder), sentences(6)
    export(encoder, tmp_path / "cell", 2, 20)
    peer = SentenceTransformer(str(tmp_path / "cell"), device="cpu")
    np.testing.assert_allclose(peer.encode(texts), encoder.encode(texts, 2, 20), atol=1e-4)
    settings = {"steps": 2, "batch_size": 8, "precision": "fp32", "teacher": str(folder), "out": str(tmp_path / "run")}
    run = train_encoder(encoder, triplets, TrainConfig.preset("grid", **settings))
    assert np.isfinite(run.history["loss"]).all()
    assert len(run.history) == 2


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_that_cannot_be_read_rightly_is_refused(kind, tmp_path):
    settings, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        Encoder.load(saved(kind, settings, tmp_path / "model"))
