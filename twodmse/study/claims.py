"""The claims of the literature against the study's numbers: blocks of figures/CLAIMS.md, written from the tables.

A claim about a difference holds if the 95% interval of the paired bootstrap over the test pairs and the difference of
every seed lie above 0, fails if all of them lie below, and is open otherwise. A claim whose runs are not stored is not
tested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from twodmse.study.beyond.elsewhere import BERT_BASE, MINILM, step_bytes, step_flops
from twodmse.study.plans import ABLATIONS, FLOAT32, INDEPENDENT, PLANS, STUDIED
from twodmse.study.results import MEAN_DIMS, UNTOUCHED, Study, curve_points, dominated, falls
from twodmse.study.tables import markdown, read

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "open", "not tested here"


@dataclass(frozen=True)
class Comparison:
    """A claim that ``second`` scores higher than ``first`` at some cells."""

    words: str
    first: str
    second: str
    where: str  # a key of `PLACES` or `LAYERS`

    def row(self, study: Study) -> dict[str, str]:
        """The claim, its numbers and its verdict."""
        where, layers, whole = (PLACES | LAYERS)[self.where](study)
        row = {"claim": self.words, "where": where, "first": "", "second": "", "difference": "", "seed by seed": ""}
        if not study.has(self.first, self.second):
            return row | {"verdict": UNTESTED}
        found = study.difference(self.first, self.second, layers, whole)
        row["first"] = f"`{self.first}` {found['first']:.2f}"
        row["second"] = f"`{self.second}` {found['second']:.2f}"
        row["difference"] = f"{found['difference']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"
        row["seed by seed"] = ", ".join(f"{difference:+.2f}" for difference in found["seeds"])
        return row | {"verdict": verdict(found["low"], found["high"], *found["seeds"])}


PLACES: dict[str, Callable[[Study], tuple[str, range | list[int], bool]]] = {
    "below": lambda study: (f"layers 1 to {study.depth - 1}, mean of the dims", study.below, False),
    "last": lambda study: (f"layer {study.depth}, mean of the dims", [study.depth], False),
    "full": lambda study: (f"cell ({study.depth}, {study.width})", [study.depth], True),
}
LAYERS: dict[str, Callable[[Study], tuple[str, range | list[int], bool]]] = {
    "layer 3": lambda study: ("layer 3, mean of the dims", [3], False),
    "layer 6": lambda study: ("layer 6, mean of the dims", [6], False),
}
CLAIMS = [
    Comparison("2DMSE lifts the layers below the last", UNTOUCHED, "2dmse", "below"),
    Comparison("... further than fine-tuning the last layer does", "full", "2dmse", "below"),
    Comparison("... and further than Matryoshka training of the last layer", "mrl", "2dmse", "below"),
    Comparison("Matryoshka training is better than none when the width is cut", "full", "mrl", "last"),
    Comparison("2DMSE is as good as MRL when only the width is cut", "mrl", "2dmse", "last"),
    Comparison("Training in two dimensions costs nothing at the full cell", "full", "2dmse", "full"),
    *(
        Comparison(f"The objective needs its part: {name.removeprefix('2dmse, no ')}", name, "2dmse", place)
        for name in ABLATIONS
        for place in ("below", "last")
    ),
    Comparison("Scaled-down models beat independently trained ones", INDEPENDENT, "2dmse", "below"),
    Comparison("The weights by depth of the authors' second version help", "2dmse", "2dmse-weighted", "below"),
    Comparison("Starbucks' fixed cells are better than one drawn at random", "2dmse", "starbucks", "below"),
    Comparison("... also at the full cell", "2dmse", "starbucks", "full"),
    Comparison("`grid` beats sentence-transformers' Matryoshka2dLoss", "st2d", "grid", "below"),
    Comparison("`grid` beats independently trained models", INDEPENDENT, "grid", "below"),
    Comparison("`grid` keeps the full cell of the untouched model", UNTOUCHED, "grid", "full"),
    Comparison("`grid` has more at the full cell than fine-tuning the last layer gives", "full", "grid", "full"),
]


def verdict(*found: float) -> str:
    """What the ends of a difference's interval and the differences of the seeds say of the claim that it is above 0."""
    return HOLDS if min(found) > 0 else FAILS if max(found) < 0 else OPEN


