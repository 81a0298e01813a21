"""Bring your own: a model and texts of the reader's choice, their grid, the best cell under a budget, the cut saved."""

import tempfile
from collections.abc import Sequence
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display

from twodmse.data.sets import TextSet, load_pairs
from twodmse.efficiency.costs import CellCost, best_cell
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import as_texts
from twodmse.widgets import cells
from twodmse.widgets.controls import LABEL, WIDE, text_box
from twodmse.widgets.scored import Grid

MOST_SENTENCES = 150  # pasted without scores: every two of them make a pair
AGREEMENT, FULL_SIZE = "agreement with the full size", "full-size cosine"  # of sentences without scores
NOTHING = "nothing is loaded yet: press “Score the grid”"


class BringYourOwn:
    """Name a model, give texts, see every cell of it; then find the best one within a budget, and save it.

    Scored pairs (a file with sentence1, sentence2, score, or lines of that with tabs between) are scored by Spearman
    with the scores. Sentences without scores are scored by how far each cell agrees with the full size: Spearman of
    the cosines of every two of them with those at the cell (N, D). What was given last is scored: a file that is
    chosen comes before the text box, and is let go of as soon as something is typed there.

    Args:
        model: a name to start with: ``bundled``, a hub id, or a folder.
        texts: what to start with: a name or path that `load_pairs` takes, or a list of sentences; None means nothing.
        out: the folder that the cut is saved to.

    Raises:
        ValueError: for what is no list of sentences, and as `load`.
        FileNotFoundError: as `load`.
    """

    def __init__(
        self, model: str | Path = "bundled", texts: str | Path | Sequence[str] | None = None, out: str = "my-cell"
    ) -> None:
        self.encoder: Encoder | None = None
        self.pairs: TextSet | None = None
        self.grid: Grid | None = None
        self.loaded = ""
        self.model = text_box("model", str(model))
        self.file = widgets.FileUpload(accept=".csv,.tsv,.jsonl,.json", multiple=False, description="scored pairs")
        texts = str(texts) if isinstance(texts, Path) else texts
        listed = [] if texts is None or isinstance(texts, str) else as_texts(texts)
        if broken := [text for text in listed if "\n" in text or "\t" in text]:
            raise ValueError(f"a sentence is {broken[0]!r}: write it without line breaks and tabs")
        pasted = "\n".join(listed)
        self.pasted = widgets.Textarea(
            value=pasted, placeholder="or paste: one sentence a line, or sentence ⇥ sentence ⇥ score", rows=5,
            layout=widgets.Layout(**WIDE),
        )  # fmt: skip
        self.pasted.add_class("twodmse-pasted")
        self.name = texts if isinstance(texts, str) else ""
        self.max_ms = widgets.FloatText(value=0, description="at most ms", style=LABEL)
        self.max_bytes = widgets.IntText(value=0, description="at most bytes", style=LABEL)
        self.out = text_box("save to", str(out))
        self.source = widgets.HTML()
        self.message, self.best = widgets.HTML(), widgets.HTML()
        self.place = widgets.VBox()
        self.score = self.button("Score the grid", self.load, "score")
        self.remove = self.button("Remove the file", self.let_go, "remove")
        self.file.observe(self.changed, names="value")
        self.pasted.observe(self.typed, names="value")
        self.find = self.button("Best cell within the budget", self.pick, "find")
        self.save = self.button("Save the chosen cell", self.write, "save")
        row = widgets.Layout(flex_flow="row wrap", **WIDE)
        files = widgets.HBox([self.file, self.remove, self.score], layout=row)
        given = [self.model, files, self.pasted, self.source, self.message, self.place]
        budget = widgets.HBox([self.max_ms, self.max_bytes, self.find], layout=row)
        note = widgets.HTML("A budget of 0 is none. The chosen cell is the framed one; click any other.")
        self.box = widgets.VBox([*given, budget, note, self.best, self.out, self.save])
        self.box.add_class("twodmse-bringyourown")
        self.source.add_class("twodmse-source")
        self.changed()
        if texts is not None:
            self.load()

    def button(self, words: str, work: Any, name: str) -> widgets.Button:
        """A button that does some work and says in one line what went wrong, if anything did."""
        made = widgets.Button(description=words, layout=widgets.Layout(width="auto"))
        made.add_class(f"twodmse-{name}")

        def clicked(_: Any) -> None:
            try:
                work()
            except (ValueError, OSError) as error:
                self.message.value = f"<b>{escape(str(error))}</b>"

        made.on_click(clicked)
        return made

    def typed(self, _: Any) -> None:
        """Let go of the file as something is typed: what was given last is scored."""
        if self.lines() and self.file.value:
            self.let_go()
        self.changed()

    def let_go(self) -> None:
        """Forget the chosen file."""
        self.file.value = ()

    def changed(self, _: Any = None) -> None:
        """Say what is scored next, and offer to remove the file if there is one."""
        lines, told = len(self.lines()), f"<b>{escape(self.name)}</b>"
        if self.file.value:
            told = f"the file <b>{escape(self.file.value[0]['name'])}</b>" + (", not the text box" if lines else "")
        elif lines:
            told = f"the <b>{lines} line{'' if lines == 1 else 's'}</b> of the text box"
        self.source.value = f"To be scored: {told}" if lines or self.file.value or self.name else ""
        self.remove.layout.display = None if self.file.value else "none"

    def lines(self) -> list[str]:
        """What stands in the text box, line by line."""
        return [line.strip() for line in self.pasted.value.split("\n") if line.strip()]

    def load(self) -> None:
        """Load the model and the texts, and show the grid.

        Raises:
            ValueError: for texts that cannot be read or scored, or a model that cannot be cut.
            FileNotFoundError: if there is no such model or file.
        """
        self.grid, self.place.children = None, []  # what cannot be loaded leaves nothing of another model to be saved
        self.message.value, self.best.value = "loading …", ""
        self.encoder, self.loaded = Encoder.load(self.model.value), self.model.value
        self.pairs = self.read()
        scores = {"gold": FULL_SIZE} if self.pairs.name == AGREEMENT else {}
        self.grid = Grid({self.model.value: self.encoder}, self.pairs, **scores)
        self.place.children = [self.grid.box]
        self.message.value = escape(f"{self.pairs.name}: {len(self.pairs)} pairs")

    def read(self) -> TextSet:
        """The scored pairs of the file, the pasted lines or the name given at the start, in this order.

        Raises:
            ValueError: if there are none, or they cannot be used; a file is called by its own name.
        """
        if self.file.value:
            chosen = self.file.value[0]
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / Path(chosen["name"]).name
                path.write_bytes(bytes(chosen["content"]))
                try:
                    found = load_pairs(str(path))
                except (ValueError, OSError) as error:
                    raise ValueError(str(error).replace(str(path), path.name)) from error
            return TextSet(path.name, found.columns, found.gold)
        if lines := self.lines():
            return scored_lines(lines) if any("\t" in line for line in lines) else agreement(self.encoder, lines)
        if self.name:
            return load_pairs(self.name)
        raise ValueError("there are no texts yet: choose a file or paste some sentences")

    def pick(self) -> CellCost:
        """Go to the cell with the highest score within the budget, and say what it costs.

        Raises:
            ValueError: if nothing is loaded, or no cell is within the budget.
        """
        if self.grid is None:
            raise ValueError(NOTHING)
        self.best.value = ""
        cells_of, times = self.grid.grids[self.loaded], pd.Series(self.grid.times[self.loaded])
        costs = pd.DataFrame({"one_text_ms": times, "ratio": times / times.iloc[-1]}).rename_axis("layer").reset_index()
        table = cells_of.rename_axis(index="layer", columns="dim").stack().rename("spearman").reset_index()
        found = best_cell(table, costs, self.max_ms.value or None, self.max_bytes.value or None)
        self.grid.choose(found.layer, found.dim)
        self.best.value = (
            f"Best within the budget: <b>layer {found.layer}, dim {found.dim}</b>: {found.spearman:.2f}, "
            f"{found.ms:.1f} ms a text on this machine, {found.bytes} bytes a vector"
        )
        self.message.value = ""
        return found

    def write(self) -> Path:
        """Save the chosen cell as a model of its own, for `Encoder.load` and sentence-transformers.

        Raises:
            ValueError: if nothing is loaded.
            FileExistsError: if the folder is there already: it is not replaced.
        """
        if self.grid is None or self.encoder is None:
            raise ValueError(NOTHING)
        layer, dim = self.grid.cell
        folder = self.encoder.submodel(layer, dim).save(self.out.value)
        self.message.value = escape(f"saved layer {layer}, dim {dim}; load it with Encoder.load({str(folder)!r})")
        return folder

    def _ipython_display_(self) -> None:
        display(self.box)


