"""Named data sets: triplets and pairs to train on, scored pairs to evaluate on."""

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twodmse.checked import shown
from twodmse.data.corpus import mini_nli, mini_sts
from twodmse.data.memory import columns_at_hand, columns_of
from twodmse.data.reading import READERS, Columns, read_columns
from twodmse.encoder.hub import in_words, no_network
from twodmse.encoder.reading import is_visible

if TYPE_CHECKING:
    from datasets import Dataset

# The seven test sets of the paper, in its order, and their repositories on the hub.
STS_TASKS = {
    "sts12": "mteb/sts12-sts",
    "sts13": "mteb/sts13-sts",
    "sts14": "mteb/sts14-sts",
    "sts15": "mteb/sts15-sts",
    "sts16": "mteb/sts16-sts",
    "stsb": "mteb/stsbenchmark-sts",
    "sickr": "mteb/sickr-sts",
}
# Words that stand for seven tasks: SentEval, which SimCSE and AnglE report, scores SICK-R on its own test split alone.
TASK_GROUPS = {"paper": tuple(STS_TASKS), "senteval": (*(task for task in STS_TASKS if task != "sickr"), "sickr-test")}
SICK_TEST = 5000  # where it begins: the hub has SICK whole, train (4,500 pairs), trial (500) and test (4,927) in a row
SICK_TEST_ROWS, SICK_TEST_FIRST = 4927, "There is no boy playing outdoors and there is no man smiling"
# name -> (repository, configuration, split)
HUB_SETS = {name: (repo, None, "test") for name, repo in STS_TASKS.items()} | {
    "sickr-test": (STS_TASKS["sickr"], None, f"test[{SICK_TEST}:]"),
    "stsb-validation": ("mteb/stsbenchmark-sts", None, "validation"),
    "stsb-train": ("mteb/stsbenchmark-sts", None, "train"),
    "all-nli": ("sentence-transformers/all-nli", "triplet", "train"),
}
LABELLED = "all-nli-labelled"  # as AnglE trains on NLI: entailment 1, contradiction 0, no neutral pairs
NAMES = ("mini-nli", "mini-sts", "mini-sts-validation", *HUB_SETS, LABELLED)
TRIPLET = ("anchor", "positive", "negative")
PAIR = ("anchor", "positive")
HUB = "hub:"  # begins the name of any set of the hub
SCORED = ("sentence1", "sentence2", "score")
SCORE_NAMES = ("score", "label", "similarity", "similarity_score")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class TextSet:
    """Columns of texts of equal length, and a gold score a row for scored pairs."""

    name: str
    columns: tuple[tuple[str, ...], ...]  # 2 or 3 columns of n texts
    gold: np.ndarray | None = None  # (n,) float64

    def __post_init__(self) -> None:
        if self.gold is not None:
            object.__setattr__(self, "gold", np.asarray(self.gold, dtype=np.float64))
        if len(self.columns) not in (2, 3 if self.gold is None else 2):
            raise ValueError(f"{self.name} has {len(self.columns)} columns of texts: give 2, or 3 without scores")
        sizes = [len(column) for column in self.columns] + ([] if self.gold is None else [len(self.gold)])
        if len(set(sizes)) != 1:
            raise ValueError(f"{self.name}: its columns have {', '.join(map(str, sizes))} rows; they must have as many")
        if self.gold is not None and not np.isfinite(self.gold).all():
            row = int(np.flatnonzero(~np.isfinite(self.gold))[0])
            raise ValueError(f"{self.name}, row {row + 1}: the score is {self.gold[row]}, it must be a finite number")

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, i: int) -> dict[str, Any]:
        row: dict[str, Any] = {"texts": [column[i] for column in self.columns]}
        return row if self.gold is None else row | {"gold": float(self.gold[i])}

    def sha256(self) -> str:
        """A hash of the rows in their order, whatever the set is called."""
        found = hashlib.sha256()
        for column in self.columns:
            found.update(("\0".join(column) + "\1").encode("utf-8", "surrogatepass"))
        if self.gold is not None:
            found.update(np.asarray(self.gold, dtype=np.float64).tobytes())
        return found.hexdigest()


