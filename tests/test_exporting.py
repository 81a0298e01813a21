import functools
import json
import re
from contextlib import nullcontext

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from conftest import ARCHITECTURES, DIM, LAYERS, run_app, sentences, tiny_model, tiny_tokenizer
from conftest import tiny_encoder as plain_tiny_encoder
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from twodmse import Encoder, TrainConfig
from twodmse.averaging import average
from twodmse.encoder.storage import Layout
from twodmse.export import cards, exporting
from twodmse.export import onnx as exporting_onnx
from twodmse.export.cards import find_origin
from twodmse.export.exporting import export
from twodmse.export.samples import SAMPLES, sample_texts
from twodmse.training.runs import train_encoder

LONG = "two three red dog " * 40  # of 160 tokens, where tiny encoders read 32


def tiny_encoder(architecture="bert", layers=LAYERS, pooling="mean"):
    """As conftest's; but for MPNet, whose class takes token 1 for padding whatever its config says, token 1 is that."""
    if architecture != "mpnet":
        return plain_tiny_encoder(architecture, layers, pooling)
    tokenizer = tiny_tokenizer()
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules["model"]["vocab"] |= {"[UNK]": 0, "[PAD]": 1}
    names = {
        name: getattr(tokenizer, name) for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    swapped = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(rules)), model_max_length=48, **names
    )
    return Encoder(tiny_model(architecture, layers), swapped, Layout(pooling, 32))


def onnx_vectors(folder, texts, file="model.onnx", output="sentence_embedding"):
    """An output from the folder's files, written anew here: no line of the library runs."""
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(texts)
    session = onnxruntime.InferenceSession(folder / "onnx" / file, providers=["CPUExecutionProvider"])
    feeds = {"input_ids": [t.ids for t in tokens], "attention_mask": [t.attention_mask for t in tokens]}
    return session.run([output], {k: np.array(v, dtype=np.int64) for k, v in feeds.items()})[0]


