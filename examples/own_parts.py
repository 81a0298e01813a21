"""Train with parts of your own: a recipe, a base loss, a callback and rows in a DataFrame.

Run it anywhere: ``python own_parts.py [folder] [steps] [backbone]``. It needs no network and takes half a minute.
"""

import sys

import pandas as pd
import torch
from transformers import TrainerCallback

from twodmse import Alignment, Cell, Draw, Plan, TrainConfig, load_texts, sts_grid, train


def staircase(draw: Draw) -> Plan:
    """Each layer at one width, narrow ones low, all drawn to the last layer's in-batch scores."""
    widths = [max(8, draw.D * n // draw.N) for n in range(1, draw.N + 1)]
    cells = [Cell(n, d, 1 / draw.N, f"stair_{n}") for n, d in enumerate(widths, start=1)]
    below = [Alignment(n, d, draw.N, 0.1, "scores", 0.05, True, "align") for n, d, *_ in cells[:-1]]
    return Plan(cells, below, {})


def margin(columns: list[torch.Tensor], gold: torch.Tensor | None) -> torch.Tensor:
    """The positive is to be closer than the negative, by a margin. Columns (b, d) are cut to the cell already."""
    anchor, positive, negative = columns
    closer = torch.cosine_similarity(anchor, positive) - torch.cosine_similarity(anchor, negative)
    return torch.relu(0.3 - closer).mean()


class Watch(TrainerCallback):
    """Prints each evaluation."""

    def on_evaluate(self, args, state, control, metrics, **_) -> None:  # noqa: ANN001, ANN003
        """Called by the trainer after each evaluation."""
        print(f"step {state.global_step}: mean over cells {metrics['eval_spearman']:.2f}")


if __name__ == "__main__":
    out, steps, backbone = (*sys.argv[1:], *("runs/own_parts", "20", "bundled")[len(sys.argv) - 1 :])
    rows = pd.DataFrame(dict(zip(("anchor", "positive", "negative"), load_texts("mini-nli").columns, strict=True)))
    steps = int(steps)
    config = TrainConfig(backbone=backbone, steps=steps, batch_size=16, lr=1e-4, eval_every=max(1, steps // 4), out=out)
    run = train(config, recipe=staircase, base_loss=margin, data=rows.sample(400, random_state=0), callbacks=[Watch()])
    print(run.history[["step", "loss", "align"]].tail(3))
    print(sts_grid(run.encoder).pivot(index="layer", columns="dim", values="spearman").round(1))
