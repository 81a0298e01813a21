"""Small random models of every architecture, a tokenizer over a few words, and texts to feed them."""

import copy
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # quick tests never look at a network; hub tests set their own

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from typer.testing import CliRunner, Result

from twodmse.cli import app
from twodmse.data.sets import TextSet
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.storage import Layout

WORDS = ("a man woman dog cat plays eats sees runs the in on park house red blue big small not never two three").split()  # noqa: SIM905
LAYERS, DIM, VOCAB = 4, 32, 40
SHAPE = {"vocab_size": VOCAB, "hidden_size": DIM, "intermediate_size": 48, "num_attention_heads": 4}
CHROMIUM = {
    "executable_path": os.environ.get("CHROMIUM", "/usr/bin/chromium"),
    "args": [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
}  # fmt: skip


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a browser test where there is no browser, with that reason."""
    if item.get_closest_marker("browser") and not Path(str(CHROMIUM["executable_path"])).is_file():
        pytest.skip(f"no browser at {CHROMIUM['executable_path']}: install chromium, or set CHROMIUM")


ARCHITECTURES = ["bert", "roberta", "mpnet", "distilbert", "modernbert"]


def tiny_model(architecture: str, layers: int = LAYERS) -> torch.nn.Module:
    """A random model whose layers differ enough that a wrong slice shows."""
    torch.manual_seed(0)
    sizes = SHAPE | {"num_hidden_layers": layers, "max_position_embeddings": 64}
    if architecture == "bert":
        model = BertModel(BertConfig(**sizes))
    elif architecture == "roberta":
        model = RobertaModel(RobertaConfig(**sizes, pad_token_id=0, bos_token_id=2, eos_token_id=3))
    elif architecture == "mpnet":
        model = MPNetModel(MPNetConfig(**sizes, pad_token_id=0, bos_token_id=2, eos_token_id=3))
    elif architecture == "distilbert":
        model = DistilBertModel(
            DistilBertConfig(
                vocab_size=VOCAB, dim=DIM, hidden_dim=48, n_heads=4, n_layers=layers, max_position_embeddings=64
            )
        )
    else:
        model = ModernBertModel(
            ModernBertConfig(
                **sizes, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
                global_attn_every_n_layers=3, local_attention=8,
            )
        )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=48,
    )  # fmt: skip


def tiny_encoder(architecture: str = "bert", layers: int = LAYERS, pooling: str = "mean") -> Encoder:
    return Encoder(tiny_model(architecture, layers), tiny_tokenizer(), Layout(pooling, 32))


def settled(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """All weights but the biases of attention keys: their gradient is 0 but for rounding, which Adam blows up."""
    return torch.cat([value.flatten() for name, value in state.items() if not name.endswith("key.bias")])


def sentences(n: int, seed: int = 0) -> list[str]:
    """n different sentences of 2 to 12 known words."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[" ".join(rng.choice(WORDS, size=rng.integers(2, 13)))] = None
    return list(found)


def run_app(*args: object) -> Result:
    """The command line, in this process."""
    return CliRunner().invoke(app, [str(arg) for arg in args], terminal_width=200)


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture
def encoder() -> Encoder:
    return tiny_encoder()


@pytest.fixture
def texts() -> list[str]:
    return sentences(7)


@pytest.fixture
def triplets() -> TextSet:
    column = sentences(96, seed=1)
    return TextSet("tiny", (tuple(column[:32]), tuple(column[32:64]), tuple(column[64:])))


@pytest.fixture
def pairs() -> TextSet:
    column = sentences(80, seed=2)
    return TextSet("tiny-pairs", (tuple(column[:40]), tuple(column[40:])), np.linspace(0, 5, 40))


@pytest.fixture
def model(tmp_path) -> Path:
    return tiny_encoder().save(tmp_path / "model")


@pytest.fixture
def scored(tmp_path, pairs) -> Path:
    table = pd.DataFrame({"sentence1": pairs.columns[0], "sentence2": pairs.columns[1], "score": pairs.gold})
    table.to_csv(tmp_path / "pairs.csv", index=False)
    return tmp_path / "pairs.csv"


@pytest.fixture
def rows(tmp_path, triplets) -> Path:
    table = pd.DataFrame(dict(zip(("anchor", "positive", "negative"), triplets.columns, strict=True)))
    table.to_csv(tmp_path / "triplets.csv", index=False)
    return tmp_path / "triplets.csv"


@pytest.fixture(scope="session")
def bundled_and_shaken() -> tuple[Encoder, Encoder]:
    """The bundled model, and one with other weights of the same shape."""
    before = Encoder.load("bundled")
    after = copy.deepcopy(before)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in after.backbone.parameters():
            weight.add_(0.1 * weight.std(unbiased=False) * torch.randn_like(weight))
    return before, after


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab and a browser, one a module: two drivers of browsers cannot run in one process."""
    from lab import started  # imports the browser's driver, which other tests do without

    with started(tmp_path_factory.mktemp("lab")) as made:
        yield made