def tensors(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def code_blocks(folder):
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def grid_of(layers=LAYERS, dims=(8, 16, 32), tasks=("stsb", "sickr")):
    rows = [(t, n, d, 10.0 * n + d / 10 + i) for i, t in enumerate(tasks) for n in range(1, layers + 1) for d in dims]
    return pd.DataFrame(rows, columns=["task", "layer", "dim", "spearman"])


@pytest.mark.parametrize(
    ("architecture", "pooling"), [*((a, "mean") for a in ARCHITECTURES), ("bert", "cls"), ("bert", "last")]
)
def test_onnx_gives_the_vectors_of_the_cell(architecture, pooling, tmp_path):
    encoder = tiny_encoder(architecture, pooling=pooling)
    done = export(encoder, tmp_path / "cell", 3, 8, "onnx")
    assert done.difference < 1e-5
    for texts in (["a dog"], sentences(9), [LONG, "a", "the red cat"]):
        expected = encoder.encode(texts, 3, 8)
        assert expected.shape == (len(texts), 8)
        np.testing.assert_allclose(onnx_vectors(tmp_path / "cell", texts), expected, atol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "cell" / "onnx" / "model.onnx")
    assert [i.name for i in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert all(isinstance(size, str) for i in session.get_inputs() for size in i.shape), "a size is fixed"
    assert [o.name for o in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]


def test_safetensors_give_the_vectors_of_the_cell_there_too(architecture, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = tiny_encoder(architecture)
    export(encoder, tmp_path / "cell", 2, 8)
    texts = [*sentences(9), LONG]
    expected = encoder.encode(texts, 2, 8)
    peer = SentenceTransformer(str(tmp_path / "cell"), device="cpu")
    np.testing.assert_allclose(peer.encode(texts), expected, atol=1e-5)
    np.testing.assert_allclose(Encoder.load(tmp_path / "cell").encode(texts), expected, atol=1e-5)
    assert not [name for name, _ in peer.named_parameters() if "pooler" in name], "a random head came back"


def test_unused_layers_and_heads_are_gone_and_the_files_are_smaller(architecture, tmp_path):
    encoder = tiny_encoder(architecture)
    whole, cell = (export(encoder, tmp_path / str(n), n, 8) for n in (LAYERS, 2))
    held = tensors(tmp_path / "2")
    assert {int(n) for name in held for n in re.findall(r"layers?\.(\d+)\.", name)} == {0, 1}
    assert not [name for name in held if "pooler" in name or "head" in name]
    layer = {name: t for name, t in tensors(tmp_path / str(LAYERS)).items() if re.search(r"layers?\.[23]\.", name)}
    gone = 4 * sum(t.numel() for t in layer.values())  # bytes of layers 3 and 4
    assert gone > 40000
    assert whole.size - cell.size == pytest.approx(gone, rel=0.25)  # names in the header take bytes too
    assert whole.full_size == cell.full_size == 4 * sum(t.numel() for t in tensors(tmp_path / str(LAYERS)).values())
    file = export(encoder, tmp_path / "onnx", 2, 8, "onnx")
    held = onnx.load(tmp_path / "onnx" / "onnx" / "model.onnx").graph.initializer
    weights = sum(int(np.prod(t.dims)) for t in held)
    assert weights <= 1.1 * sum(t.numel() for t in tensors(tmp_path / "2").values())
    assert file.size > 4 * weights


def test_weights_may_be_read_by_others(encoder, tmp_path):
    export(encoder, tmp_path / "cell", 2, 8)
    found = {p.stat().st_mode & 0o777 for p in (tmp_path / "cell").rglob("*.safetensors")}
    assert found == {0o644}


def test_samples_are_short_and_long_and_of_the_own_vocabulary(encoder):
    texts = sample_texts(encoder)
    tokens = [len(t) for t in encoder.tokenizer(texts)["input_ids"]]
    assert min(tokens) <= 4
    assert sum(length > encoder.layout.max_length for length in tokens) >= 2  # cut ones are compared as well
    own = " ".join(texts[len(SAMPLES) :]).split()
    assert len(set(own)) > 20
    assert "[UNK]" not in own
    assert texts == sample_texts(encoder)


def disturb(monkeypatch, module, name, by):
    original = getattr(module, name)

    def wrong(*args, **kwargs):
        return by(original(*args, **kwargs))

    monkeypatch.setattr(module, name, wrong)


@pytest.mark.parametrize(("where", "by"), [("mask", 2e-3), ("number", np.nan), ("shape", None)])
def test_an_onnx_file_that_differs_is_refused_and_leaves_nothing(encoder, tmp_path, monkeypatch, where, by):
    def spoil(vectors):
        if where == "shape":
            return vectors[:, :-1]
        vectors[-1, 3] += by
        return vectors

    disturb(monkeypatch, exporting_onnx, "onnx_vectors", spoil)
    words = {
        "mask": r"onnxruntime .* differ by 2\.0e-03, above 1e-04",
        "number": "differ by nan",
        "shape": r"\(16, 7\)",
    }
    with pytest.raises(ValueError, match=words[where]) as error:
        export(encoder, tmp_path / "cell", 2, 8, "onnx")
    assert "nothing was written" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_differs_is_refused_and_leaves_the_old_one(encoder, tmp_path, monkeypatch):
    export(encoder, tmp_path / "cell", 2, 8)
    before = {p: p.read_bytes() for p in (tmp_path / "cell").rglob("*") if p.is_file()}
    write = Encoder.write

    def forgetful(self, folder):
        write(self, folder)
        path = next(folder.glob("1_Pooling/config.json"))
        mode = json.loads(path.read_text())
        mode |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
        path.write_text(json.dumps(mode))

    monkeypatch.setattr(Encoder, "write", forgetful)
    with pytest.raises(ValueError, match="sets 'pooling' to 'mean', the files beside it to 'cls'"):
        export(encoder, tmp_path / "cell", 3, 8, overwrite=True)
    monkeypatch.setattr(Encoder, "load", lambda _, **__: encoder.submodel(3, 8))
    with pytest.raises(ValueError, match=r"^sentence-transformers gives other vectors .* above 1e-05, for the text '"):
        export(encoder, tmp_path / "cell", 3, 8, overwrite=True)
    assert {p: p.read_bytes() for p in (tmp_path / "cell").rglob("*") if p.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 1

    def swapped(self, folder):
        write(tiny_encoder("bert", layers=2), folder)

    monkeypatch.undo()
    monkeypatch.setattr(Encoder, "write", swapped)
    with pytest.raises(ValueError, match=r"^twodmse gives vectors of shape \(16, 32\), not \(16, 8\)"):
        export(encoder, tmp_path / "new", 3, 8)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_that_onnx_cannot_express_is_one_sentence(encoder, tmp_path, monkeypatch):
    def raising(*_, **__):
        raise RuntimeError("no operator for it\nand a long tail")

    monkeypatch.setattr(torch.onnx, "export", raising)
    with pytest.raises(ValueError, match=r"^BertModel cannot be written as ONNX: no operator for it$"):
        export(encoder, tmp_path / "cell", 2, 8, "onnx")
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_encoder_alone(encoder, tmp_path):
    texts = [*sentences(5), LONG]
    before, rules = encoder.states(texts), (encoder.tokenizer.padding_side, encoder.layout)
    encoder.backbone.train()
    export(encoder, tmp_path / "cell", 2, 8, "onnx", int8=True)
    assert encoder.backbone.training
    np.testing.assert_array_equal(encoder.states(texts), before)
    assert (encoder.tokenizer.padding_side, encoder.layout) == rules


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])  # of absolute and of relative positions
def test_texts_are_cut_on_the_side_of_the_tokenizer_and_padded_on_the_right(architecture, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    encoder = Encoder(tiny_model(architecture), tokenizer, Layout("last", 16))
    export(encoder, tmp_path / "cell", 2, 8, "onnx")
    texts = ["a dog", "big " * 20 + "the red cat", "the red cat sees two men"]
    np.testing.assert_allclose(onnx_vectors(tmp_path / "cell", texts), encoder.encode(texts, 2, 8), atol=1e-4)
    tokens = Tokenizer.from_file(str(tmp_path / "cell" / "tokenizer.json")).encode_batch(texts)
    assert tokens[0].attention_mask == [1] * 4 + [0] * 12
    assert tokens[1].tokens[-4:] == ["the", "red", "cat", "[SEP]"]
    settings = json.loads((tmp_path / "cell" / "tokenizer_config.json").read_text())
    assert (settings["padding_side"], settings["truncation_side"]) == ("right", "left")


def test_the_tokenizer_file_cuts_and_pads_by_itself(encoder, tmp_path):
    exporting_onnx.write_onnx(encoder.submodel(2, 8), tmp_path)  # whose tokenizer has been used for nothing before
    tokens = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch([LONG, "a"])
    assert [len(t.ids) for t in tokens] == [32, 32]
    assert [sum(t.attention_mask) for t in tokens] == [32, 3]


def test_int8_is_smaller_and_says_how_far_it_moved(tmp_path):
    encoder = tiny_encoder("bert")
    plain = export(encoder, tmp_path / "float", 3, 16, "onnx")
    done = export(encoder, tmp_path / "int8", 3, 16, "onnx", int8=True)
    assert plain.cosines is None
    held = onnx.load(tmp_path / "int8" / "onnx" / "model_quantized.onnx").graph.initializer
    kinds = {t.data_type for t in held if np.prod(t.dims) > 500}
    assert kinds == {onnx.TensorProto.UINT8}, "a large weight is not in 8 bits"
    assert done.size == (tmp_path / "int8" / "onnx" / "model_quantized.onnx").stat().st_size
    float_ = onnx_vectors(tmp_path / "float", list(SAMPLES))
    int8 = onnx_vectors(tmp_path / "int8", list(SAMPLES), "model_quantized.onnx")
    np.testing.assert_array_equal(onnx_vectors(tmp_path / "int8", list(SAMPLES)), float_)  # the float32 file stays
    np.testing.assert_allclose(np.linalg.norm(int8, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(done.cosines, (float_ * int8).sum(1), atol=1e-4)
    assert 0.9 < done.cosines.min() < 0.99999
    more = {p.name for p in (tmp_path / "int8").rglob("*")} - {p.name for p in (tmp_path / "float").rglob("*")}
    assert more == {"model_quantized.onnx"}
    card = (tmp_path / "int8" / "README.md").read_text()
    assert f"{done.cosines.mean():.4f} on average and {done.cosines.min():.4f} at the lowest" in card
    assert "int8" in front_matter(tmp_path / "int8")["tags"]


def test_int8_vectors_that_are_no_numbers_are_refused(encoder, tmp_path, monkeypatch):
    def broken(folder):
        exporting_onnx.onnx_vectors = lambda *_: np.full((len(SAMPLES), 8), np.nan, dtype=np.float32)

    monkeypatch.setattr(exporting_onnx, "onnx_vectors", exporting_onnx.onnx_vectors)  # put back at the end
    monkeypatch.setattr(exporting, "quantise_weights", broken)
    with pytest.raises(ValueError, match="no numbers; nothing was written"):
        export(encoder, tmp_path / "cell", 2, 8, "onnx", int8=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["safetensors", "onnx"])
def test_the_code_on_the_card_runs_and_gives_the_vectors(encoder, tmp_path, monkeypatch, capsys, format):
    export(encoder, tmp_path / "cell", 2, 8, format)
    blocks = code_blocks(tmp_path / "cell")
    assert len(blocks) == {"safetensors": 2, "onnx": 1}[format]
    monkeypatch.chdir(tmp_path / "cell")
    for block in blocks:
        names = {}
        exec(block, names)
        np.testing.assert_allclose(names["vectors"], encoder.encode(list(cards.EXAMPLES), 2, 8), atol=1e-5)
        assert max(map(len, block.splitlines())) <= 120
    assert "1." in capsys.readouterr().out


def test_the_card_says_what_the_model_is(encoder, tmp_path):
    done = export(encoder, tmp_path / "cell", 2, 8, grid=grid_of())
    card = (tmp_path / "cell" / "README.md").read_text()
    assert "$" not in card
    assert "# encoder: layer 2 of 4, 8 of 32 coordinates" in card
    assert "first 2 of 4 layers, pools the tokens (mean), keeps the first 8 of 32 coordinates" in card
    assert "cut at 32 tokens" in card
    assert "| bytes a vector (float32) | 32 | 128 |" in card
    assert f"| weights, MB | {done.size / 1e6:.1f} | {done.full_size / 1e6:.1f} |" in card
    assert "| layer \\ dim | 8 | 16 | 32 |" in card
    assert "| 2 | **21.30** | 22.10 | 23.70 |" in card  # 20 + d / 10, and half a point from the second task
    assert card.index("\n| 4 |") < card.index("\n| 1 |")
    assert "mean over `stsb`, `sickr`" in card
    assert "Licence of the backbone: unknown" in card
    front = front_matter(tmp_path / "cell")
    assert front["library_name"] == "sentence-transformers"
    assert front["license"] == "unknown"
    assert {"2dmse", "matryoshka", "sentence-transformers"} <= set(front["tags"])
    assert "base_model" not in front
    assert "No scores were given" not in card


def test_a_grid_of_many_dims_is_shown_in_part(encoder, tmp_path):
    export(encoder, tmp_path / "cell", 2, 11, grid=grid_of(dims=range(1, 33), tasks=("/home/me/own.csv",)))
    card = (tmp_path / "cell" / "README.md").read_text()
    assert "| layer \\ dim | 1 | 2 | 4 | 8 | 11 | 16 | 32 |" in card
    assert "| **21.10** |" in card
    assert "mean over `own.csv`;" in card
    export(encoder, tmp_path / "odd", 2, 11, grid=grid_of(dims=(3, 5, 11)))
    assert "| layer \\ dim | 3 | 5 | 11 |" in (tmp_path / "odd" / "README.md").read_text()


def test_a_card_says_how_many_pairs_a_grid_is_of(encoder, tmp_path):
    grid = grid_of()
    counted = grid.assign(n=grid["task"].map({"stsb": 1379, "sickr": 9927}))
    export(encoder, tmp_path / "counted", 2, 8, grid=counted)
    export(encoder, tmp_path / "half", 2, 8, grid=counted.assign(n=counted["n"].where(counted["layer"] > 1)))
    export(encoder, tmp_path / "uneven", 2, 8, grid=counted.assign(n=range(len(grid))))
    cards = {name: (tmp_path / name / "README.md").read_text() for name in ("counted", "half", "uneven")}
    assert "mean over `stsb` (1,379 pairs), `sickr` (9,927 pairs);" in cards["counted"]
    assert "mean over `stsb`, `sickr`;" in cards["half"]
    assert "mean over `stsb`, `sickr`;" in cards["uneven"]


def test_a_card_says_whether_the_grid_has_its_cell(encoder, tmp_path):
    export(encoder, tmp_path / "within", 2, 8, grid=grid_of())
    export(encoder, tmp_path / "beside", 2, 12, grid=grid_of())
    card = (tmp_path / "within" / "README.md").read_text()
    assert "; this cell in bold." in card
    assert "not among them" not in card
    card = (tmp_path / "beside" / "README.md").read_text()
    assert "; this cell is not among them." in card
    assert "in bold" not in card
    grid = grid_of()
    grid.loc[(grid["layer"] == 2) & (grid["dim"] == 8), "spearman"] = np.nan
    export(encoder, tmp_path / "undefined", 2, 8, grid=grid)
    assert "; this cell has no score there." in (tmp_path / "undefined" / "README.md").read_text()


def test_origin_is_followed_through_training_runs_and_cards(encoder, tmp_path):
    first, second = encoder.save(tmp_path / "first"), encoder.save(tmp_path / "second")
    base = {"recipe": "2dmse", "steps": 9, "backbone": "bundled", "data": "all-nli"}
    (first / "train_config.json").write_text(json.dumps(base))
    (second / "train_config.json").write_text(
        json.dumps(base | {"backbone": str(first), "data": "/home/me/rows.csv", "recipe": "full"})
    )
    found = find_origin(str(second))
    assert (found.backbone, found.on_hub, found.license) == (cards.MINILM, True, "apache-2.0")
    assert "multi_nli" in found.datasets
    assert found.trained == ("recipe `full` on `rows.csv`, 9 steps", "recipe `2dmse` on `all-nli`, 9 steps")
    export(Encoder.load(second), tmp_path / "cell", 2, 8)
    front = front_matter(tmp_path / "cell")
    assert (front["base_model"], front["license"]) == (cards.MINILM, "apache-2.0")
    assert "multi_nli" in front["datasets"]
    card = (tmp_path / "cell" / "README.md").read_text()
    assert "Licence of the backbone: apache-2.0" in card
    assert "Trained since: recipe `full` on `rows.csv`, 9 steps; before that: recipe `2dmse`" in card
    assert "/home/me" not in card
    again = find_origin(str(tmp_path / "cell"))  # a model cut twice
    assert (again.backbone, again.on_hub, again.license) == (cards.MINILM, True, "apache-2.0")


def test_origin_of_hub_models_and_of_plain_folders(encoder, tmp_path, monkeypatch):
    folder = encoder.save(tmp_path / "models--some-owner--a-model" / "snapshots" / "0f")
    assert find_origin(str(folder)).backbone == "some-owner/a-model"
    assert find_origin(str(folder)).license is None
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets: own-texts\nbase_model: other/base\n---\n# Hello\n")
    found = find_origin(str(folder))
    assert (found.backbone, found.license, found.datasets) == ("some-owner/a-model", "mit", ("own-texts",))
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")  # damaged
    assert find_origin(str(folder)).license is None
    assert find_origin("owner/name").backbone == "owner/name"  # trained from a hub id that is not in the cache
    plain = find_origin(str(encoder.save(tmp_path / "mine")))
    assert (plain.backbone, plain.on_hub, plain.license) == ("mine", False, None)
    export(Encoder.load(tmp_path / "mine"), tmp_path / "cell", 2, 8)
    assert "base_model" not in front_matter(tmp_path / "cell")
    assert "cut from `mine`" in (tmp_path / "cell" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "mine")
    (tmp_path / "mine" / "train_config.json").write_text(
        json.dumps({"recipe": "full", "steps": 1, "backbone": ".", "data": "mini-nli"})
    )
    assert len(find_origin(".").trained) == 1  # a run that names itself is no endless walk


def test_used_folders_are_kept(encoder, tmp_path):
    folder = tmp_path / "cell"
    export(encoder, folder, 2, 8)
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        export(encoder, folder, 2, 8, "onnx")
    assert (folder / "model.safetensors").is_file()
    export(encoder, folder, 2, 8, "onnx", overwrite=True)
    assert not (folder / "model.safetensors").exists()
    assert (folder / "onnx" / "model.onnx").is_file()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="its files are no model that twodmse wrote"):
        export(encoder, tmp_path / "notes", 2, 8, overwrite=True)
    whole = encoder.save(tmp_path / "run" / "model")
    for target in (whole, tmp_path / "run"):
        with pytest.raises(FileExistsError, match="holds the weights that are being exported"):
            export(Encoder.load(whole), target, 2, 8, overwrite=True)
    export(Encoder.load(whole), whole / "small", 2, 8)  # inside it is no harm
    assert Encoder.load(whole).num_layers == LAYERS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.drop(columns="spearman"), "no column 'spearman'"),
        (lambda g: g[:0], "no rows"),
        (lambda g: g.assign(model=["a", "b"] * 12), r"several models \(a, b\)"),
        (lambda g: g.assign(layer=g["layer"] + 1), r"layer 5, this encoder layers 0\.\.4"),
        (lambda g: g.assign(dim=g["dim"] * 2), r"dim 64, this encoder dims 1\.\.32"),
        (lambda g: g.assign(dim=0), r"dim 0, this encoder dims 1\.\.32"),
    ],
)
def test_grids_that_do_not_fit_are_refused(encoder, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        export(encoder, tmp_path / "cell", 2, 8, grid=change(grid_of()))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the command


run = functools.partial(run_app, "export")


def test_command_writes_what_it_says(model, tmp_path):
    grid_of(tasks=("stsb",)).to_csv(tmp_path / "grid.csv", index=False)
    cell = ["--layer", 2, "--dim", 16]
    result = run(model, *cell, "--out", tmp_path / "a", "--grid", tmp_path / "grid.csv")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'a'}: layer 2, dim 16, " in result.output
    assert Encoder.load(tmp_path / "a").encode(["a dog"]).shape == (1, 16)
    assert "| 2 | 20.80 | **21.60** | 23.20 |" in (tmp_path / "a" / "README.md").read_text()
    result = run(model, *cell, "--format", "onnx", "--int8", "--out", tmp_path / "b")
    assert result.exit_code == 0, result.output
    cosine = re.search(r"cosine to the float32 ones (0\.\d{4}|1\.0000) on average", result.output)
    assert cosine
    assert float(cosine[1]) > 0.9
    again = run(model, *cell, "--out", tmp_path / "b")
    assert again.exit_code == 1
    assert (tmp_path / "b" / "onnx" / "model.onnx").is_file()
    assert run(model, *cell, "--out", tmp_path / "b", "--overwrite").exit_code == 0
    assert not (tmp_path / "b" / "onnx" / "model.onnx").exists()


def test_command_takes_the_whole_model_where_no_cell_is_named(model, tmp_path):
    assert run(model, "--out", tmp_path / "a").exit_code == 0
    loaded = Encoder.load(tmp_path / "a")
    assert (loaded.num_layers, loaded.dim) == (LAYERS, DIM)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--layer", 9], ["layer 9 is out of range", "1..4"]),
        (["--dim", 0], ["dim 0 is out of range", "1..32"]),
        (["--format", "gguf"], ["unknown format 'gguf'", "safetensors, onnx"]),
        (["--int8"], ["int8 needs the format onnx"]),
        (["--grid", "nowhere.csv"], ["nowhere.csv"]),
        (["--grid", "empty.csv"], ["empty.csv is empty"]),
        (["--grid", "other.csv"], ["other.csv is no grid", "lacks task"]),
    ],
)
def test_bad_input_is_one_line(args, words, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    before = sorted(tmp_path.iterdir())
    result = run(model, "--out", "out/cell", *args)
    assert result.exit_code == 1
    message = result.stderr.strip()
    assert message.startswith("twodmse: ")
    assert "\n" not in message
    assert all(word in message for word in words)
    assert sorted(tmp_path.iterdir()) == before


def test_missing_onnx_packages_are_one_line_with_the_command(model, tmp_path, monkeypatch):
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name, *a)
    )
    result = run(model, "--format", "onnx", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.strip() == "twodmse: onnxruntime not installed: pip install 'twodmse[onnx]'"
    assert not (tmp_path / "out").exists()


def test_without_sentence_transformers_the_own_check_is_made(encoder, tmp_path, monkeypatch):
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util,
        "find_spec",
        lambda name, *a: None if name == "sentence_transformers" else find(name, *a),
    )
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)  # an import of it would fail
    assert export(encoder, tmp_path / "cell", 2, 8).difference <= 1e-5


