"""The pictures of this project, drawn from the stored tables alone and the same byte for byte each time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from twodmse import plots
from twodmse.files import atomic_file
from twodmse.report import read

FORMATS = {
    "png": {"dpi": 150, "metadata": {"Software": None}},
    "pdf": {"metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
}
INDEX = """# Figures

Every picture here is drawn from the tables in `data/` by `make figures`; nothing else goes into them.

| figure | what it shows | table | drawn by |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Picture:
    """One figure: its file name, what it shows, the table it is drawn from and the function that draws it."""

    name: str
    shows: str
    table: str
    draw: Callable[[Path], Figure]


def draw_figures(out: str | Path, data: str | Path | None = None) -> list[Path]:
    """Draw every figure whose table is stored, as PNG and PDF, and write the index page.

    Args:
        out: folder of the pictures. data: folder of the tables; ``out/data`` if None.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: if there is no table at all.
    """
    out = Path(out)
    data = out / "data" if data is None else Path(data)
    known = [picture for picture in PICTURES if (data / f"{picture.table}.csv").is_file()]
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
    rows = [
        f"| [{p.name}]({p.name}.png) | {p.shows} | [{p.table}.csv](data/{p.table}.csv) | `figures.{p.draw.__name__}` |"
        for p in known
    ]
    with atomic_file(out / "README.md") as work:
        work.write_text(INDEX + "\n".join(rows) + "\n", encoding="utf-8")
    return [*written, out / "README.md"]


def quickstart(data: Path) -> Figure:
    """The three grids that `make quickstart` compares."""
    table = read(data, "quickstart")
    grids = {name: table[table["model"] == name] for name in ("untouched", "full", "2dmse")}
    return plots.heatmaps(grids, "Spearman x 100 on held-out pairs (mini-sts test)")[0].figure


def allnli(data: Path) -> Figure:
    """The grids of the seven real test sets before training and after each recipe."""
    table = read(data, "allnli")
    grids = {name: table[table["model"] == name] for name in dict.fromkeys(table["model"])}
    return plots.heatmaps(grids, "Spearman x 100, mean of seven STS test sets")[0].figure


PICTURES = [
    Picture(
        "quickstart", "the layer x dim grid before training, after `full` and after `2dmse`", "quickstart", quickstart
    ),
    Picture("allnli", "the grids of the seven real test sets before training and after each recipe", "allnli", allnli),
]
