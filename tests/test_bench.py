import functools
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_efficiency
import torch
from conftest import DIM, LAYERS, VOCAB, run_app, sentences, tiny_tokenizer
from test_efficiency import tick
from transformers import AutoConfig, AutoModel, AutoTokenizer

from twodmse import Encoder
from twodmse.data.sets import load_texts
from twodmse.efficiency import bench
from twodmse.efficiency.bench import bench_encode, bench_grid, bench_train, embed_only, long_texts
from twodmse.efficiency.peer import bench_peer
from twodmse.evaluation.grid import sts_grid
from twodmse.objectives.recipes import RECIPES

clock = test_efficiency.clock


@pytest.fixture
def model(model):
    """As it is typed: a string."""
    return str(model)


def test_depth_is_timed_with_the_embedding_layer_aside(encoder, clock):
    encoder.backbone.model.embeddings.register_forward_hook(tick(clock, 10))
    for layer, seconds in zip(encoder.backbone.layers, [1, 1, 1, 3], strict=True):
        layer.register_forward_hook(tick(clock, seconds))
    table = bench_encode(encoder, rounds=2, batch_size=3)
    assert table["layer"].tolist() == [1, 2, 3, 4]
    assert table["seconds"].tolist() == [11, 12, 13, 16]  # one batch each: the embedding layer runs once
    assert table["spread"].tolist() == [0, 0, 0, 0]
    assert table["ratio"].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 1])
    assert table["share"].tolist() == [0.25, 0.5, 0.75, 1]
    assert table["excess"].tolist() == pytest.approx([4 / 6, 4 / 6, 4 / 6, 1])
    assert list(table.columns) == ["layer", "seconds", "spread", "ratio", "share", "excess"]


def test_depth_that_is_lost_in_the_noise_has_no_ratio(encoder, monkeypatch):
    seconds = pd.DataFrame([[2.0, 1.0, 2.5, 3.0, 4.0]] * 3)  # the first contender took longer than layer 1
    monkeypatch.setattr(bench, "take_turns", lambda *_: seconds)
    table = bench_encode(encoder, rounds=3, batch_size=3)
    assert table["ratio"].isna().tolist() == table["excess"].isna().tolist() == [True, False, False, False]
    assert table["ratio"][1:].tolist() == [0.25, 0.5, 1]


def test_the_pass_that_stops_at_the_first_layer_runs_no_layer_and_leaves_no_trace(encoder, texts):
    ran = []
    encoder.backbone.model.embeddings.register_forward_hook(lambda *_: ran.append("embeddings"))
    hook = encoder.backbone.layers[0].register_forward_hook(lambda *_: ran.append("layer"))
    embed_only(encoder, texts)
    assert ran == ["embeddings"]
    hook.remove()
    assert encoder.encode(texts).shape == (7, DIM)


def test_long_texts_fill_the_maximal_length(encoder):
    texts = long_texts(encoder, 5)
    assert len(set(texts)) == 5
    assert {len(ids) for ids in encoder.tokenise(texts)["input_ids"]} == {encoder.layout.max_length}


def test_grid_is_timed_against_encoding_once(model, scored, pairs, monkeypatch, clock):
    calls = []
    real_encode, real_states = Encoder.encode, Encoder.states

    def encode(self, texts, **options):
        clock.now += 2
        return real_encode(self, texts, **options)

    def states(self, texts, **options):
        clock.now += 3
        calls.append(len(texts))
        return real_states(self, texts, **options)

    monkeypatch.setattr(Encoder, "encode", encode)
    monkeypatch.setattr(Encoder, "states", states)
    again = str(shutil.copy(scored, Path(scored).with_name("again.csv")))
    table = bench_grid(model, [scored, again], peer=False, rounds=2)
    distinct = len(set(pairs.columns[0] + pairs.columns[1]))
    assert calls == [distinct] * 6  # two tasks, one pass each of two rounds and one for the memory
    assert table["task"].tolist() == [str(scored), again, "all"]
    assert table["texts"].tolist() == [distinct, distinct, 2 * distinct]
    assert table["encode_seconds"].tolist() == [2, 2, 4]
    assert table["all_dims_seconds"].tolist() == [3, 3, 6]
    assert table["all_dims_ratio"].tolist() == [1.5, 1.5, 1.5]
    peaks = table["all_dims_peak_bytes"]
    assert not {"speed_up", "cells"} & set(table)
    if sys.platform == "linux":
        assert peaks[2] == max(peaks[:2])


