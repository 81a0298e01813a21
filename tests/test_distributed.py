"""Two processes on this machine take the same steps as one."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import settled, tiny_encoder

from twodmse import Encoder
from twodmse.training.distributed import gather_rows, whole_gradient

pytestmark = pytest.mark.slow


def launch(processes, args, cwd):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, "-m", "twodmse", *map(str, args)], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("recipe", "extra"),
    [
        ("2dmse", []),
        ("2dmse", ["--set", "cache_chunk=4"]),
        ("grid", ["--teacher", "model", "--set", "noise=0.5", "--set", "pair_weight=2"]),
        ("st2d", []),
    ],
    ids=["2dmse", "2dmse-cached", "grid", "st2d"],
)
def test_two_processes_take_the_steps_of_one(recipe, extra, triplets, tmp_path):
    tiny_encoder().save(tmp_path / "model")
    table = pd.DataFrame(dict(zip(("anchor", "positive", "negative"), triplets.columns, strict=True)))
    table.to_csv(tmp_path / "rows.csv", index=False)
    args = ["train", "--recipe", recipe, "--data", "rows.csv", "--backbone", "model", "--steps", 3, "--batch-size", 8]
    args += ["--precision", "fp32", "--set", "dropout=0", "--lr", "1e-4", *extra]
    for processes in (1, 2):
        result = launch(processes, [*args, "--out", f"run{processes}"], tmp_path)
        assert result.returncode == 0, result.stderr[-3000:]
    one, two = (pd.read_csv(tmp_path / f"run{n}" / "history.csv") for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, atol=1e-5, rtol=1e-5)
    after = [settled(Encoder.load(tmp_path / f"run{n}" / "model").backbone.state_dict()) for n in (1, 2)]
    torch.testing.assert_close(after[1], after[0], atol=1e-5, rtol=0)


def test_batches_that_cannot_be_shared_are_refused(tmp_path):
    result = launch(2, ["train", "--batch-size", 9], tmp_path)
    assert result.returncode != 0
    assert "batch_size 9 cannot be shared equally by 2 processes" in result.stderr


def test_alone_nothing_is_gathered():
    part = torch.randn(2, 6, 3, requires_grad=True)
    assert gather_rows(part, 3, dim=1) is part
    loss = part.sum()
    assert whole_gradient(loss) is loss
