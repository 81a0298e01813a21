"""Texts read by an encoder: looked at, put after a prompt, padded in batches, and handed over as states."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from twodmse.checked import is_whole
from twodmse.encoder.storage import Layout

PROGRESS_FROM = 2000  # distinct texts from which on a progress bar is shown
UNSEEN = {"Zs", "Zl", "Zp", "Cc", "Cf"}  # Unicode's categories of spaces, controls and marks of format
# What shows nothing in other categories: a joiner, Hangul and Khmer fillers, the braille blank, variation selectors.
FILLERS = {"\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u2800", "\u3164", "\uffa0"}
FILLERS |= {chr(number) for number in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))}
TOKENISED_AT_ONCE = 64  # batches whose texts are tokenised in one go


def as_texts(texts: Iterable[str]) -> list[str]:
    """A list of the texts, refusing input that cannot be encoded.

    Raises:
        ValueError: for what is no list of texts, an empty one, or an item that is not a text or holds none, by number.
    """
    if hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise ValueError(f"texts is a table ({type(texts).__name__}): give one of its columns")
    if isinstance(texts, bytes | Mapping | set | frozenset) or not isinstance(texts, Iterable):
        raise ValueError(f"texts is {str(texts)[:40]} ({type(texts).__name__}): give a text or a list of texts")
    if (axes := getattr(texts, "ndim", 1)) != 1:
        raise ValueError(f"texts has {axes} dimensions ({type(texts).__name__}): give a list of texts")
    texts = texts if isinstance(texts, str | list | tuple) else list(texts)
    check_texts(texts)
    return list(texts)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse input that cannot be encoded.

    Raises:
        ValueError: for a single string, an empty list, or an item that is not a text or holds none.
    """
    if isinstance(texts, str):
        raise ValueError(f"texts must be a list of texts, not one text: write [{texts[:40]!r}]")
    if len(texts) == 0:
        raise ValueError("texts is empty: give at least one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}] is {text!r} ({type(text).__name__}): every item must be a string")
        if not is_visible(text):
            raise ValueError(f"texts[{i}] is {text[:40]!r}: a text must hold at least one character that can be seen")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"texts[{i}] is {text[:40]!r}: it holds half of a surrogate pair, which is no character")


def is_visible(text: str) -> bool:
    """Whether a text has a character that shows: not spaces, controls, joiners and fillers alone."""
    if "!" <= text[:1] <= "~":  # as most texts begin
        return True
    return any(unicodedata.category(own) not in UNSEEN and own not in FILLERS for own in text)


def check_count(word: str, value: Any) -> None:
    """Raise a ValueError that names what is no whole number from 1 up."""
    if not is_whole(value, 1):
        raise ValueError(f"{word} is {value!r}: give a whole number from 1 up")


def prompt_of(layout: Layout, prompt: str | None, prompt_name: str | None) -> str:
    """What is put before each text: the prompt given, the one of that name, or the model's default one.

    Raises:
        ValueError: for a prompt that is no text, both a prompt and a name, or a name that the model does not have.
    """
    if prompt is not None and prompt_name is not None:
        raise ValueError("give prompt or prompt_name, not both")
    if prompt is not None:
        if not isinstance(prompt, str):
            raise ValueError(f"prompt is {prompt!r}: give a text")
        return prompt
    name = layout.default_prompt_name if prompt_name is None else prompt_name
    if name is not None and name not in layout.prompts:
        known = ", ".join(layout.prompts) or "none"
        raise ValueError(f"this encoder has no prompt {name!r}; those it has: {known}")
    return layout.prompts[name] or "" if name is not None else ""


def cut_texts(encoder: Any, texts: Sequence[str]) -> list[str]:
    """The texts of which only a part is read: after the default prompt they have more tokens than the encoder takes.

    Args:
        encoder: the `Encoder`.
        texts: any number of texts.
    """
    if not texts:
        return []
    prompt = prompt_of(encoder.layout, None, None)
    found = encoder.tokenizer([prompt + text for text in texts], return_token_type_ids=False, verbose=False)
    lengths = [len(ids) for ids in found["input_ids"]]
    return [text for text, length in zip(texts, lengths, strict=True) if length > encoder.layout.max_length]


def padded(ids: Sequence[Sequence[int]], padding: int, unpooled: int = 0) -> dict[str, Tensor]:
    """A token batch of b texts.

    Args:
        ids: the token ids of each text.
        padding: the id that fills a row on the right. It is masked: any id serves.
        unpooled: so many tokens at the start of each text, those of a prompt, are not pooled.

    Returns:
        ``input_ids`` and ``attention_mask``, both (b, T); ``pooling_mask`` (b, T) if some tokens are not pooled.
    """
    lengths = np.array([len(own) for own in ids])[:, None]  # (b, 1)
    place = np.arange(lengths.max())  # (T,)
    mask = place < lengths  # (b, T)
    tokens = np.full(mask.shape, padding, dtype=np.int64)
    tokens[mask] = np.concatenate(ids)
    batch = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    if unpooled:
        batch["pooling_mask"] = torch.from_numpy((mask & (place >= unpooled)).astype(np.int64))
    return batch


