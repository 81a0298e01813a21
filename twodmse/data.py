"""Named data sets: triplets and pairs to train on, scored pairs to evaluate on, and the batches made of them."""

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars, enable_progress_bars, load_dataset
from datasets.utils import are_progress_bars_disabled

from twodmse.corpus import mini_nli, mini_sts
from twodmse.encoder import Encoder

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
# name -> (repository, configuration, split)
HUB_SETS = {name: (repo, None, "test") for name, repo in STS_TASKS.items()} | {
    "stsb-validation": ("mteb/stsbenchmark-sts", None, "validation"),
    "stsb-train": ("mteb/stsbenchmark-sts", None, "train"),
    "all-nli": ("sentence-transformers/all-nli", "triplet", "train"),
}
READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
TRIPLET = ("anchor", "positive", "negative")
PAIR = ("anchor", "positive")
SCORED = ("sentence1", "sentence2", "score")
NOISED_WORDS = 8  # words a noised copy keeps: short texts cost little


@dataclass(frozen=True)
class TextSet:
    """Columns of texts of equal length, and a gold score a row for scored pairs."""

    name: str
    columns: tuple[tuple[str, ...], ...]  # 2 or 3 columns of n texts
    gold: np.ndarray | None = None  # (n,) float64

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, i: int) -> dict[str, Any]:
        row: dict[str, Any] = {"texts": [column[i] for column in self.columns]}
        return row if self.gold is None else row | {"gold": float(self.gold[i])}


def load_texts(name: str) -> TextSet:
    """A data set by name (bundled or hub) or by path (CSV, TSV, JSON lines, parquet).

    Names: sts12 sts13 sts14 sts15 sts16 stsb sickr (test sets), stsb-validation, stsb-train, all-nli (hub); mini-sts
    (test), mini-sts-validation, mini-nli (bundled). A file needs the columns anchor, positive[, negative], or
    sentence1, sentence2, score.

    Raises:
        ValueError: for an unknown name, or rows that cannot be used; the row and the value are named.
        FileNotFoundError: for a missing file, or a hub that cannot be reached.
    """
    if name in ("mini-nli", "mini-sts", "mini-sts-validation"):
        if name == "mini-nli":
            return check_rows(name, Dataset.from_list(mini_nli()))
        return check_rows(name, Dataset.from_list(mini_sts("validation" if name.endswith("validation") else "test")))
    if name in HUB_SETS:
        return check_rows(name, _from_hub(name))
    path = Path(name)
    if path.suffix.lower() in READERS:
        return check_rows(name, _from_file(path))
    known = ", ".join(["mini-nli", "mini-sts", "mini-sts-validation", *HUB_SETS])
    raise ValueError(f"unknown data set {name!r}: choose one of {known}, or a file ending in {', '.join(READERS)}")


def load_pairs(name: str) -> TextSet:
    """A scored set, as `load_texts`.

    Raises:
        ValueError: also if the set has no scores.
    """
    texts = load_texts(name)
    if texts.gold is None:
        raise ValueError(f"{name} has no scores: evaluation needs the columns {', '.join(SCORED)}")
    return texts


def _from_hub(name: str) -> Dataset:
    repo, configuration, split = HUB_SETS[name]
    try:
        with _no_bars():
            return load_dataset(repo, configuration, split=split)
    except Exception as error:  # the hub's clients raise a different kind for each way a network can fail
        raise FileNotFoundError(
            f"{name} could not be read from the hub ({repo}, {type(error).__name__}): check the network, "
            "or use the bundled mini-nli and mini-sts, or a file"
        ) from error


