"""Every probe of one encoder, from one encoding pass over the texts of a scored set."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from twodmse.data.sets import TextSet, distinct
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import check_grid
from twodmse.objectives.recipes import Recipe
from twodmse.probes.alignment import cka, kl_to_last, score_kl
from twodmse.probes.conflict import gradient_conflict
from twodmse.probes.controls import controls
from twodmse.probes.geometry import alignment_uniformity, anisotropy, outliers, positive_pairs
from twodmse.probes.neighbours import neighbours_kept, order_flips

NEIGHBOURS = 10  # k of neighbours_kept, fewer where there are fewer texts


def probe_encoder(
    encoder: Encoder,
    pairs: TextSet,
    train: TextSet,
    dims: Sequence[int] | None = None,
    recipe: str = "2dmse",
    positive: float = 4.0,
) -> dict[str, pd.DataFrame]:
    """All probes of one encoder.

    Args:
        encoder: the encoder.
        pairs: a scored set, whose different texts are probed.
        train: the data whose gradients are compared.
        dims: as `kl_to_last`.
        recipe: the objective whose gradients are compared.
        positive: the score from which a pair counts as a paraphrase.

    Returns:
        Name -> table, each as the probe of that name gives it: kl_to_last (raw and of length 1, told apart by the
        column ``normalised``), score_kl, cka, neighbours_kept, order_flips, alignment_uniformity, anisotropy, outliers,
        controls, gradient_conflict.

    Raises:
        ValueError: for pairs without scores or with no positive one, a dim out of range, or data or a recipe whose
            gradients cannot be compared; before the texts are encoded.
    """
    if pairs.gold is None:
        raise ValueError(f"{pairs.name} has no scores: probes need the columns sentence1, sentence2, score")
    positive_pairs(pairs.gold, positive)
    dims = check_grid(encoder, None, dims)[1]
    conflict = gradient_conflict(encoder, train, Recipe(recipe, encoder.num_layers, encoder.backbone.dim))
    texts, left, right = distinct(pairs)
    states = encoder.states(texts)  # (N+1, n, D)
    scored = (states, left, right, pairs.gold)
    probes: dict[str, Callable[[], pd.DataFrame]] = {
        "kl_to_last": partial(_both_kinds, states, dims),
        "score_kl": partial(score_kl, states, dims),
        "cka": partial(cka, states),
        "neighbours_kept": partial(neighbours_kept, states, dims, min(NEIGHBOURS, len(texts) - 1)),
        "order_flips": partial(order_flips, states, left, right, dims),
        "alignment_uniformity": partial(alignment_uniformity, *scored, dims, positive),
        "anisotropy": partial(anisotropy, states, dims),
        "outliers": partial(outliers, *scored),
        "controls": partial(controls, *scored, dims),
    }
    tables = {name: probe() for name, probe in tqdm(probes.items(), desc="probe", unit="probe")}
    return tables | {"gradient_conflict": conflict}


def _both_kinds(states: np.ndarray, dims: Sequence[int]) -> pd.DataFrame:
    kinds = [kl_to_last(states, dims, normalise=kind).assign(normalised=kind) for kind in (False, True)]
    return pd.concat(kinds, ignore_index=True)


def summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What to look at first in the tables of `probe_encoder`: one row a layer, at their largest dim."""
    kl = tables["kl_to_last"]
    whole = kl["dim"].max()
    first = tables["controls"].query("control == 'first'").drop(columns="control")
    parts = [
        (first, ["spearman"]),
        (kl[~kl["normalised"]], ["kl"]),
        (tables["neighbours_kept"], ["kept"]),
        (tables["order_flips"], ["flipped"]),
        (tables["alignment_uniformity"], ["alignment", "uniformity"]),
        (tables["anisotropy"], ["mean_cosine", "effective_rank", "largest_share"]),
    ]
    columns = [table[table["dim"] == whole].set_index("layer")[names] for table, names in parts]
    return pd.concat(columns, axis=1)