def claims(data: Path) -> str:
    """Every comparison, one row each."""
    study = Study.read(data)
    table = pd.DataFrame([claim.row(study) for claim in CLAIMS]).set_index("claim")
    return markdown(table)


def choices(data: Path) -> str:
    """Every comparison again, each model at the rate that is best for the top on validation, and at that best below."""
    top, below = (Study.at_best(data, place) for place in ("full", "below"))
    whole = [model for model in below.models if model != UNTOUCHED]
    if not whole:
        return "No curve is whole yet: no claim is tested here."
    compared = [claim for claim in CLAIMS if not {claim.first, claim.second} & set(ABLATIONS)]
    rates = {m: [t.settings["lr"] for t in PLANS["curves"].trials if t.model == m] for m in whole}
    return (
        f"{markdown(at_both(compared, top, below))}\n\nWhole curves: {', '.join(f'`{model}`' for model in whole)}. A "
        "claim about a model whose curve is not whole is not tested. Rates picked on STS-B validation, for the top and "
        f"below: {picked(rates, top, below)}. At an end of the rates run (marked *) the best may lie beyond."
    )


def at_both(compared: list[Comparison], top: Study, below: Study) -> pd.DataFrame:
    """Each comparison's difference and verdict in two studies: models at their best for the top, and below."""
    table = pd.DataFrame([claim.row(below) for claim in compared]).set_index("claim")[["where"]]
    for name, study in {"at the best for the top": top, "at the best below": below}.items():
        found = [claim.row(study) for claim in compared]
        table[name] = [f"{row['difference']} {row['verdict']}".strip() for row in found]
    return table


def picked(rates: dict[str, list[float]], top: Study, below: Study) -> str:
    """The learning rate of each model at both choices, of those in ``rates``, and how many seeds are stored at it."""

    def said(study: Study, model: str) -> str:
        rate, seeds = study.rates[model], study.seeds(model) if study.has(model) else 0
        end = "*" if rate in (min(rates[model]), max(rates[model])) else ""
        return f"{rate:g}{end} ({f'{seeds} seed' + 's' * (seeds > 1) if seeds else 'not run'})"

    return "; ".join(f"`{model}` {said(top, model)} and {said(below, model)}" for model in rates)


def rises(data: Path) -> str:
    """Whether quality rises with every dim."""
    study = Study.read(data)
    lines = []
    for model in STUDIED:
        if not study.has(model):
            continue
        grid = study.grid(model)
        steps = grid["layer"].nunique() * (grid["dim"].nunique() - 1)
        fall, words = falls(grid), "none"
        if len(fall):
            by, layer, dim = fall.loc[fall["fall"].idxmax(), ["fall", "layer", "dim"]]
            words = f"{len(fall)}, the largest by {by:.2f} at layer {layer:.0f} on the way to dim {dim:.0f}"
        lines.append(f"- `{model}`: of {steps} steps from one dim to the next, those that fall: {words}.")
    return "\n".join(lines)


def every_cell(data: Path) -> str:
    """How many of the cells below the last layer `grid` has above `st2d`, and its means."""
    study = Study.read(data)
    if not study.has("grid", "st2d"):
        return "The runs of `st2d` and `grid` are not both stored: not tested here."
    ours, theirs = (
        table[table["layer"].isin(study.below)].groupby(["layer", "dim"])["spearman"].mean()
        for table in (study.grid("grid", MEAN_DIMS), study.grid("st2d", MEAN_DIMS))
    )
    above = int((ours > theirs).sum())
    return (
        f"`grid` is above `st2d` in {above} of the {len(ours)} cells of layers 1 to {study.depth - 1} and dims "
        f"{', '.join(map(str, MEAN_DIMS))}; the smallest lead is {(ours - theirs).min():.2f}. Its mean over them is "
        f"{ours.mean():.2f} (`st2d`: {theirs.mean():.2f}), and at ({study.depth}, {study.width}) it has "
        f"{study.score('grid', [study.depth], [study.width]):.2f}."
    )