def load_texts(
    name: str | Path, config: str | None = None, split: str | None = None, columns: Mapping[str, str] | None = None
) -> TextSet:
    """A data set by name (bundled or hub), any set of the hub, or by path (CSV, TSV, JSON lines, parquet).

    Names: sts12 sts13 sts14 sts15 sts16 stsb sickr (test sets), sickr-test (the test split of SICK: 4,927 of the 9,927
    pairs of sickr), stsb-validation, stsb-train, all-nli, all-nli-labelled (its triplets as pairs of label 1 and 0;
    hub); mini-sts (test), mini-sts-validation, mini-nli (bundled). ``hub:owner/name`` is any set of the hub. A file or
    such a set needs the columns anchor, positive[, negative], or sentence1, sentence2, score.

    Args:
        name: of the set, or a path.
        config: of a ``hub:`` set, where it has several.
        split: of a ``hub:`` set; None is train.
        columns: of a ``hub:`` set or a file: its own name of a column -> the name above.

    Raises:
        ValueError: for an unknown name, or rows that cannot be used; the row and the value are named.
        FileNotFoundError: for a missing file, or a hub that cannot be reached.
    """
    name = os.path.expanduser(str(name))
    if name.startswith(HUB):
        rows = _from_hub(name, name.removeprefix(HUB), config, split or "train")
        return as_texts(rows, name, columns)
    if config is not None or split is not None:
        raise ValueError(f"{name} has no configuration or split to choose: only {HUB}owner/name has")
    if columns and Path(name).suffix.lower() not in READERS:
        raise ValueError(f"the columns of {name} have their names already: leave columns out")
    if name == "mini-nli":
        return check_rows(name, columns_of(mini_nli()))
    if name in ("mini-sts", "mini-sts-validation"):
        return check_rows(name, columns_of(mini_sts("validation" if name.endswith("validation") else "test")))
    if name in HUB_SETS:
        rows = _from_hub(name, *HUB_SETS[name])
        rows = check_sick_test(rows) if name == "sickr-test" else rows
        return check_rows(name, {column: rows[column][:] for column in rows.column_names})
    if name == LABELLED:
        return labelled(load_texts("all-nli"), name)
    if Path(name).suffix.lower() in READERS or Path(name).is_file():
        return as_texts(read_columns(Path(name)), name, columns)
    known = f"{', '.join(NAMES)}, {HUB}owner/name, or a file ending in {', '.join(READERS)}"
    raise ValueError(f"unknown data set {name!r}: choose one of {known}")


def labelled(triplets: TextSet, name: str) -> TextSet:
    """Triplets as twice as many pairs: each anchor with its positive, label 1, and with its negative, label 0."""
    anchors, positives, negatives = triplets.columns
    return TextSet(name, (anchors + anchors, positives + negatives), np.repeat([1.0, 0.0], len(anchors)))


def as_texts(rows: Any, name: str = "own", columns: Mapping[str, str] | None = None) -> TextSet:
    """Rows at hand as a data set.

    Args:
        rows: a TextSet, a Dataset of `datasets`, a DataFrame, a dictionary of columns named as in `load_texts`, or a
            list of dictionaries, one a row.
        name: what to call it.
        columns: its own name of a column -> that of `load_texts`.

    Raises:
        ValueError: for rows of another kind, or that cannot be used; the row and the value are named.
    """
    if isinstance(rows, TextSet):
        return rows
    table, new_names = columns_at_hand(rows, name), columns or {}
    if not isinstance(new_names, Mapping):
        raise ValueError(f"columns is {columns!r}: give a dictionary, its own name of a column -> what it is")
    for old, new in new_names.items():
        if old not in table or new not in (*TRIPLET, *SCORED):
            raise ValueError(
                f"{name} has the columns {', '.join(table)}: {old}={new} names one of them and then what it is, "
                f"one of {', '.join((*TRIPLET, *SCORED))}"
            )
    named = [new_names.get(column, column) for column in table]
    twice = next((column for column in named if named.count(column) > 1), None)
    if twice is not None:
        olds = " and ".join(old for old, new in zip(table, named, strict=True) if new == twice)
        raise ValueError(f"{name}: {olds} would both be the column {twice}: drop one, or name it otherwise")
    return check_rows(name, dict(zip(named, table.values(), strict=True)))


def distinct(texts: TextSet) -> tuple[list[str], *tuple[list[int], ...]]:
    """The n different texts of a set, and for each of its columns the numbers among them of its texts, row by row."""
    place = {text: i for i, text in enumerate(dict.fromkeys(chain.from_iterable(texts.columns)))}
    return list(place), *([place[text] for text in column] for column in texts.columns)


def load_pairs(
    name: str | Path, config: str | None = None, split: str | None = None, columns: Mapping[str, str] | None = None
) -> TextSet:
    """A scored set, as `load_texts`; of a ``hub:`` set, None is the split test.

    Raises:
        ValueError: also if the set has no scores.
    """
    return scored(load_texts(name, config, split or ("test" if str(name).startswith(HUB) else None), columns))


