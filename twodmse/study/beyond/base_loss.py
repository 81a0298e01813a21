"""The paper's base loss, AnglE's mix, beside the ranking loss on the same recipes, from the tables alone."""

from pathlib import Path

import pandas as pd

from twodmse.study.plans import ANGLE, PLANS
from twodmse.study.tables import markdown, read


def base_loss(data: Path) -> str:
    """The block of figures/CLAIMS.md: each recipe at each rate with either base loss, on the seeds that both have."""
    rows = read(data, "study_summary")
    points = rows[rows["split"] == "test"].groupby(["model", "lr", "seed"])[["below", "full"]].mean()
    planned = sorted(PLANS["angle"].trials, key=lambda trial: (trial.model, trial.settings["lr"], trial.seed))
    found = {}
    for trial in planned:
        recipe, rate = trial.settings["recipe"], trial.settings["lr"]
        ranking, mix = ((model, rate, trial.seed) for model in (recipe, trial.model))
        if mix in points.index:
            found[f"`{recipe}`, {rate:g}, seed {trial.seed}"] = [said(points, ranking), said(points, mix)]
    count = f"{len(planned) - len(found)} of the {len(planned)} runs planned are not run."
    if not found:
        return f"No run with {ANGLE}'s mix is stored: not tested here. {count}"
    table = pd.DataFrame(found, index=["ranking loss", f"{ANGLE}'s mix"]).T
    table.index.name = "recipe, learning rate"
    return f"{markdown(table)}\n\n{count}"


def said(points: pd.DataFrame, run: tuple[str, float, int]) -> str:
    """A run's scores below the last layer and at the full cell, in words."""
    return "{:.2f} / {:.2f}".format(*points.loc[run, ["below", "full"]]) if run in points.index else "not run"