def speed(data: Path) -> str:
    """How much faster the layers are."""
    costs = read(data, "costs")
    table = costs.set_index("layer")[["one_text_ms", "ratio", "texts_per_second"]]
    table = table.assign(faster=1 / table["ratio"]).drop(columns="ratio")
    table.columns = ["ms for one text", "texts a second", "times faster"]
    return f"On {costs['machine'].iloc[0]}:\n\n{markdown(table)}"


def sweep(data: Path) -> str:
    """The learning rates tried, with the validation mean of each."""
    table = read(data, "study_sweep").pivot(index="model", columns="lr", values="spearman")
    return markdown(table.rename(columns=lambda rate: f"{rate:g}"))


def tradeoff(data: Path) -> str:
    """Each recipe at each learning rate, and which points of `grid` lie above the curves of the others."""
    points = curve_points(data)
    trained = points[points["lr"] > 0]
    rates = sorted({trial.settings["lr"] for trial in PLANS["curves"].trials} | set(trained["lr"]))
    curves = trained.groupby(["model", "lr"])[["below", "full"]].mean()
    means = curves.round(2)
    models = dict.fromkeys(INDEPENDENT if t.layers else t.model for t in PLANS["curves"].trials)

    def cell(model: str, rate: float) -> str:
        if (model, rate) not in means.index:
            return "not run"
        below, full = means.loc[(model, rate)]
        return f"{below:.2f}" + ("" if pd.isna(full) else f" / {full:.2f}")

    table = pd.DataFrame({f"{rate:g}": {f"`{m}`": cell(m, rate) for m in models} for rate in rates})
    missing = int((table == "not run").to_numpy().sum())
    said = f"All {table.size} points are run."
    if missing:
        said = (
            f"{missing} of the {table.size} points are not run yet: a curve with one point is no curve, and what is "
            "said of it is said of that rate alone."
        )
    return f"{markdown(table)}\n\n{said}\n\n{dominance(curves.query('model in @models'))}".strip()


def dominance(curves: pd.DataFrame) -> str:
    """Which curves lie above which: of each model's rates, those with a point of another above them in both places.

    Args:
        curves: ``below`` and ``full`` of each model and learning rate (the index); those without ``full`` are left out.
    """
    curves = curves.dropna()
    models = curves.groupby("model", sort=False)["full"].max().sort_values(ascending=False).index  # the best top first
    rows = {}
    for model in models:
        curve = curves.loc[model]
        row = {"rates run": str(len(curve)), "best below": f"{curve['below'].max():.2f}"}
        row["best at the top"] = f"{curve['full'].max():.2f}"
        row |= {f"`{by}`": "" if by == model else str(dominated(curve, curves.loc[by]).sum()) for by in models}
        rows[f"`{model}`"] = row
    if len(rows) < 2:
        return ""
    return (
        "Which lies above which: of the rates in a row, how many have a point of the recipe in the column above them, "
        f"both below and at the top:\n\n{markdown(pd.DataFrame(rows).T.rename_axis('recipe'))}"
    )


