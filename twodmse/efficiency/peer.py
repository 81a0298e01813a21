"""Encoding side by side with sentence-transformers: the same model, texts, length, batch size and process."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from twodmse.efficiency.timing import half_range, need_peer, take_turns
from twodmse.encoder.backbone import layer_path
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.hub import resolve
from twodmse.encoder.reading import as_texts

BATCH = 64  # texts a forward pass, on both sides
OURS, THEIRS = "twodmse", "sentence_transformers"


def bench_peer(model: str, texts: Sequence[str], rounds: int = 3) -> pd.DataFrame:
    """Texts a second of `Encoder.encode` and of sentence-transformers' own ``encode``, at every layer and full width.

    All take turns, round by round; before the rounds each encodes a few texts, which is not counted. Both compute in
    float32 in batches of 64 texts.

    Args:
        model: as `Encoder.load`; for sentence-transformers it is cut at each layer as its users do.
        texts: what is encoded; a text that occurs twice is taken once.
        rounds: that count.

    Returns:
        One row a layer 1..N: layer, texts, twodmse and sentence_transformers (texts a second, of the median round),
        speed_up (median over rounds of the ratio of the two in the same round), spread (half the interquartile range of
        that), difference (largest of a coordinate, between the vectors of the two).

    Raises:
        ValueError: if sentence-transformers is not installed, for texts that cannot be encoded, or no rounds.
    """
    need_peer()
    texts = list(dict.fromkeys(as_texts(texts)))
    encoder = Encoder.load(model, dtype=torch.float32)
    peer = load_peer(model, encoder)
    cut, layers, kept = cutter(peer), range(1, encoder.num_layers + 1), {}

    def ours(n: int, some: list[str]) -> np.ndarray:
        return encoder.encode(some, n, batch_size=BATCH, progress=False)

    def theirs(n: int, some: list[str]) -> np.ndarray:
        cut(n)
        return peer.encode(some, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)

    def contender(name: str, n: int) -> Callable[[int], Any]:
        work = ours if name == OURS else theirs
        work(n, texts[:BATCH])
        return lambda _: kept.update({(name, n): work(n, texts)})

    contenders = {(name, n): contender(name, n) for n in layers for name in (OURS, THEIRS)}
    seconds = take_turns(contenders, rounds, warm=0)
    rows = []
    for n in layers:
        speeds = {name: len(texts) / seconds[name, n].median() for name in (OURS, THEIRS)}
        ratio = seconds[THEIRS, n] / seconds[OURS, n]
        difference = float(np.abs(kept[OURS, n] - kept[THEIRS, n]).max())
        gain = {"speed_up": ratio.median(), "spread": half_range(ratio), "difference": difference}
        rows.append({"layer": n, "texts": len(texts), **speeds, **gain})
    return pd.DataFrame(rows)


def load_peer(model: str, encoder: Encoder) -> Any:
    """The model in sentence-transformers, where and as long as the encoder, and with a token to pad as it has."""
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(resolve(model)), device=str(encoder.device))
    peer.max_seq_length = encoder.layout.max_length
    if peer.tokenizer.pad_token is None:  # padding is masked: any token serves, as in `Encoder`
        peer.tokenizer.pad_token = encoder.tokenizer.pad_token
    return peer


def cutter(peer: Any) -> Callable[[int], None]:
    """A function that cuts a model of sentence-transformers to its first n layers, in place and not for good."""
    transformer = peer[0].auto_model
    path, _, leaf = layer_path(transformer).rpartition(".")
    owner = transformer.get_submodule(path)
    layers = list(getattr(owner, leaf))
    return lambda n: setattr(owner, leaf, nn.ModuleList(layers[:n]))
