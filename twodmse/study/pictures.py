"""The pictures of the study, each drawn from its stored tables alone; runs that are not stored yet are left out."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from twodmse import plots
from twodmse.efficiency.costs import cell_costs
from twodmse.evaluation.compare import MEAN
from twodmse.evaluation.published import published_grid
from twodmse.plots.palette import label_lines
from twodmse.study.plans import ABLATIONS, INDEPENDENT, PLANS, STUDIED
from twodmse.study.results import MEAN_DIMS, UNTOUCHED, Study, curve_points
from twodmse.study.tables import read

LINES = (UNTOUCHED, "full", "mrl", "2dmse", "st2d", "grid")  # models of the curves
PANEL = (4.3, 3.7)  # inches


def shown(study: Study, models: Sequence[str]) -> list[str]:
    """Those of the models that have a finished run."""
    return [model for model in models if study.has(model)]


def labelled(study: Study, model: str) -> str:
    """A model's name with its number of seeds, if there are several."""
    seeds = study.seeds(model)
    return model if seeds == 1 else f"{model} ({seeds} seeds)"


def panels(count: int) -> tuple[Figure, list[plt.Axes]]:
    """A figure of panels side by side that share their vertical axis."""
    figure, axes = plt.subplots(1, count, figsize=(PANEL[0] * count, PANEL[1]), sharey=True, layout="constrained")
    return figure, list(axes)


def study_front(data: Path) -> Figure:
    """The grids of the four models that tell the story, mean of the seven sets and of the seeds."""
    study = Study.read(data)
    grids = {model: study.grid(model, MEAN_DIMS) for model in shown(study, (UNTOUCHED, "full", "2dmse", "grid"))}
    return plots.heatmaps(grids, "Spearman x 100, mean of seven STS test sets")[0].figure


def study_grids(data: Path) -> Figure:
    """The layer x dim grid of every recipe, mean of the seven sets and of the seeds."""
    study = Study.read(data)
    grids = {labelled(study, model): study.grid(model, MEAN_DIMS) for model in shown(study, (UNTOUCHED, *STUDIED))}
    return plots.heatmap_rows(grids, "Spearman x 100, mean of seven STS test sets")[0].figure


def study_layers(data: Path) -> Figure:
    """Spearman over the layers at three dims."""
    return over_layers(Study.read(data), "Quality over depth: mean of seven STS test sets, band from seed to seed")


def over_layers(study: Study, title: str) -> Figure:
    """A study's Spearman over its layers at dims 16, 64 and its full width."""
    figure, axes = panels(3)
    for ax, dim in zip(axes, (16, 64, study.width), strict=True):
        draw_lines(study, LINES, ax, "layer", range(1, study.depth + 1), [dim])
        ax.set_title(f"dim {dim}")
    return titled(figure, axes, title)


def study_dims(data: Path) -> Figure:
    """Spearman over the dims at three layers."""
    study = Study.read(data)
    figure, axes = panels(3)
    dims = sorted(set(study.cells["dim"]))
    for ax, layer in zip(axes, (2, 4, study.depth), strict=True):
        draw_lines(study, LINES, ax, "dim", [layer], dims)
        ax.set_title(f"layer {layer}")
        ax.tick_params(axis="x", labelsize=8)
    return titled(figure, axes, "Quality over width: mean of seven STS test sets, band from seed to seed")


def draw_lines(
    study: Study, models: Sequence[str], ax: plt.Axes, over: str, layers: Sequence[int], dims: Sequence[int]
) -> None:
    """The means of those models that have a finished run, over the layers or the dims."""
    models = shown(study, models)
    lines = {labelled(study, model): study.line(model, over, layers, dims) for model in models}
    plots.curves(lines, ax, over, labels=False)


def titled(figure: Figure, axes: list[plt.Axes], title: str) -> Figure:
    """One title above panels with the same lines, each named at its end in the last panel."""
    for ax in axes[1:]:
        ax.set_ylabel("")
    label_lines(axes[-1])
    figure.suptitle(title, fontsize=11)
    return figure


def study_tradeoff(data: Path) -> Figure:
    """Below the last layer against the full cell: a curve for each recipe run at all of its rates, a dot a seed."""
    plan = PLANS["curves"]
    rates = sorted({trial.settings["lr"] for trial in plan.trials})
    drawn = {UNTOUCHED, INDEPENDENT, *plan.whole_curves(read(data, "study_summary"))}
    points = curve_points(data).query("lr == 0 or lr in @rates")
    figure, ax = plt.subplots(figsize=(8.4, 5.4), layout="constrained")
    models = [model for model in dict.fromkeys((*LINES, *STUDIED, INDEPENDENT)) if model in drawn]
    plots.tradeoff({model: rows for model in models if len(rows := points[points["model"] == model])}, ax)
    told = ", ".join(f"{rate:g}" for rate in rates)
    ax.set_title(
        f"Each recipe through its learning rates ({told}):\nmean of seven STS test sets (dots: single runs)",
        fontsize=11,
    )
    return figure