def test_the_loop_of_a_user_gives_the_same_scores(model, scored, clock, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers (the extra 'peers')")
    real = bench._peer_loop
    seen = {}

    def slow_loop(*args):
        loop = real(*args)

        def run(pairs):
            clock.now += 30
            seen.update(loop(pairs))
            return dict(seen)

        return run

    states = Encoder.states
    monkeypatch.setattr(bench, "_peer_loop", slow_loop)
    monkeypatch.setattr(Encoder, "states", lambda self, texts, **kw: (tick(clock, 2)(), states(self, texts, **kw))[1])
    table = bench_grid(model, [scored], dims=[4, 16, DIM])
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["cells"], row["grid_seconds"], row["peer_seconds"], row["speed_up"]) == (3 * LAYERS, 2, 30, 15)
    ours = sts_grid(Encoder.load(model), [scored], [4, 16, DIM], resamples=0).set_index(["layer", "dim"])["spearman"]
    apart = {cell: abs(score - ours[cell]) for cell, score in seen.items()}
    assert len(apart) == 3 * LAYERS
    assert row["difference"] == pytest.approx(max(apart.values()), abs=1e-9)
    assert row["difference"] < 0.1
    assert ours.max() - ours.min() > 1  # cells differ: agreement says something


def test_encoding_is_timed_beside_sentence_transformers(model, clock, monkeypatch, tmp_path):
    peers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers (the extra 'peers')")
    for kind, seconds in ((Encoder, 2), (peers.SentenceTransformer, 3)):
        real, wait = kind.encode, tick(clock, seconds)
        monkeypatch.setattr(kind, "encode", lambda *a, real=real, wait=wait, **k: (wait(), real(*a, **k))[1])
    (tmp_path / "t.txt").write_text("\n".join([*sentences(70), "a dog", "a dog"]))
    result = run("encode", model, "--peer", "--texts", tmp_path / "t.txt", "--rounds", 2, "--out", tmp_path / "o.csv")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["layer"].tolist() == [1, 2, 3, 4]
    assert table["texts"].tolist() == [71] * 4  # distinct
    assert table["twodmse"].tolist() == pytest.approx([71 / 2] * 4)
    assert table["sentence_transformers"].tolist() == pytest.approx([71 / 3] * 4)
    assert table["speed_up"].tolist() == pytest.approx([1.5] * 4)
    assert (table["difference"] < 1e-5).all()  # both are cut at the same layer
    encoder = Encoder.load(model)
    assert np.abs(encoder.encode(["a dog"], 1) - encoder.encode(["a dog"], 4)).max() > 1e-2


@pytest.mark.parametrize("what", ["encode", "grid", "train"])
def test_a_model_without_a_token_to_pad_is_timed_beside_sentence_transformers(what, tmp_path, rows):
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers (the extra 'peers')")
    config = AutoConfig.for_model("gpt2", vocab_size=VOCAB, n_embd=DIM, n_layer=2, n_head=4, n_positions=48)
    AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").pad_token is None
    if what == "encode":
        table = bench_peer(str(tmp_path / "model"), sentences(5), rounds=1)
    elif what == "train":
        table = bench_train(["st2d"], rows, str(tmp_path / "model"), batch_size=4, steps=1, precision="fp32")
        assert len(table) == 2
        return
    else:
        pairs = {"sentence1": sentences(5), "sentence2": sentences(5)[::-1], "score": range(5)}
        table = bench_grid(str(tmp_path / "model"), [pairs], dims=[4, DIM])
    assert (table["difference"] < 1e-3).all()


def test_each_recipe_takes_a_step_of_each_batch(model, rows, monkeypatch, clock):
    real = bench._our_step
    seen = {}

    def step_of(name, *args):
        step = real(name, *args)

        def run(number, batch):
            clock.now += {"full": (2, 2, 20, 2), "2dmse": (3, 3, 30, 20)}[name][number]
            seen.setdefault(name, []).append((number, tuple(batch)))
            step(number, batch)

        return run

    monkeypatch.setattr(bench, "_our_step", step_of)
    table = bench_train(data=rows, backbone=model, batch_size=4, steps=3, precision="fp32", peer=False, length=16)
    assert table["name"].tolist() == ["full", "2dmse"]
    assert table["seconds"].tolist() == [2, 20]
    assert table["triplets_per_second"].tolist() == [2, 4 / 20]
    assert table["ratio"].tolist() == [1, 1.5]  # of the same round: 1.5, 1.5 and 10
    assert seen["full"] == seen["2dmse"]
    assert [number for number, _ in seen["full"]] == [0, 1, 2, 3]  # the first is warm
    assert len(set(seen["full"])) == 4


@pytest.mark.parametrize("name", ["2dmse", "grid+teacher"])
def test_a_step_changes_the_weights(name, model, rows, monkeypatch):
    kept = []
    real = bench._optimizer_step
    monkeypatch.setattr(bench, "_optimizer_step", lambda module: (kept.append(module), real(module))[1])
    step = bench._our_step(name, model, load_texts(rows), "fp32", 16)
    before = [p.detach().clone() for p in kept[0].parameters()]
    step(0, [0, 1, 2, 3])
    after = list(kept[0].parameters())
    assert sum(bool((a != b).any()) for a, b in zip(before, after, strict=True)) > len(before) / 2


