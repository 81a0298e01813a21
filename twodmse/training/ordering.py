"""The order of an encoder's coordinates: the same model, with those first that a cut vector needs most.

A transformer's coordinates have no order of their own. Reordering them in every weight that reads or writes them leaves
all cosines at full width as they are and changes which coordinates a cut keeps.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from twodmse.data.sets import TextSet
from twodmse.encoder.backbone import Backbone
from twodmse.encoder.encoder import Encoder
from twodmse.objectives.losses import pair_cosines, standardised

# Linear layers by the ends of their names in BERT, RoBERTa, MPNet, DistilBERT and ModernBERT.
READERS = (
    ".query", ".key", ".value", ".q", ".k", ".v", ".q_lin", ".k_lin", ".v_lin", ".Wqkv",
    ".intermediate.dense", ".lin1", ".Wi",
)  # fmt: skip
WRITERS = (".output.dense", ".o", ".out_lin", ".lin2", ".Wo")
ROWS = 500  # of the data, from which the order is found
AT_ONCE = 32  # coordinates tried in one go


def best_order(encoder: Encoder, texts: TextSet, rows: int = ROWS, progress: bool | None = None) -> np.ndarray:
    """Coordinates in the order that a greedy search takes them in; no label is looked at.

    Each next one is that which brings the cosines of the coordinates taken so far closest to those of the whole last
    layer: highest Pearson, mean over layers 1..N. It looks at the pairs within the first rows and as many others.

    Args:
        encoder: the encoder.
        texts: the data.
        rows: how many of them count.
        progress: as `Encoder.states`.

    Returns:
        (D,) each of 0..D-1 once. Source: this project.
    """
    columns = [list(column[:rows]) for column in texts.columns]
    n, width = len(columns[0]), len(columns)
    states = torch.from_numpy(encoder.states([text for column in columns for text in column], progress=progress))
    rng = np.random.default_rng(0)
    within = [(a * n + i, b * n + i) for a in range(width) for b in range(a + 1, width) for i in range(n)]
    across = rng.integers(width * n, size=(len(within), 2)).tolist()
    first, second = np.array([pair for pair in [*within, *across] if pair[0] != pair[1]]).T  # (P,) each
    x, y = states[1:, first], states[1:, second]  # (N, P, D) each
    wanted = standardised(pair_cosines(x[-1], y[-1]))  # (P,)
    parts = torch.stack((x * y, x * x, y * y)).permute(0, 3, 1, 2).contiguous()  # (3, D, N, P)
    sums = torch.zeros_like(parts[:, 0])  # (3, N, P), of the coordinates taken
    order, left = [], list(range(parts.shape[1]))
    for _ in tqdm(range(len(left)), desc="order", unit="dim", disable=progress is False, delay=2):
        scores = []
        for some in torch.tensor(left).split(AT_ONCE):
            products, x_squares, y_squares = sums.unsqueeze(1) + parts[:, some]  # (c, N, P) each
            cosines = products / (x_squares * y_squares).clamp(min=1e-24).sqrt()
            scores.append((standardised(cosines) @ wanted).mean(dim=-1))  # (c,)
        best = left.pop(int(torch.cat(scores).argmax()))
        order.append(best)
        sums += parts[:, best]
    return np.array(order)


@torch.no_grad()
def reorder(backbone: Backbone, order: Sequence[int]) -> None:
    """Put an encoder's coordinates in another order, in place: coordinate i of every layer is what order[i] was.

    Args:
        backbone: the encoder's stack of layers.
        order: each of 0..D-1 once.

    Raises:
        ValueError: if the order is not one of D coordinates, or a layer is of a kind whose sides are not known; nothing
            is changed then.
    """
    D = backbone.dim
    if sorted(order) != list(range(D)):
        raise ValueError(f"an order of {D} coordinates has each of 0..{D - 1} once")
    taken = torch.as_tensor(np.asarray(order))
    axes: list[tuple[nn.Parameter, int]] = []
    for name, module in backbone.named_modules():
        reads = isinstance(module, nn.Linear) and name.endswith(READERS)
        if reads or (isinstance(module, nn.Embedding) and module.embedding_dim == D):
            axes.append((module.weight, 1))
        elif isinstance(module, nn.Linear) and name.endswith(WRITERS):
            axes += [(p, 0) for p in (module.weight, module.bias) if p is not None]
        elif isinstance(module, nn.Linear):
            raise ValueError(f"it is not known which side of {name} holds the coordinates: they cannot be reordered")
        elif "Norm" in type(module).__name__:
            axes += [(p, 0) for p in module.parameters(recurse=False)]
    for parameter, axis in axes:
        parameter.copy_(parameter.index_select(axis, taken.to(parameter.device)))
