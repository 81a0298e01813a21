import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import settled, tiny_encoder

from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import RECIPES, Recipe
from twodmse.training.arguments import set_dropout
from twodmse.training.batches import Collator
from twodmse.training.gradcache import cached_step
from twodmse.training.runs import train_encoder


def gradients(backbone):
    return torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])


@pytest.mark.parametrize("recipe", RECIPES)
def test_cached_gradients_are_those_of_the_plain_step(recipe, triplets):
    encoder = tiny_encoder()
    batch = Collator(encoder, 1, chunk_size=7)([triplets[i] for i in range(10)])
    assert len(batch["chunks"]) == 5
    options = {"compress_dim": 8} if recipe == "ese" else {}
    plan = Recipe(recipe, encoder.num_layers, encoder.dim, **options).plan(0)

    def loss_of(states):
        return sum(objective(states[:, batch["order"]], plan, BaseLoss(), 3).values())

    plain = loss_of(encoder.backbone(batch["chunks"]))
    plain.backward()
    expected = gradients(encoder.backbone)
    encoder.backbone.zero_grad()
    cached = cached_step(encoder.backbone, batch["chunks"], loss_of)
    assert cached.item() == pytest.approx(plain.item(), rel=1e-5)
    scale = expected.abs().max()
    torch.testing.assert_close(gradients(encoder.backbone) / scale, expected / scale, atol=1e-5, rtol=0)


def test_both_passes_see_the_same_dropout(triplets):
    encoder = tiny_encoder()
    set_dropout(encoder.backbone, 0.3)
    encoder.backbone.train()
    batch = Collator(encoder, 1, chunk_size=9)([triplets[i] for i in range(9)])
    seen = []

    def spy(chunks):
        states = encoder.backbone(chunks)
        seen.append(states.detach())
        return states

    torch.manual_seed(1)
    cached_step(spy, batch["chunks"], lambda states: states.square().sum())
    first, second = seen[:3], seen[3:]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0][1], first[1][1])


def test_a_run_with_cached_gradients_is_the_same_run(triplets, tmp_path):
    from test_training import config

    plain = train_encoder(tiny_encoder(), triplets, config(tmp_path / "plain", dropout=0.0, steps=3))
    cached = train_encoder(tiny_encoder(), triplets, config(tmp_path / "cached", dropout=0.0, steps=3, cache_chunk=5))
    after = [settled(run.encoder.backbone.state_dict()) for run in (cached, plain)]
    torch.testing.assert_close(after[0], after[1], atol=1e-5, rtol=0)
    assert list(cached.history.columns) == list(plain.history.columns)


BLOCKWISE = """
import torch
from twodmse.training import gradcache as caching
from twodmse.objectives import losses
from twodmse.efficiency.timing import peak_memory
caching.return_large_blocks()
target, vectors = torch.randn(2, 3072, 128)
vectors.requires_grad_()
print(peak_memory(lambda: losses.kl_nested_scores(target, vectors, [8, 16, 32, 64, 96, 112, 128])))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system does not count a process's memory")
def test_freed_blocks_are_given_back():
    done = subprocess.run([sys.executable, "-c", BLOCKWISE], capture_output=True, text=True, check=True)
    assert float(done.stdout) / 2**20 < 600  # MiB; blocks that are kept add up to 1,650 and more


@pytest.mark.parametrize(("chunk", "called"), [(0, 0), (5, 1)])
def test_only_a_run_in_chunks_changes_how_memory_is_given_back(chunk, called, triplets, tmp_path, monkeypatch):
    from test_training import config

    from twodmse.training import trainer

    calls = []
    monkeypatch.setattr(trainer, "return_large_blocks", lambda: calls.append(1))
    train_encoder(tiny_encoder(), triplets, config(tmp_path / "run", steps=1, cache_chunk=chunk))
    assert len(calls) == called
