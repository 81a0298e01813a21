"""The pictures of this project, drawn from the stored tables alone and the same byte for byte each time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from twodmse import plots
from twodmse.files import atomic_file
from twodmse.study import pictures
from twodmse.study.answers import BOOKS
from twodmse.study.beyond.backbone import FOLDER, NAME, second_backbone, second_layers
from twodmse.study.beyond.base_loss import base_loss_curves
from twodmse.study.plans import ABLATIONS
from twodmse.study.results import Study
from twodmse.study.tables import read, table_path

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": None}},
    "pdf": {"metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
}
INDEX = """# Figures

Every picture here is drawn from the tables in `data/` by `make figures`; nothing else goes into them. What the study's
numbers say about the claims of the literature is in [CLAIMS.md](CLAIMS.md).

| figure | what it shows | tables | drawn by | notebook | answers |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Picture:
    """One figure: its file name, what it shows, the tables it is drawn from and the function that draws it."""

    name: str
    shows: str
    tables: tuple[str, ...]
    draw: Callable[[Path], Figure]
    notebook: str  # number of the notebook that shows and explains it
    answers: str = ""  # the figure or table of the literature that it answers
    models: tuple[str, ...] = ()  # of the study, without which there is nothing to draw

    def ready(self, data: Path) -> bool:
        """Whether the folder of tables holds what it is drawn from."""
        stored = all(table_path(data, table).is_file() for table in self.tables)
        return stored and (not self.models or Study.read(data).has(*self.models))

    def row(self) -> str:
        """Its line of the index page."""
        tables = ", ".join(f"[{table}](data/{table_path(Path(), table)})" for table in self.tables)
        drawn = f"`{self.draw.__module__.removeprefix('twodmse.')}.{self.draw.__name__}`"
        book = f"[{self.notebook}](../notebooks/{BOOKS[self.notebook]}.ipynb)"
        return f"| [{self.name}]({self.name}.png) | {self.shows} | {tables} | {drawn} | {book} | {self.answers} |"


def draw_figures(out: str | Path, data: str | Path | None = None) -> list[Path]:
    """Draw every figure whose table is stored, as PNG and PDF, and write the index page.

    Args:
        out: folder of the pictures.
        data: folder of the tables; ``out/data`` if None.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: if there is no table at all.
    """
    out = Path(out)
    data = out / "data" if data is None else Path(data)
    known = [picture for picture in PICTURES if picture.ready(data)]
    if not known:
        raise FileNotFoundError(f"there are no stored tables in {data}: name the folder that holds them")
    written = []
    for picture in known:
        figure = picture.draw(data)
        for ending, options in FORMATS.items():
            path = out / f"{picture.name}.{ending}"
            with atomic_file(path) as work:
                figure.savefig(work, **options)
            written.append(path)
        matplotlib.pyplot.close(figure)
    with atomic_file(out / "README.md") as work:
        work.write_text(INDEX + "\n".join(picture.row() for picture in known) + "\n", encoding="utf-8")
    return [*written, out / "README.md"]


def quickstart(data: Path) -> Figure:
    """The grids that `make quickstart` compares."""
    grids = dict(list(read(data, "quickstart").groupby("model", sort=False)))
    return plots.heatmaps(grids, "Spearman x 100 on held-out pairs (mini-sts test)")[0].figure


STUDY = ("study_runs", "study_cells")
PICTURES = [
    Picture(
        "study_front",
        "the idea on real data: the grid before training and after `full`, `2dmse` and `grid`, seven test sets",
        STUDY,
        pictures.study_front,
        "08",
    ),
    Picture(
        "quickstart",
        "on the bundled corpus, the layer x dim grid before training and after `full`, `2dmse` and `grid`",
        ("quickstart",),
        quickstart,
        "01",
    ),
    Picture(
        "study_grids",
        "the grid of every recipe on the seven real test sets",
        STUDY,
        pictures.study_grids,
        "08",
        "2DMSE v1, STS tables at each layer; Reproduce, grids",
    ),
    Picture(
        "study_layers",
        "quality over depth at three dims",
        STUDY,
        pictures.study_layers,
        "08",
        "2DMSE v1, curves over layers",
    ),
    Picture(
        "study_dims",
        "quality over width at three layers",
        STUDY,
        pictures.study_dims,
        "08",
        "2DMSE v1, curves over dims; MRL",
    ),
    Picture(
        "study_tradeoff",
        "the layers below the last against the full cell, each recipe through its learning rates",
        ("study_summary",),
        pictures.study_tradeoff,
        "08",
    ),
    Picture(
        "study_base_loss",
        "the recipes of the paper with its base loss and with the ranking loss, through their learning rates",
        ("study_summary",),
        base_loss_curves,
        "08",
        "2DMSE v1, base loss",
    ),
    Picture(
        "study_ablation",
        "what each part of the objective of `2dmse` adds",
        (*STUDY, "study_draws"),
        pictures.study_ablation,
        "08",
        "2DMSE v1, ablation table",
        ("2dmse", *ABLATIONS),
    ),
    Picture(
        "study_independent",
        "one model cut at each layer against models trained at each depth",
        STUDY,
        pictures.study_independent,
        "08",
        "2DMSE v1, scaled-down models; Reproduce, BERT-S; Starbucks, table A1",
    ),
    Picture(
        "study_kl",
        "KL of each layer to the last before and after training",
        ("study_runs", "study_kl"),
        pictures.study_kl,
        "05",
    ),
    Picture(
        "study_speed",
        "how many times faster a layer is, against its quality",
        (*STUDY, "costs"),
        pictures.study_speed,
        "08",
        "2DMSE v1, inference time",
    ),
    Picture(
        "second_backbone",
        f"the grid of each run on a second backbone, {NAME}, 12 x 768, beside the first before training",
        (*STUDY, f"{FOLDER}/study_runs", f"{FOLDER}/study_cells"),
        second_backbone,
        "08",
    ),
    Picture(
        "second_layers",
        f"quality over depth on {NAME}, each model at the rate its sweep picks for the full cell",
        tuple(f"{FOLDER}/{table}" for table in (*STUDY, "study_sweep")),
        second_layers,
        "08",
        "2DMSE v1, curves over layers",
    ),
    Picture(
        "published_grids",
        "grids that others published beside the same recipes here",
        STUDY,
        pictures.published_grids,
        "08",
        "Reproduce, average of seven STS sets",
        ("full", "mrl"),
    ),
]
