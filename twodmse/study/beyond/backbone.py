"""The second backbone, 12 x 768: its grids as one picture, and beside the first, from the tables alone."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from twodmse import plots
from twodmse.study.claims import CLAIMS, Comparison, at_both, picked
from twodmse.study.pictures import over_layers
from twodmse.study.plans import INDEPENDENT, PLANS, chosen_rates
from twodmse.study.results import MEAN_DIMS, UNTOUCHED, Study
from twodmse.study.tables import markdown, read, table_path

PLAN = PLANS["mpnet"]
FOLDER = "mpnet"  # its tables lie in a folder of their own, beside those of the first
NAME = PLAN.backbone.split("/")[-1]
RECIPES = ("2dmse", "full", "st2d", "grid")
COMPARED = [claim for claim in CLAIMS if {claim.first, claim.second} <= {UNTOUCHED, *RECIPES}] + [
    Comparison(f"`{model}` cut at layer {n} beats a model trained at {n} layers", f"{INDEPENDENT} {n}", model, place)
    for n, place in ((6, "layer 6"), (3, "layer 3"))
    for model in ("2dmse", "grid")
]


def grids(data: Path) -> dict[str, pd.DataFrame]:
    """The cells of each finished run by its name in pictures: the model, and its learning rate where it was trained."""
    cells, runs = (read(data / FOLDER, f"study_{table}") for table in ("cells", "runs"))
    cells = cells[cells["dim"].isin(PLAN.mean_dims)]
    runs = runs[~runs["model"].str.startswith(INDEPENDENT)]  # they have one layer
    runs = runs.assign(trained=runs["model"] != UNTOUCHED).sort_values(["trained", "model", "lr"])
    named = {run.run: run.model + (f", lr {run.lr:g}" if run.lr else "") for run in runs.itertuples()}
    return {name: cells[cells["run"] == run] for run, name in named.items()}


def second_backbone(data: Path) -> Figure:
    """The layer x dim grid of every run on the second backbone, after that of the first before training."""
    panels = {f"all-MiniLM-L6-v2, {UNTOUCHED}": Study.read(data).grid(UNTOUCHED, MEAN_DIMS)}
    panels |= {f"{NAME}, {run}": grid for run, grid in grids(data).items()}
    title = "A second backbone: Spearman x 100, mean of seven STS test sets"
    return plots.heatmap_rows(panels, title, across=min(4, len(panels)))[0].figure


def second_layers(data: Path) -> Figure:
    """Spearman over the layers of the second backbone at three dims, each model at its sweep's best rate for (N, D)."""
    return over_layers(at_best(data, "full"), f"{NAME}, quality over depth: mean of seven STS test sets")


def backbone(data: Path) -> str:
    """The block of figures/CLAIMS.md: what is stored, and both models before any training at equal depth."""
    stored = table_path(data / FOLDER, "study_runs")
    had = set(read(data / FOLDER, "study_runs")["model"]) if stored.is_file() else set()
    if UNTOUCHED not in had:
        return f"No run on {NAME} is stored: not tested here."
    first, second = Study.read(data), Study.read(data / FOLDER)
    rows = {}
    for layer in range(1, first.depth + 1):
        twice = layer * second.depth // first.depth
        rows[f"{layer} of {first.depth}, {twice} of {second.depth}"] = [
            study.score(UNTOUCHED, [n], dims)
            for study, n, counted in ((first, layer, MEAN_DIMS), (second, twice, PLAN.mean_dims))
            for dims in ([study.width], counted)
        ]
    names = [f"{model}, {dims}" for model in ("MiniLM", NAME) for dims in ("full width", "mean of the dims")]
    table = pd.DataFrame(rows, index=names).T
    table.index.name = "layer"
    whole = second.finished(second.cells).query("model == @UNTOUCHED and layer == layer.max() and dim == dim.max()")
    top = whole.set_index("task")["spearman"]
    missing = ", ".join(f"`{m}`" for m in dict.fromkeys(trial.model for trial in PLAN.trials) if m not in had)
    return (
        f"{NAME}, {second.depth} x {second.width}, untouched: STS-B {top['stsb']:.2f} and SICK-R "
        f"{top['sickr']:.2f} at the full cell. Both models before any training, at the same share of their layers; the "
        f"dims of the means are {', '.join(map(str, MEAN_DIMS))} and {', '.join(map(str, PLAN.mean_dims))}:\n\n"
        f"{markdown(table)}\n\n" + (f"Not run on {NAME}: {missing}." if missing else "")
    ).strip()


def at_best(data: Path, place: str) -> Study:
    """Each model whose sweep is whole, at the rate that is best in it at one place, ``full`` or ``below``."""
    sweep, rates = read(data / FOLDER, "study_sweep"), {}
    for model in dict.fromkeys(trial.rate_of for trial in PLAN.trials if trial.rate_of):
        if {run.name for run in PLAN.sweep_of(model)} <= set(sweep["run"]):
            chosen = chosen_rates(sweep, model)
            rates[model] = chosen.get(place, chosen["below"])
    return Study.at_rates(data / FOLDER, rates, PLAN.mean_dims)


def backbone_claims(data: Path) -> str:
    """The block of figures/CLAIMS.md: each run, and the claims at both choices of the learning rate."""
    folder = data / FOLDER
    trained = read(folder, "study_summary").query("split == 'test' and lr > 0")
    if trained.empty:
        return f"No training on {NAME} is stored: not tested here."
    table = trained.set_index(trained["model"].map("`{}`".format) + trained["lr"].map(", {:g}".format))
    table = table[["below", "full"]].rename_axis("model, learning rate")
    top, below = (at_best(data, place) for place in ("full", "below"))
    models = [m for m in dict.fromkeys((*top.models, *below.models)) if m != UNTOUCHED]
    steps = read(folder, "study_runs")["steps"].max()
    said = (
        f"Runs of {steps} steps of {PLAN.batch_size} triplets. Mean of the layers below the last / full cell, on the "
        f"seven test sets:\n\n{markdown(table.astype(object).where(table.notna(), ''))}\n\n"
        f"{markdown(at_both(COMPARED, top, below))}"
    )
    if models:
        rates = {model: list(PLAN.rates) for model in models}
        said += (
            f"\n\nRates picked by sweeps of {PLAN.sweep_steps} steps on STS-B validation, for the top and below, of "
            f"{', '.join(f'{rate:g}' for rate in PLAN.rates)}: {picked(rates, top, below)}. At an end of the rates "
            "(marked *) the best may lie beyond."
        )
    return said
