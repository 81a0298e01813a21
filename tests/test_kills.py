"""Processes killed at any operation on a file, and files damaged at random: the end is the same, or one line says why.

TWODMSE_TRIALS says how many trials each test makes, TWODMSE_SEED where they begin.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import sentences, tiny_encoder

from twodmse import Encoder, TrainConfig
from twodmse.data.sets import TextSet
from twodmse.encoder import stored
from twodmse.encoder.stored import encode_to
from twodmse.export.exporting import export
from twodmse.training.runs import train_encoder

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("TWODMSE_SEED", "0"))
TRIALS = range(SEED, SEED + int(os.environ.get("TWODMSE_TRIALS", "3")))
OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree")
SETTINGS = {"steps": 6, "batch_size": 4, "precision": "fp32", "save_every": 2, "dims": (8,), "recipe": "mrl"}
EVALUATED = {"eval_every": 1, "eval_metric": "mine"}
TEXTS = TextSet("rows", (tuple(sentences(8, 1)), tuple(sentences(8, 2))))
OTHER_JSON = ["[]", "{}", "null", '{"a": 1}', "3", '{"pooling": "mean", "max_length": 8, "dim": 8}']


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def killed(work, folder, moment):
    """Whether a child that does this work was killed at that operation on what lies in the folder."""
    child = os.fork()
    if child == 0:
        left = [moment]

        def count(event, args):
            if event in OPERATIONS and str(folder) in str(args[0]):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def train(folder, resume=True, **changes):
    config = TrainConfig(**SETTINGS | {"out": folder} | changes)
    calls = iter(range(100))
    evaluator = (lambda _: {"mine": float(next(calls))}) if "eval_every" in changes else None
    return train_encoder(tiny_encoder(layers=2), TEXTS, config, resume, evaluator=evaluator)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def same(run, whole):
    pd.testing.assert_frame_equal(pd.read_csv(run / "history.csv"), pd.read_csv(whole / "history.csv"))
    return weights(run / "model") == weights(whole / "model")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, resume=False)
    return folder


@pytest.mark.parametrize("seed", TRIALS)
def test_a_run_killed_at_any_operation_ends_as_one_never_stopped(seed, whole, tmp_path):
    rng, run, mine = np.random.default_rng(seed), tmp_path / "run", []
    for _ in range(5):
        if not killed(lambda: train(run), tmp_path, int(rng.integers(0, 250))):
            break
        for folder in [
            path for path in (run, *run.glob("checkpoint-*")) if path.is_dir() and (run / "run.json").exists()
        ]:
            if rng.random() < 0.3 and (run / "train_config.json").exists():
                (folder / "notes.txt").write_text("mine")
                mine.append(folder / "notes.txt")
    train(run)
    assert same(run, whole)
    assert all(path.read_text() == "mine" for path in mine)
    assert not list(run.glob(".*")) or all(path.is_file() for path in run.glob(".*"))


def damage(path, rng):
    kind = rng.integers(4)
    content = path.read_bytes()
    if kind == 0:
        path.write_bytes(content[: rng.integers(0, max(1, len(content)))])
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2:
        at = int(rng.integers(0, max(1, len(content))))
        path.write_bytes(content[:at] + rng.bytes(20) + content[at + 20 :])
    else:
        path.write_text(OTHER_JSON[rng.integers(len(OTHER_JSON))])


@pytest.mark.parametrize("seed", TRIALS)
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_file_is_refused_or_the_end_is_the_same(seed, finished, whole, tmp_path):
    rng, run = np.random.default_rng(seed), tmp_path / "run"
    for _ in range(4):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        if not finished:
            shutil.rmtree(run / "model")
        (run / "notes.txt").write_text("mine")
        files = sorted(
            path for path in run.rglob("*") if path.is_file() and path.name not in ("notes.txt", "README.md")
        )
        path = files[rng.integers(len(files))]
        damage(path, rng)
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        try:
            done = train(run)
        except (ValueError, OSError) as error:
            assert str(error).strip(), path  # noqa: PT017
            assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before, path
        else:
            trained = done.encoder.backbone.state_dict()
            expected = Encoder.load(whole / "model").backbone.state_dict()
            assert all(torch.equal(trained[name], expected[name]) for name in expected), path
            assert finished or same(run, whole), path
        assert (run / "notes.txt").read_text() == "mine"


def saved(encoder, folder):
    encoder.save(folder, overwrite=True)


def exported(encoder, folder):
    export(encoder, folder, layer=encoder.num_layers, dim=encoder.dim, overwrite=True)


@pytest.mark.parametrize("seed", TRIALS)
@pytest.mark.parametrize(("write", "operations"), [(saved, 40), (exported, 130)])  # about as many as it takes
def test_a_model_whose_replacing_is_killed_is_the_old_or_the_new_one(write, operations, seed, tmp_path):
    rng, (old, new), text = np.random.default_rng(seed), (tiny_encoder(layers=2), tiny_encoder(layers=3)), "a dog"
    vectors = [encoder.encode(text) for encoder in (old, new)]
    for _ in range(5):
        folder = tmp_path / "m"
        write(old, folder)
        killed(lambda folder=folder: write(new, folder), tmp_path, int(rng.integers(0, operations)))
        if folder.exists():
            found = Encoder.load(folder).encode(text)
        else:
            with pytest.raises(OSError, match="rename that to m"):
                Encoder.load(folder)
            with pytest.raises(FileExistsError, match="rename that to m"):
                new.save(folder)
            found = Encoder.load(next(tmp_path.glob(".m-*.old"))).encode(text)
        assert any(np.allclose(found, expected, atol=1e-6) for expected in vectors)
        write(new, folder)
        assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_folder_left_between_two_names_is_said_and_what_a_user_put_into_it_is_kept(tmp_path, caplog):
    encoder = tiny_encoder(layers=2)
    old = encoder.save(tmp_path / "m").rename(tmp_path / ".m-0a1b2c3d.old")
    (old / "notes.txt").write_text("mine")
    for refused in (lambda: Encoder.load(tmp_path / "m"), lambda: encoder.save(tmp_path / "m")):
        with pytest.raises(FileExistsError, match=r"lies in .*\.m-0a1b2c3d\.old: rename that to m"):
            refused()
    encoder.save(tmp_path / "m", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "m-2"]
    assert [path.name for path in (tmp_path / "m-2").iterdir()] == ["notes.txt"]
    assert "it is in" in caplog.text


@pytest.mark.parametrize("seed", TRIALS)
def test_vectors_whose_writing_is_killed_go_on(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "PART", 4)
    rng, encoder, texts, out = np.random.default_rng(seed), tiny_encoder(layers=2), sentences(18), tmp_path / "v.npy"
    expected = encoder.encode(texts)
    for _ in range(4):
        out.unlink(missing_ok=True)
        if killed(lambda: encode_to(encoder, texts, out, progress=False), tmp_path, int(rng.integers(0, 40))):
            rest = sorted(tmp_path.glob(".v.npy.part*"))
            if rest and rng.random() < 0.7:
                damage(rest[rng.integers(len(rest))], rng)
            if not out.exists():  # killed after it had its name
                encode_to(encoder, texts, out, progress=False)
        np.testing.assert_allclose(np.load(out), expected, atol=1e-6)


def test_vectors_of_another_model_are_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "PART", 4)
    encoder, texts, out = tiny_encoder(layers=2), sentences(18), tmp_path / "v.npy"
    moments = iter(range(5, 60))
    while not list(tmp_path.glob(".v.npy.part.json")):
        killed(lambda: encode_to(encoder, texts, out, progress=False), tmp_path, next(moments))
        out.unlink(missing_ok=True)
    with torch.no_grad():
        for weight in encoder.backbone.parameters():
            weight.mul_(1 + 1e-5)
    encode_to(encoder, texts, out, progress=False)
    np.testing.assert_allclose(np.load(out), encoder.encode(texts), atol=1e-7)


def test_what_a_user_puts_into_best_and_model_during_a_run_is_kept_and_said(whole, tmp_path, caplog):
    run, calls = tmp_path / "run", iter(range(100))

    def evaluate(_):
        step = next(calls)
        if step == 3:
            (run / "best" / "notes.txt").write_text("mine")
            (run / "model").mkdir()
            (run / "model" / "thesis.txt").write_text("mine")
        return {"mine": float(step)}

    config = TrainConfig(**SETTINGS | EVALUATED | {"out": run})
    train_encoder(tiny_encoder(layers=2), TEXTS, config, evaluator=evaluate)
    assert (run / "best-2" / "notes.txt").read_text() == (run / "model-2" / "thesis.txt").read_text() == "mine"
    assert caplog.text.count("it is kept as") == 2
    assert weights(run / "model") == weights(whole / "model") == weights(run / "best")


def start(folder, *args):
    command = [sys.executable, "-m", "twodmse", "train", "--data", "rows.csv", "--backbone", "base", "--steps", "12"]
    command += ["--batch-size", "4", "--precision", "fp32", "--save-every", "1", *args]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def test_of_two_processes_the_second_waits_for_the_death_of_the_first(tmp_path):
    tiny_encoder(layers=2).save(tmp_path / "base")
    pd.DataFrame(dict(zip(("anchor", "positive"), TEXTS.columns, strict=True))).to_csv(
        tmp_path / "rows.csv", index=False
    )
    assert start(tmp_path, "--out", "whole").wait() == 0
    first = start(tmp_path, "--out", "run")
    while first.poll() is None and not list(tmp_path.glob("run/checkpoint-1/complete.json")):
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    second = start(tmp_path, "--out", "run", "--resume")
    said, _ = second.communicate()
    assert (second.returncode, said.count("twodmse: ")) == (1, 1)
    assert "is being written by another process" in said
    first.kill()
    first.communicate()
    assert start(tmp_path, "--out", "run", "--resume").wait() == 0
    assert same(tmp_path / "run", tmp_path / "whole")