# ---------------------------------------------------------------- the bundled model


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "dim"), [(6, 384), (3, 64), (1, 16)])
def test_bundled_model_is_exported_with_the_same_vectors(layer, dim, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load("bundled")
    texts = ["Why?", "A man plays the guitar.", "Shares fell by 3% on Monday, traders say", "on and on " * 300]
    expected = encoder.encode(texts, layer, dim)
    done = export(encoder, tmp_path / "a", layer, dim)
    per_layer = 4 * 384 * 384 + 2 * 4 * 384 * 384 + 4 * 384 + 4 * 384 + 384 + 4 * 384  # matrices, biases, norms
    embeddings = (30522 + 512 + 2 + 2) * 384
    assert done.size == pytest.approx(4 * (embeddings + layer * per_layer), abs=20000)
    assert done.full_size == 4 * (embeddings + 6 * per_layer)
    peer = SentenceTransformer(str(tmp_path / "a"), device="cpu")
    np.testing.assert_allclose(peer.encode(texts), expected, atol=1e-5)
    file = export(encoder, tmp_path / "b", layer, dim, "onnx")
    assert file.size == pytest.approx(done.size, rel=0.01)
    np.testing.assert_allclose(onnx_vectors(tmp_path / "b", texts), expected, atol=1e-4)
    small = export(encoder, tmp_path / "c", layer, dim, "onnx", int8=True)
    assert small.size < 0.27 * file.size
    assert small.cosines.min() > 0.95
    assert small.cosines.mean() > 0.985
    front = front_matter(tmp_path / "c")
    assert (front["base_model"], front["license"]) == (cards.MINILM, "apache-2.0")


@pytest.mark.parametrize("format", ["safetensors", "onnx"])
def test_an_encoder_in_half_precision_is_not_exported(tmp_path, format):
    half = plain_tiny_encoder().to(dtype=torch.float16)
    with pytest.raises(ValueError, match=r"the encoder is in torch.float16: load it without dtype"):
        export(half, tmp_path / "cell", format=format)
    assert not (tmp_path / "cell").exists()


def test_a_saved_tokenizer_pads_as_the_encoder_does(tmp_path):
    encoder = plain_tiny_encoder()
    encoder.tokenizer.padding_side = "left"  # as of GPT-2's family: positions are counted from there
    encoder.save(tmp_path / "model")
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path / "model").padding_side == "right"
    assert encoder.tokenizer.padding_side == "left"


