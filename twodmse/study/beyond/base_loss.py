"""The paper's base loss, AnglE's mix, beside the ranking loss on the same recipes, from the tables alone."""

import dataclasses
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from twodmse import plots
from twodmse.study.claims import CLAIMS, at_both, picked
from twodmse.study.plans import ANGLE, PLANS
from twodmse.study.results import Study
from twodmse.study.tables import markdown, read

TRIALS = PLANS["angle"].trials
RANKING, MIX = "ranking loss", f"{ANGLE}'s mix"
NAMES = {trial.settings["recipe"]: trial.model for trial in TRIALS}  # of each recipe with the mix
RATES = sorted({trial.settings["lr"] for trial in TRIALS})


def base_loss(data: Path) -> str:
    """The block of figures/CLAIMS.md: each recipe at each rate with either base loss, on the seeds that both have.

    And, of the recipes whose curve of seed 0 is whole, the claims with the mix at the rates that validation picks.
    """
    rows = read(data, "study_summary")
    points = rows[rows["split"] == "test"].groupby(["model", "lr", "seed"])[["below", "full"]].mean()
    planned = sorted(TRIALS, key=lambda trial: (trial.model, trial.settings["lr"], trial.seed))
    found = {}
    for trial in planned:
        recipe, rate = trial.settings["recipe"], trial.settings["lr"]
        ranking, mix = ((model, rate, trial.seed) for model in (recipe, trial.model))
        if mix in points.index:
            found[f"`{recipe}`, {rate:g}, seed {trial.seed}"] = [said(points, ranking), said(points, mix)]
    count = f"{len(planned) - len(found)} of the {len(planned)} runs planned are not run."
    if not found:
        return f"No run with {MIX} is stored: not tested here. {count}"
    table = pd.DataFrame(found, index=[RANKING, MIX]).T
    table.index.name = "recipe, learning rate"
    return "\n\n".join(part for part in (markdown(table), count, at_picks(data)) if part)


def said(points: pd.DataFrame, run: tuple[str, float, int]) -> str:
    """A run's scores below the last layer and at the full cell, in words."""
    return "{:.2f} / {:.2f}".format(*points.loc[run, ["below", "full"]]) if run in points.index else "not run"


def at_picks(data: Path) -> str:
    """Each recipe with either loss at the rates that validation picks for it, and the claims among those with the mix.

    Only recipes whose seed 0 is run at every rate with the mix: of half a curve nothing is picked.
    """
    whole = whole_curves(data)
    if not whole:
        return ""
    top, below = at_rates_picked(data, whole)
    rows = {}
    for recipe, name in whole.items():
        for place, study in {"the top": top, "below": below}.items():
            rows[f"`{recipe}`, best for {place}"] = [f"{study.rates[m]:g}: {both(study, m)}" for m in (recipe, name)]
    table = pd.DataFrame(rows, index=[RANKING, MIX]).T
    table.index.name = "recipe, choice"
    compared = [
        dataclasses.replace(claim, first=whole[claim.first], second=whole[claim.second])
        for claim in CLAIMS
        if {claim.first, claim.second} <= {*whole}
    ]
    tested = (
        f"The claims on these recipes, with the mix:\n\n{markdown(at_both(compared, top, below))}" if compared else ""
    )
    ends = {name: RATES for name in whole.values()}
    told = (
        f"Rates picked on STS-B validation, for the top and below, with the mix: {picked(ends, top, below)}. At an end "
        "of the rates run (marked *) the best may lie beyond."
    )
    head = "Each at the rates that validation picks for it with that loss, by the rule of all, mean over its seeds:"
    return "\n\n".join(part for part in (head, markdown(table), tested, told) if part)


def whole_curves(data: Path) -> dict[str, str]:
    """The model with the mix of each recipe whose seed 0 is run with it at every rate."""
    summary = read(data, "study_summary")
    first = summary[(summary["seed"] == 0) & (summary["split"] == "validation")]
    rates = first.groupby("model")["lr"].agg(set)
    return {recipe: name for recipe, name in NAMES.items() if {*RATES} <= rates.get(name, set())}


def at_rates_picked(data: Path, whole: dict[str, str]) -> tuple[Study, Study]:
    """The study of recipes with either loss, each at its rate that is best for the top, and best for below."""
    models = [model for pair in whole.items() for model in pair]
    return Study.at_best(data, "full", models), Study.at_best(data, "below", models)


def both(study: Study, model: str) -> str:
    """A model's mean over its seeds below the last layer and at the full cell, in words."""
    below = study.score(model, study.below, study.mean_dims)
    return f"{below:.2f} / {study.score(model, [study.depth], [study.width]):.2f}"


def base_loss_curves(data: Path) -> Figure:
    """Each of the paper's recipes through its learning rates: the ranking loss solid, the mix dotted and hollow."""
    rows = read(data, "study_summary").query("split == 'test' and lr in @RATES")
    rows = rows.groupby(["model", "lr", "seed"], as_index=False)[["below", "full"]].mean()  # some were run twice
    figure, ax = plt.subplots(figsize=(8.4, 4.4), layout="constrained")
    models = [model for pair in NAMES.items() for model in pair]
    plots.tradeoff({model: rows[rows["model"] == model] for model in models if model in {*rows["model"]}}, ax)
    for line in ax.lines:
        recipe, _, mixed = str(line.get_label()).partition(", ")
        line.set(linestyle=":" if mixed else "-", label=f"{recipe}, {MIX if mixed else RANKING}")
        line.set_markerfacecolor("white" if mixed else line.get_color())
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    told = ", ".join(f"{rate:g}" for rate in RATES)
    ax.set_title(
        f"Two base losses, each through its learning rates ({told}):\nmean of seven STS test sets (dots: single runs)",
        fontsize=11,
    )
    return figure
