"""Probes: why some cells are worse than others. Tables out, nearly all from one ``states`` array (N+1, n, D).

Each probe is a pure function whose docstring has its formula and source. Layer 0, the embedding layer's output, is
probed like the others.
"""

from twodmse.data.sets import distinct
from twodmse.probes.alignment import cka, kl_to_last, score_kl
from twodmse.probes.conflict import gradient_conflict
from twodmse.probes.controls import controls
from twodmse.probes.geometry import alignment_uniformity, anisotropy, outliers
from twodmse.probes.maps import reference_map, text_map
from twodmse.probes.neighbours import neighbours_kept, order_flips
from twodmse.probes.report import probe_encoder, summary
from twodmse.probes.shares import coordinate_shares, token_shares, token_vectors, unknown_texts

__all__ = [
    "alignment_uniformity",
    "anisotropy",
    "cka",
    "controls",
    "coordinate_shares",
    "distinct",
    "gradient_conflict",
    "kl_to_last",
    "neighbours_kept",
    "order_flips",
    "outliers",
    "probe_encoder",
    "reference_map",
    "score_kl",
    "summary",
    "text_map",
    "token_shares",
    "token_vectors",
    "unknown_texts",
]