def test_a_saved_encoder_cuts_long_texts_on_the_same_side(tmp_path):
    encoder = plain_tiny_encoder()
    encoder.tokenizer.truncation_side = "left"  # set after it was made
    texts = [LONG + "a cat", "a man " + LONG]
    again = Encoder.load(encoder.save(tmp_path / "model"))
    np.testing.assert_allclose(again.encode(texts), encoder.encode(texts), atol=1e-5)
    encoder.tokenizer.truncation_side = "right"
    assert np.abs(again.encode(texts) - encoder.encode(texts)).max() > 1e-3, "these texts do not tell the sides apart"


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_an_encoder_that_computes_in_half_precision_is_exported_in_float32(form, tmp_path, monkeypatch):
    def half(encoder):  # as on an accelerator
        return nullcontext() if encoder.dtype is not None else torch.autocast("cpu", torch.bfloat16)

    monkeypatch.setattr("twodmse.encoder.reading._precision", half)
    encoder = tiny_encoder()
    assert (
        abs(
            encoder.encode(["a dog"])
            - Encoder.load(encoder.save(tmp_path / "whole"), dtype=torch.float32).encode(["a dog"])
        ).max()
        > 1e-4
    )
    assert export(encoder, tmp_path / "cell", 3, 8, form).difference < 1e-5
    assert encoder.dtype is None


