"""Exported ONNX folders, opened as they are by the tools that people run them in. `make clients` installs those."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from twodmse import Encoder
from twodmse.export.exporting import Exported, export
from twodmse.export.onnx import QUANTISED, onnx_states, onnx_vectors
from twodmse.export.samples import sample_texts

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]  # one export for all of them

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".clients"
PYTHON = PLACE / "venv" / "bin" / "python"
NODE = shutil.which("node")
LAYER, DIM = 3, 64
# What the card says of transformers.js, with its own texts replaced; `folder` is the last part of a path.
HEADER = """
import fs from "fs";
import {{ env, pipeline }} from "@huggingface/transformers";
env.allowRemoteModels = false;
env.localModelPath = "{parent}/";
const folder = "{name}", texts = JSON.parse(fs.readFileSync(0)), found = {{}};
"""


@pytest.fixture(scope="session")
def encoder():
    return Encoder.load("bundled")


@pytest.fixture(scope="session")
def texts(encoder):
    found = sample_texts(encoder)
    lengths = [len(ids) for ids in encoder.tokenizer(found)["input_ids"]]
    assert sum(length > encoder.layout.max_length for length in lengths) == 2  # long ones are cut
    return found


@pytest.fixture(scope="session")
def cell(encoder, tmp_path_factory) -> Exported:
    return export(encoder, tmp_path_factory.mktemp("clients") / "cell", LAYER, DIM, "onnx", int8=True)


@pytest.fixture(scope="session")
def expected(encoder, texts):
    return encoder.encode(texts, LAYER, DIM)


@pytest.fixture(scope="session")
def python_vectors(cell, texts):
    """What the Python readers give, by reader: one process for all of them."""
    if not PYTHON.is_file():
        pytest.skip(f"{PYTHON} is not there: make clients")
    command = [str(PYTHON), str(ROOT / "tests" / "clients" / "readers.py"), str(cell.folder)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: np.array(rows) for name, rows in json.loads(done.stdout).items()}


def run_node(script: str, texts: list[str]) -> dict:
    """What a script leaves in ``found``, run in the folder where transformers.js is."""
    if NODE is None or not (PLACE / "node_modules" / "@huggingface" / "transformers").is_dir():
        pytest.skip("Node or transformers.js is not there: make clients")
    script += "\nfs.writeSync(1, JSON.stringify(found));"
    command = [NODE, "--input-type=module", "-e", script]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=300, cwd=PLACE)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: np.array(rows) for name, rows in json.loads(done.stdout).items()}


def card_script(folder: Path, dtype: str = "fp32") -> str:
    """The card's code for transformers.js, up to the call of the model, the closing token put back."""
    load, close = re.findall(r"```js\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    load = re.sub(r'\(\["The shop.*?\], ', "(texts, ", load).replace('"fp32"', f'"{dtype}"')
    before, call = load.rsplit("const {", 1)
    return HEADER.format(parent=folder.parent, name=folder.name) + before + close + "const {" + call


@pytest.mark.parametrize("reader", ["sentence-transformers", "fastembed", "optimum"])
def test_python_readers_give_the_vectors(reader, python_vectors, expected):
    np.testing.assert_allclose(python_vectors[reader], expected, atol=1e-4)


def test_sentence_transformers_reads_the_8_bit_file_by_name(python_vectors, expected):
    found = python_vectors["sentence-transformers, 8 bits"]
    cosines = (found * expected).sum(1)
    assert cosines.min() > 0.97
    assert cosines.max() < 0.99999, "these are the vectors of the float32 file"


def test_transformers_js_gives_the_vectors_of_long_texts_too(cell, texts, expected):
    found = run_node(card_script(cell.folder) + "found.vectors = sentence_embedding.tolist();", texts)
    np.testing.assert_allclose(found["vectors"], expected, atol=1e-4)


def test_the_pipeline_of_transformers_js(cell, encoder, texts, expected):
    script = """
const extractor = await pipeline("feature-extraction", folder, { dtype: "fp32" });
found.vectors = (await extractor(texts, { pooling: "mean", normalize: true })).tolist();
"""
    short = [len(ids) <= encoder.layout.max_length for ids in encoder.tokenizer(texts)["input_ids"]]
    found = run_node(HEADER.format(parent=cell.folder.parent, name=cell.folder.name) + script, texts)["vectors"]
    np.testing.assert_allclose(found[short], expected[short], atol=1e-4)
    cut = (found * expected).sum(1)[~np.array(short)]
    assert (cut > 0.9).all()
    assert (cut < 1 - 1e-5).any(), "texts are cut as ours are: the card need not speak of it any more"


def test_transformers_js_reads_the_8_bit_file_as_q8(cell, texts):
    found = run_node(card_script(cell.folder, "q8") + "found.vectors = sentence_embedding.tolist();", texts)
    own = onnx_vectors(cell.folder, texts, QUANTISED)
    assert (found["vectors"] * own).sum(1).min() > 0.999
    assert abs(onnx_vectors(cell.folder, texts) - own).max() > 1e-3, "the 8-bit file is the float32 file"


def test_transformers_js_gives_the_states_of_all_layers(encoder, texts, tmp_path):
    folder = export(encoder, tmp_path / "all", 2, format="onnx", int8=True, all_layers=True).folder
    found = run_node(card_script(folder) + "found.states = states.tolist();", texts)["states"]
    np.testing.assert_allclose(found, encoder.states(texts)[:3], atol=1e-4)
    small = run_node(card_script(folder, "q8") + "found.states = states.tolist();", texts)["states"]
    own = onnx_states(folder, texts, QUANTISED)
    lengths = np.linalg.norm(small, axis=-1) * np.linalg.norm(own, axis=-1)
    assert ((small * own).sum(-1) / lengths).min() > 0.999