@pytest.mark.parametrize(("name", "drops"), [("grid", True), ("grid+teacher", False)])
def test_the_preset_takes_its_steps_as_it_trains(name, drops, model, rows, monkeypatch):
    kept = []
    real = bench._optimizer_step
    monkeypatch.setattr(bench, "_optimizer_step", lambda module: (kept.append(module), real(module))[1])
    bench._our_step(name, model, load_texts(rows), "fp32", 16)
    chances = [module.p for module in kept[0].modules() if isinstance(module, torch.nn.Dropout)]
    assert chances
    assert any(chances) == drops


@pytest.mark.slow
def test_the_peer_trains_beside_the_recipes(model, rows):
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers (the extra 'peers')")
    table = bench_train(data=rows, backbone=model, batch_size=4, steps=1, precision="fp32", length=16)
    assert table["name"].tolist() == ["full", "2dmse", "sentence-transformers"]
    assert (table["seconds"] > 0).all()


def test_bad_input_is_refused_before_work(model, rows, scored, monkeypatch):
    monkeypatch.setattr(Encoder, "encode", lambda *_, **__: pytest.fail("encoded before checking"))
    with pytest.raises(ValueError, match="unknown recipe"):
        bench_train(["3dmse"], data=rows, backbone=model)
    with pytest.raises(ValueError, match="unknown data set 'sts99'"):
        bench_grid(model, ["sts99"], peer=False)
    with pytest.raises(ValueError, match="dim 99 is out of range"):
        bench_grid(model, [scored], dims=[99], peer=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for call in (lambda: bench_grid(model, [scored]), lambda: bench_train(data=rows, backbone=model)):
        with pytest.raises(ValueError, match=r"not installed: pip install 'twodmse\[peers\]'"):
            call()


run = functools.partial(run_app, "bench")


def test_bench_prints_and_writes_its_tables(model, scored, tmp_path):
    result = run("encode", model, "--rounds", 1, "--out", tmp_path / "encode.csv")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "encode.csv")
    assert table["layer"].tolist() == [1, 2, 3, 4]
    assert f"{table['share'][2]:.4g}" in result.output
    result = run("grid", model, "--tasks", scored, "--no-peer", "--out", tmp_path / "grid.csv")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "grid.csv")
    assert f"{table['all_dims_ratio'][0]:.4g}" in result.output
    assert "speed_up" not in table
    result = run("costs", model, "--rounds", 1, "--out", tmp_path / "costs.csv")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "costs.csv")
    assert table["layer"].tolist() == [1, 2, 3, 4]
    assert table["machine"].str.contains(r"\d cores").all()
    again = run("grid", model, "--tasks", scored, "--no-peer", "--out", tmp_path / "grid.csv")
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


def test_bench_train_passes_its_options_on(model, monkeypatch):
    given = {}
    table = pd.DataFrame({"name": ["full"], "seconds": [1.5]})
    monkeypatch.setattr(bench, "bench_train", lambda **options: given.update(options) or table)
    result = run("train", model, "--rounds", 3, "--no-peer")
    assert result.exit_code == 0, result.output
    every = tuple(RECIPES)
    assert given == {"recipes": every, "data": "mini-nli", "backbone": model, "peer": False, "steps": 3}
    del given["peer"]
    assert result.output.split() == ["name", "seconds", "full", "1.5"]
    assert run("train", model, "--recipes", "mrl, full", "--data", "a.csv").exit_code == 0
    assert (given["recipes"], given["data"], "peer" in given) == (["mrl", "full"], "a.csv", False)


def test_bench_says_what_is_wrong(model):
    for args, words in (
        (["encode", "/nowhere"], "no model '/nowhere'"),
        (["encode", "--texts", "t.txt"], "--texts is for encode --peer"),
        (["grid", model, "--tasks", "sts99", "--no-peer"], "unknown data set 'sts99'"),
        (["train", "/nowhere"], "no model '/nowhere'"),
    ):
        result = run(*args)
        assert result.exit_code == 1
        assert result.stderr.startswith("twodmse: ")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert run("fly").exit_code == 2
    assert run("encode", model, "--rounds", 0).exit_code == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["costs", "--recipes", "full"], "--recipes is for train: leave it out"),
        (["costs", "--peer"], "--peer is for train, encode, grid: leave it out"),
        (["encode", "--data", "mini-nli"], "--data is for train: leave it out"),
        (["encode", "--tasks", "mini-sts"], "--tasks is for grid, encode --peer: leave it out"),
        (["train", "--texts", "a.txt"], "--texts is for encode --peer: leave it out"),
    ],
)
def test_an_option_that_a_benchmark_does_not_read_is_refused(model, args, says):
    done = run_app("bench", args[0], model, *args[1:])
    assert done.exit_code == 1
    assert says in done.output