def coverage(data: Path) -> str:
    """How many of the planned runs are stored."""
    study = Study.read(data)
    planned = PLANS["minilm"].trials
    counts = pd.Series([t.model for t in planned]).value_counts()
    rows = [(m, study.seeds(m) if study.has(m) else 0, counts[m]) for m in dict.fromkeys(t.model for t in planned)]
    missing = ", ".join(f"`{m}` {have} of {wanted}" for m, have, wanted in rows if have < wanted)
    return (
        f"Stored: {len(study.runs)} of {len(planned)} planned runs, of {study.runs['steps'].max()} steps of "
        f"{study.runs['batch_size'].iloc[0]} triplets each"
        + (f". Still to run (`make study` goes on): {missing}." if missing else ".")
    )


def precision(data: Path) -> str:
    """What training in mixed precision changes: one seed, trained both ways."""
    study = Study.read(data)
    words = []
    for place in PLACES.values():
        where, layers, whole = place(study)
        pairs = study.seed_pairs(FLOAT32, "2dmse", layers, whole)
        if 0 not in pairs.index:
            return "Seed 0 of `2dmse` is not stored in both precisions: not tested here."
        words.append(f"{where}: {pairs.at[0, 'first']:.2f} and {pairs.at[0, 'second']:.2f}")
    return f"Seed 0 of `2dmse` was trained in float32 and in bfloat16. {'; '.join(words)}."


def paper_plan(data: Path) -> str:
    """What the plan ``paper`` would cost on one GPU, from the operations of a step and the time of a step here."""
    runs, plan, rate = read(data, "study_runs"), PLANS["paper"], 40e12
    here = runs[runs["model"] == "2dmse"].iloc[0]
    small = step_flops(MINILM["layers"], MINILM["width"], int(here["batch_size"]))
    passes = [2 if trial.settings.get("two_passes") else 1 for trial in plan.trials if trial.settings]
    one, two = (step_flops(BERT_BASE["layers"], BERT_BASE["width"], plan.batch_size, n) for n in (1, 2))
    memory = step_bytes(**BERT_BASE, batch_size=plan.batch_size, passes=2)
    seconds = here["seconds"] / here["steps"]
    hours = plan.steps / rate / 3600
    total = hours * sum(two if n == 2 else one for n in passes)
    return (
        f"A step of `2dmse` here is {small / 1e12:.2f} TFLOP and took {seconds:.1f} s ({small / seconds / 1e9:.0f} "
        f"GFLOP/s, threads: {here['threads']}, {here['device']}, beside other work). A step of `2dmse` in the plan "
        f"`paper` (BERT-base, batches of {plan.batch_size}, two forward passes) is {two / 1e12:.1f} TFLOP: at "
        f"{rate / 1e12:.0f} TFLOP/s sustained, {plan.steps} steps take about {hours * two:.1f} hours, and the "
        f"{len(passes)} training runs together, most of them with one pass, {total:.0f} hours, scoring aside. "
        f"Memory: about {memory / 2**30:.0f} GiB."
    )


def real(data: Path) -> str:
    """What one pass over real triplets gives on the seven real test sets."""
    study = Study.read(data)
    models = [model for model in (UNTOUCHED, "full", "mrl", "2dmse", "st2d", "grid") if study.has(model)]
    layers = range(1, study.depth + 1)
    rows = {
        ("`" + model + "`" if model != UNTOUCHED else model): [study.score(model, [n], [study.width]) for n in layers]
        for model in models
    }
    below = ", ".join(f"{model} {study.score(model, study.below, MEAN_DIMS):.2f}" for model in models)
    seeds = ", ".join(f"{model} {study.seeds(model)}" for model in models[1:])
    return (
        f"all-MiniLM-L6-v2, {study.runs['steps'].max()} steps of 64 triplets of `all-nli` (a sample of SNLI), "
        f"scored on STS12 to STS16, STS-B and SICK-R; means over seeds ({seeds}). Mean Spearman x 100 of each layer at "
        f"the full width:\n\n{markdown(pd.DataFrame(rows, index=pd.Index(layers, name='layer')))}\n\n"
        f"Mean over the cells of the layers below the last and the dims {', '.join(map(str, MEAN_DIMS))}: {below}.\n"
    )