def scored(texts: TextSet) -> TextSet:
    """The same set, if it has scores.

    Raises:
        ValueError: if it has none.
    """
    if texts.gold is None:
        raise ValueError(f"{texts.name} has no scores: evaluation needs the columns {', '.join(SCORED)}")
    return texts


def _from_hub(name: str, repo: str, configuration: str | None, split: str) -> "Dataset":
    from datasets import load_dataset

    try:
        with _no_bars():
            return load_dataset(repo, configuration, split=split)
    except Exception as error:  # the hub's clients raise a different kind for each way a network can fail
        if isinstance(error, ValueError) and name.startswith(HUB):  # it has no such configuration or split
            raise ValueError(f"{name} could not be read: {error}") from error
        cure = "check the network" if no_network(error) else "see that it is there and that you may read it"
        failed = f"{name} could not be read from the hub ({repo}, {in_words(error)}): {cure}"
        raise FileNotFoundError(f"{failed}, or use the bundled mini-nli and mini-sts, or a file") from error


def check_sick_test(rows: "Dataset") -> "Dataset":
    """The rows after SICK's train and trial parts, as long as they are those of its own test split.

    Raises:
        ValueError: if their number or the first of them is not that of the test part.
    """
    if len(rows) != SICK_TEST_ROWS or rows[0]["sentence1"] != SICK_TEST_FIRST:
        raise ValueError(
            f"sickr-test cannot be told from the other parts of SICK: the rows of {STS_TASKS['sickr']} after the first "
            f"{SICK_TEST} are not the {SICK_TEST_ROWS} of its test split any more; use sickr, which is all of them"
        )
    return rows


@contextmanager
def _no_bars() -> Iterator[None]:
    """Hold back the progress bars of datasets, which would run into our own lines."""
    from datasets import disable_progress_bars, enable_progress_bars
    from datasets.utils import are_progress_bars_disabled

    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not quiet:
            enable_progress_bars()


def check_rows(name: str, table: Columns) -> TextSet:
    """Take the columns of texts and scores, refusing what cannot be trained on or scored.

    Args:
        name: of the set, for messages.
        table: columns of equal length by name; others than those of the layout are left alone.

    Raises:
        ValueError: for missing columns, no rows, an item that is no text or is empty, a score that is no finite number,
            or scores beside columns that are read without them.
    """
    layout = next((c for c in (TRIPLET, SCORED, PAIR) if set(c) <= set(table)), None)
    if layout is None:
        has = ", ".join(column if column == column.strip() else repr(column) for column in table)
        wanted = f"{', '.join(PAIR)}[, negative], or {', '.join(SCORED)}"
        raise ValueError(f"{name} has the columns {has}: it needs {wanted}")
    scores = [column for column in table if column.strip().lower() in SCORE_NAMES]
    if layout is not SCORED and scores:
        raise ValueError(
            f"{name} has the columns {', '.join(layout)} and {scores[0]}: every pair of anchor and positive is taken "
            f"as a paraphrase; drop {scores[0]}, or name the columns {', '.join(SCORED)} to train on the scores"
        )
    more = [column for column in table if column not in layout and column.strip().lower().startswith("negative")]
    if layout is not SCORED and more:
        raise ValueError(
            f"{name} has the column {more[0]}: one negative a row is read, from the column negative; drop the "
            "others, or give each a row of its own with the same anchor and positive"
        )
    if len(table[layout[0]]) == 0:
        raise ValueError(f"{name} has no rows")
    columns = []
    for column in (c for c in layout if c != "score"):
        for i, value in enumerate(table[column]):
            if not is_text(value):
                wrong = f"{name}, row {i + 1}, column {column} is {shown(value)}"
                raise ValueError(f"{wrong}: it must be a text with a character to see")
        columns.append(tuple(table[column]))
    gold = np.array([_score(name, i, v) for i, v in enumerate(table["score"])]) if layout is SCORED else None
    return TextSet(name, tuple(columns), gold)


def is_text(value: object) -> bool:
    """Whether a value is a string with something visible in it that can be encoded: not half a pair of surrogates."""
    return isinstance(value, str) and is_visible(value) and (value.isascii() or not _SURROGATE.search(value))


def _score(name: str, i: int, value: object) -> float:
    try:
        score = math.nan if "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{name}, row {i + 1}, column score is {shown(value)}: it must be a finite number")
    return score
