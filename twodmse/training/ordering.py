"""The order of an encoder's coordinates: the same model, with those first that a cut vector needs most.

A transformer's coordinates have no order of their own. Reordering them in every weight that reads or writes them leaves
all cosines at full width as they are and changes which coordinates a cut keeps.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet
from twodmse.encoder.backbone import Backbone
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import evaluating
from twodmse.objectives.losses import pair_cosines, standardised
from twodmse.objectives.plan import TEACHER
from twodmse.objectives.recipes import Recipe
from twodmse.training.trainer import CONFIG_FILE

# Linear layers by the ends of their names in BERT, RoBERTa, MPNet, DistilBERT and ModernBERT.
READERS = (
    ".query", ".key", ".value", ".q", ".k", ".v", ".q_lin", ".k_lin", ".v_lin", ".Wqkv",
    ".intermediate.dense", ".lin1", ".Wi",
)  # fmt: skip
WRITERS = (".output.dense", ".o", ".out_lin", ".lin2", ".Wo")
ROWS = 500  # of the data, from which the order is found
AT_ONCE = 32  # coordinates tried in one go
WIDE = (
    384  # coordinates above which the search looks at fewer rows, and takes several coordinates at a time once it has
)
ONE_BY_ONE = 64  # taken: its work grows with rows x dims^2 x layers


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
    wide = encoder.dim > WIDE
    rows = rows * WIDE // encoder.dim if wide else rows
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
    with tqdm(total=len(left), desc="order", unit="dim", disable=progress is False, delay=2) as bar:
        while left:
            scores = []
            for some in torch.tensor(left).split(AT_ONCE):
                products, x_squares, y_squares = sums.unsqueeze(1) + parts[:, some]  # (c, N, P) each
                cosines = products / (x_squares * y_squares).clamp(min=1e-24).sqrt()
                scores.append((standardised(cosines) @ wanted).mean(dim=-1))  # (c,)
            several = max(1, len(left) // ONE_BY_ONE) if wide and len(order) >= ONE_BY_ONE else 1
            best = [left[i] for i in torch.cat(scores).topk(several).indices.tolist()]
            order += best
            left = [i for i in left if i not in best]
            sums += parts[:, best].sum(dim=1)
            bar.update(several)
    return np.array(order)


@torch.no_grad()
def reorder(backbone: Backbone, order: Sequence[int]) -> None:
    """Put an encoder's coordinates in another order, in place: coordinate i of every layer is what order[i] was.

    Where it is known which side of every weight holds the coordinates, the weights are reordered, and the states must
    come out in the new order. Everywhere else a linear module after the pooling does it, for a matrix (D, D) more; it
    is not trained until the model has been saved and loaded, where it is a linear module like any.

    Args:
        backbone: the encoder's stack of layers.
        order: each of 0..D-1 once.

    Raises:
        ValueError: if the order is not one of D coordinates.
    """
    D = backbone.dim
    if sorted(order) != list(range(D)):
        raise ValueError(f"an order of {D} coordinates has each of 0..{D - 1} once")
    taken = torch.as_tensor(np.asarray(order))
    if backbone.head is not None:
        _take([(p, 0) for p in backbone.head.parameters()], taken)
        return
    axes, before = coordinate_axes(backbone), _few_states(backbone)
    if axes is not None:
        _take(axes, taken)
        if torch.allclose(_few_states(backbone), before[..., taken], atol=1e-4, rtol=1e-3):
            return
        _take(axes, taken.argsort())  # a weight that was not thought of: undone
    head = nn.Linear(D, D, bias=False).requires_grad_(False)
    head.weight.copy_(torch.eye(D)[taken])
    backbone.head = head.to(backbone.model.get_input_embeddings().weight.device)


def check_orders(encoder: Encoder, teacher: Encoder | None, recipe: Recipe) -> None:
    """Refuse to hold vectors to a teacher where a run has put the coordinates of one of the two in another order.

    Raises:
        ValueError: saying what to do.
    """
    held = any(a.target == TEACHER and a.kind == "vectors" for a in recipe.plan(0).alignments)
    names = [one.backbone.model.config._name_or_path for one in (encoder, teacher) if one is not None]
    if held and len(set(names)) == 2 and is_ordered(names[0]) != is_ordered(names[1]):
        raise ValueError(
            f"the coordinates of {names[0] if is_ordered(names[0]) else names[1]} were put in an order of their own "
            "(order_dims), so vectors cannot be held to the teacher's: give hold_weight=0"
        )


def is_ordered(name: str) -> bool:
    """Whether the run that a model folder is of, or one that it goes back to, put the coordinates in another order."""
    seen = set()
    while name and (path := Path(name) / CONFIG_FILE).is_file() and path not in seen:  # one made in memory has no name
        seen.add(path)
        config = TrainConfig.read(path)
        if config.order_dims:
            return True
        name = config.backbone
    return False


def put_in_order(encoder: Encoder, teacher: Encoder | None, order: list[int]) -> None:
    """Reorder an encoder's coordinates, and with them those of a teacher as wide."""
    for one in (encoder, teacher):
        if one is not None and one.dim == one.backbone.dim == len(order):  # a cut one has lost coordinates of it
            reorder(one.backbone, order)


def coordinate_axes(backbone: Backbone) -> list[tuple[nn.Parameter, int]] | None:
    """Every weight that reads or writes the coordinates of token vectors, with the axis they lie on.

    Returns:
        The weights and axes; None if a linear layer is not of the known ones.
    """
    axes: list[tuple[nn.Parameter, int]] = []
    for name, module in backbone.named_modules():
        reads = isinstance(module, nn.Linear) and name.endswith(READERS)
        if reads or (isinstance(module, nn.Embedding) and module.embedding_dim == backbone.dim):
            axes.append((module.weight, 1))
        elif isinstance(module, nn.Linear) and name.endswith(WRITERS):
            axes += [(p, 0) for p in (module.weight, module.bias) if p is not None]
        elif isinstance(module, nn.Linear):
            return None
        elif "Norm" in type(module).__name__:
            axes += [(p, 0) for p in module.parameters(recurse=False)]
    return axes


def _take(axes: list[tuple[nn.Parameter, int]], taken: torch.Tensor) -> None:
    for parameter, axis in axes:
        parameter.copy_(parameter.index_select(axis, taken.to(parameter.device)))


def _few_states(backbone: Backbone) -> torch.Tensor:
    """The states (N+1, 2, D), on the CPU, of two rows of token ids from all over the vocabulary."""
    table = backbone.model.get_input_embeddings().weight
    ids = torch.arange(16, device=table.device).reshape(2, 8) * (len(table) // 16)
    with evaluating(backbone):
        return backbone([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]).cpu()
