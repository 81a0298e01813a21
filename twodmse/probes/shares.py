"""The shares of coordinates and of tokens in the cosine of two texts at a cell; either add up to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from twodmse.encoder.backbone import final_norm
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import check_texts, evaluating


class TokenVectors(NamedTuple):
    """One text's tokens, each with a vector after every layer and a weight in the pooled vector."""

    tokens: list[str]  # T of them, special ones included
    weights: np.ndarray  # (T,), adding up to 1: the pooled vector is the weighted sum of the token vectors
    layers: Mapping[int, np.ndarray]  # layer 1..N -> (T, D)


def token_vectors(encoder: Encoder, text: str) -> TokenVectors:
    """The token vectors behind a text's pooled vector at each layer 1..N, after the encoder's linear module if any.

    Raises:
        ValueError: for an item that is not a text or holds none.
    """
    check_texts([text])
    chunk = encoder.tokenise([text], return_tensors="pt").to(encoder.device)  # (1, T) each
    norm, head = final_norm(encoder.backbone.model), encoder.backbone.head or nn.Identity()
    layers = {}
    with torch.inference_mode(), evaluating(encoder.backbone):
        for n in range(1, encoder.num_layers + 1):
            hidden = norm(encoder.backbone.start(dict(chunk), n))[0]  # (T, H)
            # Before pooling as well as after: the head is linear, and the weights add up to 1.
            layers[n] = head(hidden).float().cpu().numpy()[:, : encoder.dim]  # (T, D)
    tokens = encoder.tokenizer.convert_ids_to_tokens(chunk["input_ids"][0].tolist())
    weights = np.full(len(tokens), 1 / len(tokens))
    if encoder.layout.pooling != "mean":
        weights = np.zeros(len(tokens))
        weights[0 if encoder.layout.pooling == "cls" else -1] = 1
    return TokenVectors(tokens, weights, layers)


def coordinate_shares(first: np.ndarray, second: np.ndarray, dim: int) -> np.ndarray:
    """What each of the first ``dim`` coordinates adds to the cosine: u_k v_k / (|u| |v|), norms over those coordinates.

    Args:
        first: (D,) the raw pooled vector of one text at a layer.
        second: (D,) that of the other.
        dim: coordinates kept.

    Returns:
        (dim,), adding up to the cosine at the cell.

    Raises:
        ValueError: for a dim outside 1..D, or a vector that is zero over those coordinates: it has no cosine.
    """
    u, v = _cut(first, dim), _cut(second, dim)
    return u * v / (_length(u) * _length(v))


def token_shares(first: TokenVectors, second: TokenVectors, layer: int, dim: int) -> np.ndarray:
    """What each two tokens add to the cosine: a_i b_j <h_i, g_j> / (|u| |v|), with the weights a, b of the pooling.

    The pooled vectors are u = sum a_i h_i and v = sum b_j g_j, so the shares add up to their cosine.

    Args:
        first: as `token_vectors`, of T tokens.
        second: as `token_vectors`, of U tokens.
        layer: layers run, 1..N.
        dim: coordinates kept, 1..D.

    Returns:
        (T, U); its row sums are the shares of the first text's tokens, its column sums those of the second's.

    Raises:
        ValueError: for a cell out of range, or a pooled vector that is zero there.
    """
    if layer not in first.layers:
        raise ValueError(f"layer {layer!r} is out of range: these token vectors have layers 1..{max(first.layers)}")
    h = _cut(first.layers[layer], dim) * first.weights[:, None]  # (T, d)
    g = _cut(second.layers[layer], dim) * second.weights[:, None]  # (U, d)
    return h @ g.T / (_length(h.sum(axis=0)) * _length(g.sum(axis=0)))


def unknown_texts(encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """The texts of which the vocabulary knows nothing: every token but the special ones is the unknown token.

    All such texts of one length have the same vector, whatever they say: their cosine of 1 means nothing.
    """
    tokenizer = encoder.tokenizer
    if tokenizer.unk_token_id is None or not texts:
        return []
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids = encoder.tokenise(texts)["input_ids"]
    kept = [set(row) - special for row in ids]
    return [text for text, row in zip(texts, kept, strict=True) if row == {tokenizer.unk_token_id}]


def _cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first ``dim`` coordinates (..., d) in float64."""
    if not 1 <= dim <= vectors.shape[-1]:
        raise ValueError(f"dim {dim!r} is out of range: these vectors have dims 1..{vectors.shape[-1]}")
    return vectors[..., :dim].astype(np.float64)


def _length(vector: np.ndarray) -> float:
    length = float(np.linalg.norm(vector))
    if length == 0:
        raise ValueError("a vector is zero over the coordinates kept: its cosine is undefined")
    return length
