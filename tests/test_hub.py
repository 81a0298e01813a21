"""The hub code for real, against a hub on the loopback address: the data it serves are not part of this project."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from twodmse.encoder.hub import bundled_folder

SHARED = Path(__file__).parents[2] / "shared"
SERVER, DATA = SHARED / "tools" / "loopback_hub.py", SHARED / "hub"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PUBLISHED = {
    "sts12": 72.37, "sts13": 80.60, "sts14": 75.59, "sts15": 85.39, "sts16": 78.99, "stsb": 82.03, "sickr": 77.58,
}  # fmt: skip

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif(not SERVER.is_file(), reason="the hub's data and server are not beside this checkout"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Environment of a process that sees the loopback hub and has an empty cache."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, SERVER, DATA, "--port", str(port), "--model", f"{MODEL}={bundled_folder()}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{endpoint}/api/models/{MODEL}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the loopback hub did not start"
                time.sleep(0.1)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        yield environment | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path_factory.mktemp("hf"))}
    finally:
        server.terminate()
        server.wait(10)


def twodmse(environment, *args, cwd):
    return subprocess.run(
        [sys.executable, "-m", "twodmse", *map(str, args)], env=environment, cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_seven_published_scores_come_out(hub, tmp_path):
    result = twodmse(hub, "grid", MODEL, "--tasks", "paper", "--dims", "384", "--out", "g.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    grid = pd.read_csv(tmp_path / "g.csv")
    last = grid.query("layer == 6").set_index("task")["spearman"]
    for task, score in PUBLISHED.items():
        assert last[task] == pytest.approx(score, abs=0.02)
    means = grid.groupby("layer")["spearman"].mean().round(2).tolist()
    assert means == pytest.approx([58.05, 57.38, 58.61, 60.56, 65.23, 78.94], abs=0.02)


def test_training_on_all_nli_from_a_hub_model(hub, tmp_path):
    settings = ["--steps", 2, "--batch-size", 8, "--out", "run"]
    result = twodmse(hub, "train", "--data", "all-nli", "--backbone", MODEL, *settings, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = twodmse(hub, "grid", "run/model", "--tasks", "stsb-validation", "--dims", "64", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


ANY = """
from twodmse import load_pairs, load_texts
first = load_texts("hub:mteb/stsbenchmark-sts", split="validation")
print(first.columns == load_texts("stsb-validation").columns)
again = load_pairs("hub:mteb/stsbenchmark-sts", columns={"sentence1": "sentence2", "sentence2": "sentence1"})
stsb = load_pairs("stsb")
print(again.columns == stsb.columns[::-1], (again.gold == stsb.gold).all())
print(len(load_texts("hub:sentence-transformers/all-nli", config="triplet", split="dev[:50]")))
for wrong in ({"split": "tests"}, {"config": "nothing"}):
    try:
        load_texts("hub:mteb/stsbenchmark-sts", **wrong)
    except ValueError as error:
        print(error)
"""


def test_any_set_of_the_hub(hub, tmp_path):
    result = subprocess.run([sys.executable, "-c", ANY], env=hub, cwd=tmp_path, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert lines[:3] == ["True", "True True", "50"], result.stderr
    assert all(line.startswith("hub:mteb/stsbenchmark-sts could not be read: ") for line in lines[3:])
    assert len(lines) == 5
    assert "validation" in lines[3]
    assert "default" in lines[4]


def test_what_the_hub_does_not_have_is_one_line(hub, tmp_path):
    result = twodmse(hub, "grid", "owner/absent", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("twodmse: the hub has no model 'owner/absent'")
    assert result.stderr.count("\n") == 1


def test_a_hub_that_is_gone_is_one_line(hub, tmp_path):
    gone = hub | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    for args in (["grid", "owner/name"], ["grid", "bundled", "--tasks", "stsb"]):
        result = twodmse(gone, *args, cwd=tmp_path)
        assert result.returncode == 1
        assert "the hub does not answer" in result.stderr or "could not be re" in result.stderr
        assert "Traceback" not in result.stderr
    shutil.rmtree(tmp_path / "hf", ignore_errors=True)