def study_ablation(data: Path) -> Figure:
    """What each part of the objective of 2dmse adds: the whole minus the objective without it."""
    study = Study.read(data)
    places = {
        "mean of the layers below the last": (study.below, False),
        "last layer, mean of the dims": ([study.depth], False),
        f"full cell ({study.depth}, {study.width})": ([study.depth], True),
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), sharex=True, sharey=True, layout="constrained")
    for ax, (title, (layers, whole)) in zip(axes, places.items(), strict=True):
        rows = [
            {"label": model.removeprefix("2dmse, no "), **study.difference(model, "2dmse", layers, whole)}
            for model in shown(study, tuple(ABLATIONS))
        ]
        plots.difference_dots(pd.DataFrame(rows), ax, title)
    figure.suptitle(
        "What a part of the objective adds: 2dmse minus 2dmse without it (bars: 95% over test pairs, ticks: seeds)",
        fontsize=11,
    )
    return figure


def study_independent(data: Path) -> Figure:
    """One model cut at every layer against models that were cut first and then trained."""
    study = Study.read(data)
    figure, axes = panels(2)
    wanted = (UNTOUCHED, INDEPENDENT, "2dmse", "grid")
    for ax, dims in zip(axes, (MEAN_DIMS, [study.width]), strict=True):
        draw_lines(study, wanted, ax, "layer", study.below, dims)
        ax.set_title("mean of the dims" if len(dims) > 1 else f"dim {study.width}")
    return titled(figure, axes, "One model cut at each layer, and models trained at each depth: seven STS test sets")


def study_kl(data: Path) -> Figure:
    """KL of each layer to the last, of coordinates and of in-batch scores, before and after training."""
    study = Study.read(data)
    figure, axes = plt.subplots(1, 2, figsize=(2 * PANEL[0], PANEL[1]), layout="constrained")
    rows = study.finished(study.kl)
    kinds = {"kl": "softmax over coordinates, T = 1", "score_kl": "softmax over a batch's scores, T = 0.05"}
    for ax, (column, title) in zip(axes, kinds.items(), strict=True):
        tables = {
            model: rows[rows["model"] == model].groupby("layer", as_index=False)[column].mean().assign(dim=study.width)
            for model in shown(study, (*LINES, "2dmse, no alignment"))
        }
        plots.layer_curves(tables, ax, column, "KL(last || layer) in nats", bottom=0, labels=False)
        ax.set_title(title)
    return titled(figure, axes, "KL of each layer to its own last layer, on the sentences of STS-B validation")


def study_speed(data: Path) -> Figure:
    """How much faster a layer is, and how good, untouched and trained."""
    study, costs = Study.read(data), read(data, "costs")
    models = shown(study, (UNTOUCHED, "2dmse", "grid"))
    figure, axes = panels(len(models))
    for ax, model in zip(axes, models, strict=True):
        cells = cell_costs(study.grid(model, MEAN_DIMS).drop(columns="seed"), costs)
        plots.speed_up(cells, ax)
        ax.set_title(model)
    for ax in axes[:-1]:
        ax.get_legend().remove()
    for ax in axes[1:]:
        ax.set_ylabel("")
    figure.suptitle("Speed against quality: one text, mean of seven STS test sets", fontsize=11)
    return figure


LIKE = {  # each published model, and what is trained in the same way here
    "BERT-v1": "full",
    "BERT-S-v1": INDEPENDENT,
    "MSE-v1": "mrl",
    "2DMSE-v1": "st2d-2024",
}
CAVEATS = (
    "Both rows: mean of the same seven sets, SICK-R on all 9,927 pairs; each column, one way to train. Compare "
    "patterns, not cells. Above: BERT-base, not trained for similarity before; NLI triplets in batches of 128 "
    "accumulated 128 times for at most 10 epochs, so few updates; the columns of BERT-S are one model a depth, cut "
    "(its code leaves the dim out). Below: MiniLM, tuned on a billion pairs before; a sample of NLI triplets in "
    "batches of 64, one pass."
)


def published_grids(data: Path) -> Figure:
    """Grids that others published, each above what is trained in the same way here."""
    study = Study.read(data)
    pairs = {theirs: ours for theirs, ours in LIKE.items() if study.has(ours)}
    published = {theirs: published_grid(f"reproduce_grid_7sts/{theirs}") for theirs in pairs}
    above = {f"published: {name}": table[table["task"] == MEAN] for name, table in published.items()}
    below = {f"here: {ours}": study.grid(ours, (8, *MEAN_DIMS)) for ours in pairs.values()}
    if study.has(INDEPENDENT):  # it has no last layer: a blank row, so that the rows line up
        blank = pd.DataFrame({"layer": [study.depth], "dim": [study.width], "spearman": [float("nan")]})
        below[f"here: {INDEPENDENT}"] = pd.concat([below[f"here: {INDEPENDENT}"], blank])
    title = "Published (BERT-base, 12 x 768) and here (MiniLM, 6 x 384)"
    figure = plots.heatmap_rows(above | below, title, across=len(pairs))[0].figure
    figure.supxlabel(fill(CAVEATS, 56 * len(pairs)), x=0.01, ha="left", fontsize=8)
    return figure