def scored_lines(lines: Sequence[str]) -> TextSet:
    """Lines of sentence, sentence and score with tabs between.

    Raises:
        ValueError: for a line of another form, or fewer than three lines; it is named.
    """
    rows = [[part.strip() for part in line.split("\t")] for line in lines]
    for i, row in enumerate(rows, start=1):
        if len(row) != 3 or not all(row) or not _is_number(row[2]):
            raise ValueError(f"line {i} is {lines[i - 1]!r}: write sentence, sentence, score with tabs between")
    if len(rows) < 3:
        raise ValueError(f"there are {len(rows)} pairs: a rank correlation needs three at least")
    first, second, gold = zip(*rows, strict=True)
    return TextSet("pasted pairs", (first, second), np.array(gold, dtype=float))


def agreement(encoder: Encoder, sentences: Sequence[str]) -> TextSet:
    """Every two of the sentences, with their cosine at the full size as their score.

    Args:
        encoder: the encoder whose cells are to be compared with its full size.
        sentences: 3 to 150 different ones.

    Raises:
        ValueError: for fewer or more.
    """
    distinct = list(dict.fromkeys(sentences))
    if not 3 <= len(distinct) <= MOST_SENTENCES:
        raise ValueError(f"there are {len(distinct)} different sentences: give 3 to {MOST_SENTENCES}")
    left, right = (list(rows) for rows in zip(*combinations(range(len(distinct)), 2), strict=True))
    states = encoder.states(distinct, progress=False)  # (N+1, n, D)
    gold = cells.cosines_at(states, left, right, encoder.num_layers, encoder.dim)
    columns = tuple(distinct[i] for i in left), tuple(distinct[i] for i in right)
    return TextSet(AGREEMENT, columns, gold)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False
