"""The batches of a run: rows in order, no text twice in a batch, columns of texts to token chunks."""

import logging
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch

from twodmse.checked import is_finite
from twodmse.data.sets import TextSet
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import padded
from twodmse.training.distributed import is_first

log = logging.getLogger(__name__)
NOISED_WORDS = 8  # words a noised copy keeps: short texts cost little


class DistinctBatches:
    """The batches of a whole run, none of which holds a text twice: no in-batch negative is a positive in disguise.

    The data are shuffled anew for each pass by the seed and the pass number; a row that would repeat a text waits for
    the next batch, and what fills no batch at the end of a pass is left out of it. Scored pairs are only shuffled. Rows
    whose negative is their own anchor or positive are taken as they are, and a warning counts them.

    Args:
        texts: the data.
        batch_size: rows a batch.
        steps: batches in all.
        seed: of the shuffles.

    Raises:
        ValueError: if the data cannot fill one batch.
    """

    drop_last = True

    def __init__(self, texts: TextSet, batch_size: int, steps: int, seed: int) -> None:
        if len(texts) < batch_size:
            had = f"{texts.name} has {len(texts)} rows, fewer than the batch size {batch_size}"
            raise ValueError(f"{had}: give more rows, or a smaller batch size where there is one")
        warn_of_own_negatives(texts)
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


def warn_of_own_negatives(texts: TextSet) -> None:
    """Say how many triplets have their own anchor or positive as negative: no batch rule sees that, within a row."""
    if len(texts.columns) < 3:
        return
    rows = [i for i, (a, p, n) in enumerate(zip(*texts.columns, strict=True), 1) if n in (a, p)]
    if rows and is_first():
        log.warning(
            "%s: in %d of %d rows the negative is the anchor or the positive itself, first in row %d, and such a row "
            "trains against what it is to learn: take them out",
            texts.name, len(rows), len(texts), rows[0],
        )  # fmt: skip


class Collator:
    """Rows to token chunks: all columns of a batch, tokenised once, sorted by length and padded chunk by chunk.

    Args:
        encoder: whose tokenizer and maximal length are used.
        chunks: parts a batch is cut into.
        chunk_size: texts a chunk instead, if not 0.
        noise: share of the words replaced in a copy of each row's last text, one more column; 0 makes none.
        seed: of the noise.
    """

    def __init__(self, encoder: Encoder, chunks: int, chunk_size: int = 0, noise: float = 0.0, seed: int = 0) -> None:
        self.encoder, self.chunks, self.chunk_size, self.noise, self.seed = encoder, chunks, chunk_size, noise, seed
        self.words = vocabulary_words(encoder) if noise else []
        if noise and not self.words:
            raise ValueError(f"noise is {noise}: {NO_WORDS}, use noise=0")

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
            columns.append(tuple(noised(columns[-1], self.noise, self.words, self.seed)))
        texts = [text for column in columns for text in column]  # B
        tokens = self.encoder.tokenise(texts)["input_ids"]
        by_length = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
        size = self.chunk_size or math.ceil(len(texts) / self.chunks)
        parts = [by_length[start : start + size] for start in range(0, len(texts), size)]
        padding = self.encoder.tokenizer.pad_token_id
        chunks = [padded([tokens[i] for i in part], padding) for part in parts]
        order = torch.empty(len(texts), dtype=torch.long)
        order[torch.tensor(by_length)] = torch.arange(len(texts))
        batch: dict[str, Any] = {"chunks": chunks, "order": order, "texts": texts}
        batch |= {"columns": len(columns), "own_columns": own}
        if "gold" in rows[0]:
            # As they are: in float32 scores such as seconds of a clock would be one. MPS has nothing wider.
            kind = torch.float32 if self.encoder.device.type == "mps" else torch.float64
            batch["gold"] = torch.tensor([row["gold"] for row in rows], dtype=kind)
        return batch


def noised_copies(texts: Sequence[str], model: Any, share: float = 0.5, seed: int = 0) -> list[str]:
    """Copies of texts with words from all over a model's vocabulary, as a run with ``noise`` makes them of each row.

    Args:
        texts: those of the data's last column.
        model: whose vocabulary is drawn from: an `Encoder` or a SentenceTransformer.
        share: of the words replaced, 0 to 1.
        seed: of the draws; a text gets the same copy each time.

    Returns:
        A copy a text, of at most 8 words.

    Raises:
        ValueError: for one text in place of a list, a share outside 0..1, or a vocabulary without words.
    """
    words = vocabulary_words(model)
    if isinstance(texts, str) or not is_finite(share) or not 0 <= share <= 1:
        raise ValueError("give a list of texts, and a share of their words from 0 to 1")
    if not words:
        raise ValueError(NO_WORDS)
    return noised(texts, share, words, seed)


NO_WORDS = "the vocabulary has no words of three letters or more to put in the place of others"


def vocabulary_words(model: Any) -> list[str]:
    """The words of three letters or more among the tokens of a model's vocabulary, sorted."""
    to_text = model.tokenizer.convert_tokens_to_string
    words = {to_text([token]).strip() for token in model.tokenizer.get_vocab()}
    return sorted(word for word in words if len(word) >= 3 and word.isalpha())


def noised(texts: Sequence[str], share: float, words: Sequence[str], seed: int) -> list[str]:
    """The first words of each text, a share of them replaced by random ones: the same for the same seed and text."""
    copies = []
    for text in texts:
        rng = random.Random(f"{seed}/{text}")
        kept = text.split()[:NOISED_WORDS]
        copies.append(" ".join(rng.choice(words) if rng.random() < share else word for word in kept))
    return copies
