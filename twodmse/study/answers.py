"""The questions that a reader of the paper asks, each answered in one sentence from the stored tables."""

from collections.abc import Callable
from pathlib import Path

from twodmse.study.beyond.base_loss import at_rates_picked, both, whole_curves
from twodmse.study.plans import ABLATIONS, INDEPENDENT
from twodmse.study.results import UNTOUCHED, Study, falls
from twodmse.study.tables import read

BOOKS = {
    "01": "01_quickstart", "02": "02_one_step_by_hand", "03": "03_training_runs", "04": "04_layer_by_dim_grid",
    "05": "05_alignment", "06": "06_explorer", "07": "07_what_it_costs", "08": "08_paper_figures",
    "09": "09_bring_your_own",
}  # fmt: skip
NO_LAST, NO_ALIGNMENT, NO_DIMS = ABLATIONS


def below(study: Study, *models: str) -> str:
    """The means of models over the layers below the last and the dims, in words."""
    return ", ".join(f"{m} {study.score(m, study.below, study.counted(False)):.2f}" for m in models)


def undone(study: Study, _: Path) -> str:
    """What MRL leaves undone."""
    means = below(study, UNTOUCHED, "mrl", "2dmse")
    return f"The layers: it trains the last one, and below it the mean over layers and dims is {means}."


def bought(study: Study, _: Path) -> str:
    """What the two dimensions buy."""
    found = study.difference(UNTOUCHED, "2dmse", study.below)
    three = ", ".join(f"{m} {study.score(m, [3], [64]):.2f}" for m in (UNTOUCHED, "2dmse"))
    return f"{found['difference']:+.2f} points on average below the last layer; the cell (3, 64), say, has {three}."


def aligned(study: Study, _: Path) -> str:
    """What alignment does, and how much."""
    kl = study.finished(study.kl).query("layer == 3").groupby("model")["kl"].mean()
    gain = study.difference(NO_ALIGNMENT, "2dmse", study.below)["difference"]
    return (
        f"It draws layers to the last: the KL of layer 3 is {kl[UNTOUCHED]:.3f} untouched, {kl['2dmse']:.3f} with the "
        f"term and {kl[NO_ALIGNMENT]:.3f} without it; in scores below the last layer that is worth {gain:+.2f}."
    )


def together(study: Study, _: Path) -> str:
    """How the terms are optimised together."""
    top, low = (study.difference(NO_LAST, "2dmse", layers)["difference"] for layers in ([study.depth], study.below))
    return (
        f"As one sum a step: the last layer always, one layer and one dim drawn. The last layer's loss is worth "
        f"{top:+.2f} at the last layer and {low:+.2f} below it."
    )


def fitting(study: Study, data: Path) -> str:
    """Which cells fit which budget."""
    costs = read(data, "costs").set_index("layer")
    whole = study.score("grid", [study.depth], [study.width])
    return (
        f"Of `grid`'s cells, (6, 64) has {study.score('grid', [6], [64]):.2f} in a sixth of the bytes, (3, 384) "
        f"{study.score('grid', [3], [study.width]):.2f} in {costs.loc[3, 'ratio']:.2f} of the time, and (3, 64) "
        f"{study.score('grid', [3], [64]):.2f} in both; the full cell has {whole:.2f}."
    )


def compared(study: Study, data: Path) -> str:
    """How it compares with AnglE and MRL, and which trends show."""
    three = ("full", "mrl", "2dmse")
    top = ", ".join(f"{m} {study.score(m, [study.depth], [study.width]):.2f}" for m in three)
    grid = study.grid("2dmse")
    steps = grid["layer"].nunique() * (grid["dim"].nunique() - 1)
    said = (
        f"With `full` in AnglE's place: at the full cell {top}, below the last layer {below(study, *three)}; scores of "
        f"2dmse rise with depth and in all but {len(falls(grid))} of {steps} steps in width."
    )
    whole = whole_curves(data)
    if {*three} <= {*whole}:
        mixed, _ = at_rates_picked(data, whole)
        places = ", ".join(f"{m} {both(mixed, whole[m])}" for m in three)
        said += f" With AnglE's own loss, each at its rate that is best for the top, below / full: {places}."
    return said


def parts(study: Study, _: Path) -> str:
    """What each component is worth."""
    names = {NO_DIMS: "the cut dims", NO_ALIGNMENT: "the alignment", NO_LAST: "the last layer's loss"}
    worth = {words: study.difference(m, "2dmse", study.below)["difference"] for m, words in names.items()}
    return "Below the last layer: " + ", ".join(f"{words} {gain:+.2f}" for words, gain in worth.items()) + "."


def gained(_: Study, data: Path) -> str:
    """What inference gains in time and memory."""
    costs = read(data, "costs").set_index("layer")
    half, whole = costs.loc[3], costs.iloc[-1]
    return (
        f"Half of the layers are {1 / half['ratio']:.2f} times as fast and {half['bytes_on_disk'] / 1e6:.1f} of "
        f"{whole['bytes_on_disk'] / 1e6:.1f} MB, since the word vectors stay; 64 coordinates are a sixth of the bytes."
    )


def own_size(study: Study, _: Path) -> str:
    """How it stands against models trained at their own size."""
    ours, grids = (study.difference(INDEPENDENT, m, study.below)["difference"] for m in ("2dmse", "grid"))
    return f"Against one model for each depth, below the last layer: 2dmse {ours:+.2f}, grid {grids:+.2f}."


def failing(study: Study, _: Path) -> str:
    """Where it fails, and what is open."""
    top = study.difference("full", "2dmse", [study.depth], whole=True)["difference"]
    width = study.difference("full", "mrl", [study.depth])["difference"]
    return (
        f"The full cell pays ({top:+.2f} to `full`), and training widths changes the last layer by {width:+.2f} where "
        f"the paper promises a gain; open is the paper's own setting, BERT-base on all of NLI, which was not run here."
    )


Answer = Callable[[Study, Path], str]
QUESTIONS: list[tuple[str, Answer, str, str]] = [
    ("What does MRL leave undone?", undone, "03", "study_layers"),
    ("What do the two dimensions buy?", bought, "04", "study_grids"),
    ("What does alignment do, and how much?", aligned, "05", "study_kl"),
    ("How are the terms optimised together?", together, "02", "study_ablation"),
    ("Which cells fit which budget?", fitting, "07", "study_speed"),
    ("How does it compare with AnglE and MRL, and which trends show?", compared, "08", "study_dims"),
    ("What is each component worth?", parts, "08", "study_ablation"),
    ("What does inference gain in time and memory?", gained, "07", "study_speed"),
    ("How does it stand against models trained at their own size?", own_size, "08", "study_independent"),
    ("Where does it fail, and what is open?", failing, "08", "study_tradeoff"),
]


def questions(data: Path) -> str:
    """The table of README: question, answer, and where to look."""
    study = Study.read(data)
    rows = [
        f"| {question} | {answer(study, data)} | [{book}](notebooks/{BOOKS[book]}.ipynb), "
        f"[figure](figures/{figure}.png) |"
        for question, answer, book, figure in QUESTIONS
    ]
    return "\n".join(["| question | answer | see |", "| --- | --- | --- |", *rows])
