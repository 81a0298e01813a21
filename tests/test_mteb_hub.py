"""STS-B as mteb loads it from a hub: every cell's score is that of `sts_grid`, and of mteb on an exported cell."""

import subprocess
import sys

import pandas as pd
import pytest
from test_hub import hub, pytestmark, twodmse  # noqa: F401

pytest.importorskip("mteb", reason="needs mteb (the extra 'mteb')")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
EXPORTED = """
import mteb
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("cell", device="cpu")
task = mteb.get_task("STSBenchmark")
result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
print("score", 100 * result.task_results[0].get_score())
"""


@pytest.mark.slow
def test_stsb_is_what_sts_grid_and_an_exported_cell_score(hub, tmp_path):  # noqa: F811
    args = ["--tasks", "stsb,mteb:STSBenchmark", "--dims", "64,384", "--out", "g.csv", "--results", "files"]
    result = twodmse(hub, "grid", "bundled", *args, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "g.csv").pivot(index=["layer", "dim"], columns="task", values="spearman")
    assert len(table) == 12
    assert (table["stsb"] - table["STSBenchmark"]).abs().max() < 0.01
    assert len(list((tmp_path / "files").rglob("STSBenchmark.json"))) == 12

    result = twodmse(hub, "export", "bundled", "--layer", "3", "--dim", "64", "--out", "cell", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = subprocess.run(
        [sys.executable, "-c", EXPORTED], env=hub, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    score = float(result.stdout.partition("score ")[2])
    assert score == pytest.approx(table.loc[(3, 64), "STSBenchmark"], abs=0.01)