def _from_file(path: Path) -> Dataset:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    options = {"delimiter": "\t"} if path.suffix.lower() == ".tsv" else {}
    try:
        with _no_bars():
            return load_dataset(READERS[path.suffix.lower()], data_files=str(path), split="train", **options)
    except Exception as error:
        cause = error.__cause__ or error
        raise ValueError(f"{path} could not be read as {path.suffix[1:]}: {cause}") from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Hold back the progress bars of datasets, which would run into our own lines."""
    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not quiet:
            enable_progress_bars()


def check_rows(name: str, rows: Dataset) -> TextSet:
    """Turn rows into columns, refusing what cannot be trained on or scored.

    Raises:
        ValueError: for missing columns, no rows, an item that is no text or is empty, a score that is no finite number.
    """
    layout = next((c for c in (TRIPLET, SCORED, PAIR) if set(c) <= set(rows.column_names)), None)
    if layout is None:
        raise ValueError(
            f"{name} has the columns {', '.join(rows.column_names)}: it needs anchor, positive[, negative], "
            "or sentence1, sentence2, score"
        )
    if len(rows) == 0:
        raise ValueError(f"{name} has no rows")
    columns = []
    for column in (c for c in layout if c != "score"):
        values = rows[column][:]
        for i, value in enumerate(values):
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"{name}, row {i + 1}, column {column} is {value!r}: it must be a text that is not empty"
                )
        columns.append(tuple(values))
    gold = np.array([_score(name, i, v) for i, v in enumerate(rows["score"][:])]) if layout is SCORED else None
    return TextSet(name, tuple(columns), gold)


def _score(name: str, i: int, value: object) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{name}, row {i + 1}, column score is {value!r}: it must be a finite number")
    return score


class DistinctBatches:
    """The batches of a whole run, none of which holds a text twice: no in-batch negative is a positive in disguise.

    The data are shuffled anew for each pass by the seed and the pass number; a row that would repeat a text waits for
    the next batch, and what fills no batch at the end of a pass is left out of it. Scored pairs are only shuffled.

    Args:
        texts: the data. batch_size: rows a batch. steps: batches in all. seed: of the shuffles.

    Raises:
        ValueError: if the data cannot fill one batch.
    """

    drop_last = True

    def __init__(self, texts: TextSet, batch_size: int, steps: int, seed: int) -> None:
        if len(texts) < batch_size:
            raise ValueError(f"{texts.name} has {len(texts)} rows, fewer than the batch size {batch_size}: lower it")
        self.texts, self.batch_size, self.steps, self.seed = texts, batch_size, steps, seed
        if next(self._one_pass(0), None) is None:
            raise ValueError(
                f"{texts.name} repeats its texts so much that no {batch_size} rows differ: lower batch_size"
            )

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        return islice(chain.from_iterable(map(self._one_pass, count())), self.steps)

    def _one_pass(self, number: int) -> Iterator[list[int]]:
        waiting = deque(np.random.default_rng((self.seed, number)).permutation(len(self.texts)).tolist())
        while len(waiting) >= self.batch_size:
            batch: list[int] = []
            later: list[int] = []
            seen: set[str] = set()
            while waiting and len(batch) < self.batch_size:
                i = waiting.popleft()
                row = {column[i] for column in self.texts.columns} if self.texts.gold is None else set()
                if seen & row:
                    later.append(i)
                else:
                    batch.append(i)
                    seen |= row
            if len(batch) < self.batch_size:
                return
            yield batch
            waiting.extendleft(reversed(later))


class Collator:
    """Rows to token chunks: all columns of a batch, tokenised once, sorted by length and padded chunk by chunk.

    Args:
        encoder: whose tokenizer and maximal length are used. chunks: parts a batch is cut into.
        chunk_size: texts a chunk instead, if not 0.
        noise: share of the words replaced in a copy of each row's last text, one more column; 0 makes none.
        seed: of the noise.
    """

    def __init__(self, encoder: Encoder, chunks: int, chunk_size: int = 0, noise: float = 0.0, seed: int = 0) -> None:
        self.encoder, self.chunks, self.chunk_size, self.noise, self.seed = encoder, chunks, chunk_size, noise, seed
        self.words = vocabulary_words(encoder) if noise else []

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Collate b rows of texts.

        Returns:
            ``chunks``: a list of token batches, longest texts first, B = c * b texts in all;
            ``order``: (B,) the place of column-stacked text i among the chunks' texts: ``states[:, order]`` is stacked
            column after column; ``columns``: c, the noised copies among them; ``own_columns``: those of the rows
            themselves, which come first; ``texts``: the B texts so stacked; ``gold``: (b,) scores, if the rows have
            them.
        """
        columns = list(zip(*(row["texts"] for row in rows), strict=True))
        own = len(columns)
        if self.noise:
            columns.append(tuple(noised(text, self.noise, self.words, self.seed) for text in columns[-1]))
        texts = [text for column in columns for text in column]  # B
        tokens = self.encoder.tokenise(texts)["input_ids"]
        by_length = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
        size = self.chunk_size or math.ceil(len(texts) / self.chunks)
        parts = [by_length[start : start + size] for start in range(0, len(texts), size)]
        pad = self.encoder.tokenizer.pad
        chunks = [dict(pad({"input_ids": [tokens[i] for i in part]}, return_tensors="pt")) for part in parts]
        order = torch.empty(len(texts), dtype=torch.long)
        order[torch.tensor(by_length)] = torch.arange(len(texts))
        batch: dict[str, Any] = {"chunks": chunks, "order": order, "texts": texts}
        batch |= {"columns": len(columns), "own_columns": own}
        if "gold" in rows[0]:
            batch["gold"] = torch.tensor([row["gold"] for row in rows], dtype=torch.float32)
        return batch


def vocabulary_words(encoder: Encoder) -> list[str]:
    """The words of three letters or more among the tokens of an encoder's vocabulary, sorted."""
    to_text = encoder.tokenizer.convert_tokens_to_string
    words = {to_text([token]).strip() for token in encoder.tokenizer.get_vocab()}
    return sorted(word for word in words if len(word) >= 3 and word.isalpha())


def noised(text: str, share: float, words: Sequence[str], seed: int) -> str:
    """The first words of a text, a share of them replaced by random ones: the same for the same seed and text."""
    rng = random.Random(f"{seed}/{text}")
    return " ".join(rng.choice(words) if rng.random() < share else word for word in text.split()[:NOISED_WORDS])
