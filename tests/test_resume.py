"""Real processes killed, starved of disk and started again."""

import os
import resource
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from conftest import tiny_encoder

from twodmse import Encoder
from twodmse.training.checkpoints import fault, keep_newest, last_complete

pytestmark = pytest.mark.slow
SETTINGS = ["--data", "rows.csv", "--backbone", "model", "--steps", 30, "--batch-size", 8, "--precision", "fp32"]
SETTINGS += ["--save-every", 3, "--lr", "1e-3", "--set", "dropout=0.1", "--set", "keep=1"]


def start(folder, *args, **options):
    command = [sys.executable, "-m", "twodmse", "train", *map(str, [*SETTINGS, *args])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes, **options)


def finish(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.fixture
def folder(triplets, tmp_path):
    tiny_encoder().save(tmp_path / "model")
    table = pd.DataFrame(dict(zip(("anchor", "positive", "negative"), triplets.columns, strict=True)))
    table.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


def weights(folder):
    return Encoder.load(folder / "model").backbone.state_dict()


def test_a_run_killed_again_and_again_ends_as_one_never_stopped(folder):
    code, output = finish(start(folder, "--out", "whole"))
    assert code == 0, output
    kills = 0
    for wanted in (3, 6, 12, 21):  # each time killed as soon as that checkpoint begins to appear, mostly half-written
        process = start(folder, "--out", "cut", "--resume")
        while process.poll() is None and not any((folder / "cut").glob(f"checkpoint-{wanted}*")):
            time.sleep(0.001)
        time.sleep(0.01 * kills)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 3
    code, output = finish(start(folder, "--out", "cut", "--resume"))
    assert code == 0, output
    whole, cut = weights(folder / "whole"), weights(folder / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    histories = [pd.read_csv(folder / name / "history.csv") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*histories)
    before = (folder / "cut" / "model" / "model.safetensors").read_bytes()
    code, output = finish(start(folder, "--out", "cut", "--resume"))  # a finished run has nothing left to do
    assert code == 0, output
    assert (folder / "cut" / "model" / "model.safetensors").read_bytes() == before


def test_a_full_disk_stops_the_run_with_a_message_and_keeps_the_last_good_checkpoint(folder):
    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # less than the optimizer's file, enough for others

    code, output = finish(start(folder, "--out", "run", "--steps", 6))
    assert code == 0, output
    sizes = {p.name: p.stat().st_size for p in (folder / "run" / "checkpoint-6").iterdir()}
    assert max(sizes.values()) > 60_000
    process = start(folder, "--out", "short", "--save-every", 6)
    while process.poll() is None and not (folder / "short" / "checkpoint-6" / "complete.json").exists():
        time.sleep(0.005)
    process.kill()
    process.communicate()
    code, output = finish(start(folder, "--out", "short", "--save-every", 6, "--resume", preexec_fn=little_room))
    assert code == 1, output
    assert "checkpoint-12 could not be written" in output
    assert "--resume" in output
    assert "Traceback" not in output
    assert last_complete(folder / "short").name == "checkpoint-6"
    assert not (folder / "short" / "checkpoint-12").exists()
    code, output = finish(start(folder, "--out", "short", "--save-every", 6, "--resume"))
    assert code == 0, output


def test_a_folder_that_cannot_be_made_is_one_line(folder):
    code, output = finish(start(folder, "--out", "rows.csv/run"))
    assert code == 1
    assert "rows.csv/run" in output
    assert "Traceback" not in output


def test_the_newest_checkpoints_are_kept(tmp_path):
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    keep_newest(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-4"]
    assert fault(tmp_path / "checkpoint-4") == "it was cut short: its list of files is missing"