def test_a_grid_of_another_metric_is_no_grid_for_a_card(encoder, tmp_path):
    with pytest.raises(ValueError, match="the grid holds auc: a card shows Spearman"):
        export(encoder, tmp_path / "cell", 2, 8, grid=grid_of().assign(metric="auc"))


@pytest.mark.parametrize(
    ("data", "shown"), [("hub:me/all-nli", "hub:me/all-nli"), ("/home/me/own.csv", "own.csv"), ("all-nli", "all-nli")]
)
def test_a_card_names_the_backbone_without_its_revision_and_the_data(data, shown, tmp_path):
    config = {"recipe": "full", "data": data, "steps": 3, "backbone": "owner/name@v1"}
    (tmp_path / "train_config.json").write_text(json.dumps(config))
    origin = find_origin(str(tmp_path))
    assert (origin.backbone, origin.on_hub) == ("owner/name", True)
    assert origin.trained == (f"recipe `full` on `{shown}`, 3 steps",)


def test_a_card_tells_the_history_of_models_in_memory(tmp_path, triplets):
    parts = []
    for name in ("full", "mrl"):
        start = Encoder.load(tiny_encoder().save(tmp_path / f"start-{name}"))
        config = TrainConfig(recipe=name, steps=1, batch_size=8, precision="fp32", out=str(tmp_path / name))
        run = train_encoder(start, triplets, config)
        export(run.encoder, tmp_path / f"cell-{name}", 2, 8)
        assert f"recipe `{name}` on" in (tmp_path / f"cell-{name}" / "README.md").read_text()
        parts.append(Encoder.load(run.folder / "model"))
    export(average(parts), tmp_path / "mean", 2, 8)
    card = (tmp_path / "mean" / "README.md").read_text()
    assert "an encoder of unrecorded origin" in card
    assert "recipe `" not in card
