"""Vectors in fewer bytes, and the similarity of what is left: pure functions of arrays."""

import math
from collections.abc import Sequence

import numpy as np

from twodmse.encoder.encoder import normalise
from twodmse.evaluation.grid import cell_cosines

VECTOR_PRECISIONS = ("float32", "int8", "binary")


def vector_bytes(dim: int, precision: str) -> int:
    """Bytes of a vector of ``dim`` coordinates: 4 each in float32, 1 in int8, one bit in binary (whole bytes)."""
    return {"float32": 4 * dim, "int8": dim, "binary": math.ceil(dim / 8)}[precision]


def quantise(vectors: np.ndarray, precision: str, ranges: np.ndarray | None = None) -> np.ndarray:
    """Store vectors in fewer bytes, with the codes of sentence-transformers' ``quantize_embeddings`` (version 6.2).

    int8: the range of each coordinate is cut into 255 steps, and the code is the step's number less 128. binary: one
    bit a coordinate, 1 where it is above 0, eight to a byte (``ubinary`` there).

    Args:
        vectors: (n, d) float32, as `Encoder.encode` gives them.
        precision: float32, int8 or binary.
        ranges: (2, d) least and largest value of each coordinate, for int8: those of the texts you search, so that
            later texts get codes on the same scale; None takes those of ``vectors``.

    Returns:
        (n, d) float32 or int8, or (n, ceil(d / 8)) uint8.

    Raises:
        ValueError: for an unknown precision, another shape, or fewer than two vectors to take ranges from.
    """
    if precision not in VECTOR_PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(VECTOR_PRECISIONS)}")
    vectors = np.asarray(vectors)
    if precision == "float32":
        return vectors.astype(np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"the vectors have shape {vectors.shape}: give an array (n, d), one row a text")
    if precision == "binary":
        return np.packbits(vectors > 0, axis=-1)  # (n, ceil(d / 8))
    if ranges is None and len(vectors) < 2:
        raise ValueError("int8 needs the range of each coordinate: give at least two vectors, or ranges")
    ends = np.stack([vectors.min(axis=0), vectors.max(axis=0)] if ranges is None else ranges).astype(np.float32)
    if ends.shape != (2, vectors.shape[1]):
        raise ValueError(f"the ranges have shape {ends.shape}: it must be {(2, vectors.shape[1])}, least and largest")
    low, high = ends
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)  # a coordinate that never changes gets one code
    return (np.clip(np.floor((vectors - low) / steps), 0, 255) - 128).astype(np.int8)


def precision_scores(
    vectors: np.ndarray, left: Sequence[int], right: Sequence[int], dims: Sequence[int], precision: str
) -> np.ndarray:
    """Similarity of each pair at every cut width, from vectors kept in one precision.

    float32: the cosine. int8: the cosine of the codes of `quantise`, made of the vectors cut to d and normalised, with
    the ranges of these n texts. binary: the share of the d signs that agree, which is 1 less the Hamming distance / d.

    Args:
        vectors: (n, D) raw vectors of one layer.
        left: P row numbers each.
        right: P row numbers each.
        dims: K cut widths.
        precision: float32, int8 or binary.

    Returns:
        (P, K) float64.
    """
    if precision == "float32":
        return cell_cosines(vectors, left, right, dims)
    if precision == "binary":
        signs = vectors > 0  # (n, D); cutting and normalising change no sign
        agree = np.cumsum(signs[left] == signs[right], axis=1)  # (P, D)
        return agree[:, np.asarray(dims) - 1] / np.asarray(dims)  # (P, K)
    scores = np.empty((len(left), len(dims)))
    for k, dim in enumerate(dims):
        codes = quantise(normalise(vectors[:, :dim]), "int8").astype(np.float64)  # (n, d)
        squares = np.maximum(np.square(codes).sum(axis=1), 1)  # (n,); codes of 0 alone have no direction: cosine 0
        products = (codes[left] * codes[right]).sum(axis=1)  # (P,), whole numbers as the squares: equal texts have 1
        scores[:, k] = products / np.sqrt(squares[left] * squares[right])
    return scores
