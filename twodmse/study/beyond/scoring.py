"""What it changes that a trained model was scored in bfloat16, as it came out of its training, and not in float32.

Use: python -m twodmse.study.beyond.scoring runs/study/st2d-lr5e-05-s2/model --out figures/data
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import sts_grid
from twodmse.files import write_table
from twodmse.study.plans import PLANS
from twodmse.study.tables import read, table_path

SCORING = "study_scoring"
TASKS = ("sts12", "stsb", "sickr")
PLACE = ["task", "layer", "dim"]


def scored_both(encoder: Encoder, tasks: tuple[str, ...], dims: tuple[int, ...]) -> pd.DataFrame:
    """Columns task, layer, dim, float32 and bfloat16: Spearman x 100 of every cell, encoded in either."""
    plain = sts_grid(encoder, tasks, dims, resamples=0)
    with torch.autocast(encoder.device.type, torch.bfloat16):
        half = sts_grid(encoder, tasks, dims, resamples=0)
    columns = {"spearman_x": "float32", "spearman_y": "bfloat16"}
    return plain.merge(half, on=PLACE).rename(columns=columns)[[*PLACE, *columns.values()]]


def scoring(data: Path) -> str:
    """How far the scores of one model in either lie apart; a block of figures/CLAIMS.md."""
    if not table_path(data, SCORING).is_file():
        return "No model is stored as scored in both: not tested here."
    table = read(data, SCORING)
    apart = table["bfloat16"] - table["float32"]
    return (
        f"One model (`{table['run'].iloc[0]}`), scored in both on {', '.join(table['task'].unique())}: in {len(table)} "
        f"cells the score in bfloat16 is {apart.min():+.3f} to {apart.max():+.3f} from that in float32, "
        f"{apart.mean():+.3f} in the mean."
    )


def main(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model of the study.")],
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("figures/data"),
) -> None:
    """Score a model in float32 and in bfloat16."""
    found = scored_both(Encoder.load(model), TASKS, PLANS["curves"].dims)
    write_table(found.assign(run=model.parent.name), table_path(out, SCORING))


if __name__ == "__main__":
    typer.run(main)
