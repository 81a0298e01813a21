"""Numbers in prose, tied to stored tables: blocks of a Markdown file that are written from figures/data.

A block stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``. `fill` writes every block anew; a test compares the
files of this project with what `fill` makes of them.

Use: python -m twodmse.study.report README.md
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from twodmse.files import atomic_file
from twodmse.study import answers, claims
from twodmse.study.beyond.averages import tries
from twodmse.study.beyond.backbone import backbone, backbone_claims
from twodmse.study.beyond.base_loss import base_loss
from twodmse.study.beyond.scoring import scoring
from twodmse.study.results import Study
from twodmse.study.tables import markdown, read

Block = Callable[[Path], str]


def fill(text: str, data: Path) -> str:
    """``text`` with each of its blocks written anew from the tables in ``data``.

    Raises:
        ValueError: for a block of an unknown name.
        FileNotFoundError: for a block whose table is missing.
    """

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"unknown block {name!r}: choose one of {', '.join(BLOCKS)}")
        return f"<!-- {name} -->\n{BLOCKS[name](data).strip()}\n<!-- /{name} -->"

    return re.sub(r"<!-- (?P<name>[a-z-]+) -->\n.*?<!-- /(?P=name) -->", block, text, flags=re.DOTALL)


def fill_file(path: Path, data: Path) -> None:
    """Write the blocks of a Markdown file anew."""
    text = fill(path.read_text(encoding="utf-8"), data)
    with atomic_file(path) as work:
        work.write_text(text, encoding="utf-8")


def loose_numbers(text: str) -> list[str]:
    """Decimal numbers of a Markdown text that stand outside of blocks, code, links and version numbers."""
    for pattern in (
        r"<!-- (?P<name>[a-z-]+) -->.*?<!-- /(?P=name) -->",
        r"```.*?```",
        r"`[^`]*`",
        r"\]\([^)]*\)",
        r"(Python|Apache-)\s?\d+\.\d+",
        r"(section|arXiv|eq\.)\s\d+\.\d+",
    ):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    return re.findall(r"\d+\.\d+", text)


def layer_means(grids: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Mean Spearman over tasks and dims: one row a layer, one column a model."""
    means = grids.pivot_table(index="layer", columns="model", values="spearman")
    return means[list(models)].rename(columns=lambda name: f"`{name}`" if name != "untouched" else name)


def quickstart(data: Path) -> str:
    """What the first command prints, how long it took, what the layers below the last gain and what the top pays."""
    grids, times = read(data, "quickstart"), read(data, "timings").set_index("recipe")
    models = list(dict.fromkeys(grids["model"]))
    top = grids[(grids["layer"] == grids["layer"].max()) & (grids["dim"] == grids["dim"].max())]
    full_cell = ", ".join(f"{name} {score:.2f}" for name, score in top.set_index("model")["spearman"].items())
    below = grids[grids["layer"] < grids["layer"].max()].groupby("model")["spearman"].mean()
    gains = ", ".join(f"{name} {below[name] - below['untouched']:+.2f}" for name in models[1:])
    dims = ", ".join(map(str, sorted(grids["dim"].unique())))
    took = ", ".join(f"{minutes:.1f} for `{recipe}`" for recipe, minutes in times["minutes"].items())
    return (
        "It trains the bundled all-MiniLM-L6-v2 on the bundled triplets the usual way (`full`: only the last layer), "
        "with `2dmse` and with `grid`, and prints the mean Spearman x 100 of each layer over the dims "
        f"{dims} on {grids['n'].iloc[0]} held-out pairs. Training and scoring took, in minutes on "
        f"{times['threads'].iloc[0]} threads ({times['machine'].iloc[0]}), in float32: {took}.\n\n"
        f"{markdown(layer_means(grids, models))}\n\n"
        f"Over the layers below the last that is, against untouched: {gains}. What the top pays: the full "
        f"cell ({grids['layer'].max()}, {grids['dim'].max()}) has {full_cell}.\n"
    )


def rates(data: Path) -> str:
    """The learning rates that the bundled corpus was swept over, and the full cell at each."""
    table = read(data, "quickstart_sweep")
    cells = table["spearman"].map("{:.2f}".format) + " (" + table["top"].map("{:.2f}".format) + ")"
    wide = table.assign(cell=cells).pivot(index="recipe", columns="lr", values="cell")
    return markdown(wide.rename(columns=lambda rate: f"{rate:g}").fillna("not run"))


def corpus(data: Path) -> str:
    """How baselines do on the bundled pairs."""
    scores = read(data, "corpus").set_index("baseline")["spearman"]
    return (
        f"Spearman x 100 on the test part of `mini-sts`: counting shared words (Jaccard) {scores['jaccard']:.2f}; the "
        f"untouched all-MiniLM-L6-v2 {scores['minilm 6 384']:.2f} at cell (6, 384) and {scores['minilm 1 384']:.2f} at "
        "(1, 384). Counting shared words does worse than nothing, because paraphrases share few words and decoys many."
    )


def trainer(data: Path) -> str:
    """What `grid` gets in sentence-transformers' trainer, beside the study's own runs."""
    theirs, own = read(data, "trainer"), Study.read(data)
    places = {
        "Mean of the layers below the last": (own.below, own.counted(False)),
        "full cell": ([own.depth], [own.width]),
    }
    said = []
    for place, (layers, dims) in places.items():
        found = theirs.loc[theirs["layer"].isin(layers) & theirs["dim"].isin(dims), "spearman"].mean()
        seeds = own.seed_scores("grid", layers, dims)
        said.append(f"{place} {found:.2f}, here {seeds.min():.2f} to {seeds.max():.2f} over {len(seeds)} seeds")
    return f"{'; '.join(said)}."


BLOCKS: dict[str, Block] = {
    "quickstart": quickstart,
    "rates": rates,
    "questions": answers.questions,
    "corpus": corpus,
    "trainer": trainer,
    "real": claims.real,
    "claims": claims.claims,
    "rises": claims.rises,
    "every-cell": claims.every_cell,
    "speed": claims.speed,
    "sweep": claims.sweep,
    "coverage": claims.coverage,
    "tradeoff": claims.tradeoff,
    "choices": claims.choices,
    "tries": tries,
    "base-loss": base_loss,
    "backbone": backbone,
    "backbone-claims": backbone_claims,
    "precision": claims.precision,
    "scoring": scoring,
    "paper-plan": claims.paper_plan,
}


def main(paths: Annotated[list[Path], typer.Argument(help="Markdown files to write back.")]) -> None:
    """Write the blocks of Markdown files anew from figures/data."""
    for path in paths:
        fill_file(path, Path("figures/data"))
        typer.echo(f"wrote {path}")


if __name__ == "__main__":
    typer.run(main)