def read_layers(
    encoder: Any,
    layers: list[int],
    texts: list[str],
    keep: Callable[[np.ndarray, np.ndarray], None],
    batch_size: int,
    progress: bool | None,
    prompt: str,
) -> None:
    """Read layers of texts batch by batch and hold nothing but the batch; no layer above those asked for is computed.

    Args:
        encoder: the `Encoder`.
        layers: L layers, 0..N, in rising order.
        texts: n texts; one that occurs twice is computed once.
        keep: takes the row numbers (b,) of a batch and their states (L, b, D), raw.
        batch_size: texts a forward pass.
        progress: show a progress bar; None shows one on long input.
        prompt: put before every text.

    Raises:
        ValueError: for a batch size that is none, states that are no numbers, or a text of which a prompt that is not
            pooled leaves nothing.
    """
    check_count("batch_size", batch_size)
    distinct = list(dict.fromkeys(texts))
    places = None if len(distinct) == len(texts) else _places(distinct, texts)
    show = len(distinct) >= PROGRESS_FROM if progress is None else progress
    whole = encoder.backbone
    unpooled = 0 if encoder.layout.include_prompt or not prompt else _length_of(encoder, prompt)

    def tokenise(some: list[str]) -> list[list[int]]:
        found = encoder.tokenise(some, prompt)["input_ids"]
        for text, ids in zip(some, found, strict=True) if unpooled else ():
            if len(ids) - (ids[-1] in encoder.tokenizer.all_special_ids) <= unpooled:
                raise ValueError(f"no token of {text[:40]!r} is left to pool after the prompt: give a shorter prompt")
        return found

    bar = tqdm(total=len(distinct), desc="encode", unit="text", disable=not show)
    with bar, torch.inference_mode(), evaluating(whole):  # before the cut, whose own modules keep the mode of the whole
        backbone = whole if layers[-1] == whole.num_layers else whole.cut(max(1, layers[-1]))
        for rows, ids in in_batches(distinct, tokenise, batch_size):
            with _precision(encoder):
                states = backbone([encoder.batch(ids, unpooled)], layers).cpu().numpy()  # (L, b, D)
            where = np.array(rows)
            if places is not None:
                states = states.repeat([len(places[row]) for row in rows], axis=1)
                where = np.concatenate([places[row] for row in rows])
            if not np.isfinite(states).all():
                row = where[~np.isfinite(states).all(axis=(0, 2))][0]
                raise ValueError(f"the vector of texts[{row}] is not finite: weights are damaged, or numbers overflow")
            keep(where, states)
            bar.update(len(rows))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Hold a module, with all in it, in evaluation, and put each module in it back as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _precision(encoder: Any) -> Any:
    """Half precision on an accelerator, unless a dtype was asked for."""
    kind = encoder.device.type
    if encoder.dtype is not None or kind == "cpu":
        return nullcontext()
    return torch.autocast(kind, torch.float16 if kind == "mps" else torch.bfloat16)


def _length_of(encoder: Any, prompt: str) -> int:
    """How many tokens a prompt takes at the start of a text: a last special token is not part of it."""
    ids = encoder.tokenise([prompt], "")["input_ids"][0]
    return len(ids) - (ids[-1] in encoder.tokenizer.all_special_ids)


def _places(distinct: list[str], texts: list[str]) -> list[list[int]]:
    """For each distinct text, the row numbers where it stands in ``texts``."""
    places: dict[str, list[int]] = {text: [] for text in distinct}
    for row, text in enumerate(texts):
        places[text].append(row)
    return list(places.values())


def in_batches(
    texts: Sequence[str], tokenise: Callable[[list[str]], list[list[int]]], batch_size: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Batches of texts of like length, the longest first, so that memory peaks at once and little padding is computed.

    Args:
        texts: distinct texts.
        tokenise: gives the token ids of a list of texts.
        batch_size: texts a batch.

    Yields:
        Row numbers of b texts, and their token ids.
    """
    slice_size = TOKENISED_AT_ONCE * batch_size
    by_length = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    for start in range(0, len(texts), slice_size):
        rows = by_length[start : start + slice_size]
        ids = tokenise([texts[i] for i in rows])
        order = sorted(range(len(rows)), key=lambda i: -len(ids[i]))
        for at in range(0, len(rows), batch_size):
            part = order[at : at + batch_size]
            yield [rows[i] for i in part], [ids[i] for i in part]


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Scale the last axis to length 1, however large or small it is; a zero vector stays zero. Any shape (..., d)."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1)  # squares of what is left neither vanish nor overflow
    lengths = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / np.where(lengths > 0, lengths, 1)


def directions(vectors: np.ndarray, cell: tuple[int, int], rows: Sequence[int], name: str = "texts") -> np.ndarray:
    """Vectors (b, d) of a cell, each of length 1.

    Args:
        vectors: raw.
        cell: where they are from, as a message names it.
        rows: the numbers of their b texts.
        name: what the message calls the list of texts.

    Raises:
        ValueError: with the text's number, if a vector is zero, which has no direction.
    """
    unit = normalise(vectors)  # (b, d)
    if not (has := unit.any(axis=1)).all():
        where = f"{name}[{np.asarray(rows)[~has][0]}] at layer {cell[0]}, dim {cell[1]}"
        raise ValueError(f"the vector of {where} is zero: it has no direction")
    return unit
