"""CellsLoss under DDP: two processes of sentence-transformers' trainer take the steps of one."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import sentences, settled, tiny_encoder

from twodmse import Encoder

pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytestmark = pytest.mark.slow
SCRIPT = """
import sys
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
from twodmse.sentence_transformers import CellsLoss, GridEvaluator

size, recipe, out, *texts = sys.argv[1:]
rows = len(texts) // 3
columns = {name: texts[i * rows : (i + 1) * rows] for i, name in enumerate(("anchor", "positive", "negative"))}
model = SentenceTransformer("model", device="cpu")
for module in model.modules():
    if hasattr(module, "p"):
        module.p = 0.0
    if isinstance(getattr(module, "dropout_prob", None), float):
        module.dropout_prob = 0.0
loss = CellsLoss(model, recipe, teacher="model" if recipe == "grid" else None)
args = Arguments(
    output_dir=out, max_steps=3, per_device_train_batch_size=int(size), learning_rate=1e-4, use_cpu=True,
    report_to="none", save_strategy="no", eval_strategy="steps", eval_steps=3, dataloader_pin_memory=False,
)
trainer = SentenceTransformerTrainer(
    model, args, Dataset.from_dict(columns), loss=loss, evaluator=GridEvaluator(["mini-sts-validation"], [(1, 8)])
)
trainer.train()
if trainer.is_world_process_zero():
    model.save(out + "/model")
"""


@pytest.mark.parametrize("recipe", ["2dmse", "grid"])
def test_two_processes_take_the_steps_of_one(recipe, tmp_path):
    tiny_encoder().save(tmp_path / "model")
    (tmp_path / "script.py").write_text(SCRIPT)
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["script.py", str(8 // processes), recipe, f"run{processes}", *sentences(96, seed=1)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
    start, *after = (
        settled(Encoder.load(tmp_path / name).backbone.state_dict()) for name in ("model", "run1/model", "run2/model")
    )
    assert (after[0] - start).abs().max() > 1e-4
    torch.testing.assert_close(after[1], after[0], atol=1e-5, rtol=0)
