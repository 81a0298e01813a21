"""Texts as points in the plane, so aligned between cells that points move and the axes do not jump."""

from typing import NamedTuple

import numpy as np

from twodmse.encoder.encoder import normalise
from twodmse.probes.checks import check_states


class TextMap(NamedTuple):
    """A map of n texts at one cell."""

    points: np.ndarray  # (n, 2), of mean 0
    shown: float  # the share of the texts' variance that the two axes show, 0..1
    spread: float  # root mean square distance of the unit vectors from their mean: 0 is all alike, 1 unrelated


def reference_map(states: np.ndarray) -> TextMap:
    """The first two principal components of the unit vectors at the cell (N, D).

    Args:
        states: (N+1, n, D) of n texts.

    Raises:
        ValueError: for states of fewer than three texts, or texts that all have one vector.
    """
    check_states(states, texts=3)
    centred = _centred_units(states[-1])  # (n, D)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return _described(left[:, :2] * sizes[:2], centred)


def text_map(states: np.ndarray, layer: int, dim: int, reference: TextMap) -> TextMap:
    """The map of a cell that looks most like the reference: the best orthonormal projection, by Procrustes.

    Of all projections Q (d, 2) with orthonormal columns, the one that maximises tr(Q' X' Y), where X (n, d) are the
    centred unit vectors at the cell and Y (n, 2) the reference: Q = U V' from the singular value decomposition of X' Y
    (Schönemann 1966). It changes little where the cell changes little; principal components of each cell on its own
    would swap and mirror.

    Args:
        states: (N+1, n, D), as `reference_map` took them.
        layer: layers run, 0..N.
        dim: coordinates kept, 1..D.
        reference: as `reference_map` gives it.

    Raises:
        ValueError: for a cell out of range, or one at which all texts have one vector.
    """
    if not 0 <= layer < states.shape[0] or not 1 <= dim <= states.shape[2]:
        raise ValueError(f"cell ({layer}, {dim}) is out of range: these states have layers 0..{states.shape[0] - 1}")
    centred = _centred_units(states[layer][:, :dim])  # (n, d)
    left, _, right = np.linalg.svd(centred.T @ reference.points, full_matrices=False)
    return _described(centred @ (left @ right), centred)


def _centred_units(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors less their mean: (n, d) in and out, float64."""
    units = normalise(vectors.astype(np.float64))
    return units - units.mean(axis=0)


def _described(points: np.ndarray, centred: np.ndarray) -> TextMap:
    whole = float(np.square(centred).sum())
    if whole < 1e-20:
        raise ValueError("all texts have the same vector at this cell: there is no map of them")
    return TextMap(points, float(np.square(points).sum()) / whole, float(np.sqrt(whole / len(centred))))
