"""Gradient conflict: do the terms of an objective pull the weights of each layer the same way?"""

from itertools import combinations

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from twodmse.data.sets import TextSet
from twodmse.encoder.backbone import Backbone, final_norm
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.reading import evaluating
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.plan import TEACHER
from twodmse.objectives.recipes import Recipe
from twodmse.training.batches import Collator, DistinctBatches


def gradient_conflict(
    encoder: Encoder,
    texts: TextSet,
    recipe: Recipe,
    base: BaseLoss | None = None,
    batch_size: int = 16,
    steps: int = 4,
) -> pd.DataFrame:
    """Cosine between the gradients of each two terms of a recipe's objective, layer by layer.

    cos(g_a, g_b), g_t the gradient of the term t, weighted as it is logged, with respect to all weights of one layer:
    below 0 the terms undo each other's steps there (Yu et al. 2020, 2001.06782, definition 1). Batches and draws are
    those of the first steps of a run with the recipe's seed, without dropout; nothing is trained.

    Args:
        encoder: the encoder.
        texts: triplets or pairs to take batches from.
        recipe: the objective, for this encoder.
        base: its base loss; None means contrastive for triplets, cosent for scored pairs.
        batch_size: rows a step.
        steps: steps whose cosines are averaged, each with its own batch and drawn cells.

    Returns:
        One row a layer and pair of terms: layer, term_a, term_b, cosine, mean over the steps in which both terms reach
        the layer; NaN if there is none, as above a sampled layer. Layer 0 is all weights outside the layers (the
        embeddings), the final norm of a pre-norm model left out.

    Raises:
        ValueError: if the recipe is for another N or D, needs a teacher or logs one term only, or there are no steps.
    """
    check_recipe(encoder, recipe)
    if steps < 1:
        raise ValueError(f"steps is {steps!r}: at least 1 is needed")
    if base is None:
        base = BaseLoss.named("auto", texts.gold is not None, (1.0, 1.0, 1.0), BaseLoss().scale)
    groups = layer_weights(encoder.backbone)
    collate = Collator(encoder, chunks=4)
    batches = DistinctBatches(texts, batch_size, steps, recipe.seed)
    found = []
    with evaluating(encoder.backbone):
        for step, rows in enumerate(tqdm(batches, desc="gradients", unit="step", delay=2)):
            terms = _terms(encoder, collate([texts[i] for i in rows]), recipe, base, step)
            found += _cosines(terms, groups)
    table = pd.DataFrame(found, columns=["layer", "term_a", "term_b", "cosine"])
    return table.groupby(["layer", "term_a", "term_b"], as_index=False)["cosine"].mean()


def check_recipe(encoder: Encoder, recipe: Recipe) -> None:
    """Refuse an objective that has no two terms to compare on this encoder.

    Raises:
        ValueError: if it is for another N or D, needs a teacher or logs one term only.
    """
    wanted = (encoder.num_layers, encoder.backbone.dim)
    if (recipe.num_layers, recipe.dim) != wanted:
        raise ValueError(f"the recipe is for N, D = {recipe.num_layers}, {recipe.dim}: this encoder has {wanted}")
    plan = recipe.plan(0)
    if any(alignment.target == TEACHER for alignment in plan.alignments):
        raise ValueError(f"recipe {recipe.name!r} aligns to a teacher: its gradients cannot be taken here")
    if len({part.term for part in plan.parts}) < 2:
        raise ValueError(f"recipe {recipe.name!r} logs one term: two are needed to compare their gradients")


def layer_weights(backbone: Backbone) -> dict[int, list[nn.Parameter]]:
    """The trained weights of each layer 1..N by its number, and under 0 those outside the layers and the final norm."""
    groups = {n: [p for p in layer.parameters() if p.requires_grad] for n, layer in enumerate(backbone.layers, start=1)}
    taken = {id(p) for group in [*groups.values(), final_norm(backbone.model).parameters()] for p in group}
    return {0: [p for p in backbone.parameters() if p.requires_grad and id(p) not in taken]} | groups


def _terms(encoder: Encoder, batch: dict, recipe: Recipe, base: BaseLoss, step: int) -> dict[str, Tensor]:
    """The logged terms of one step, with their graph."""
    device = encoder.device
    chunks = [{name: value.to(device) for name, value in chunk.items()} for chunk in batch["chunks"]]
    gold = batch["gold"].to(device) if "gold" in batch else None
    states = encoder.backbone(chunks)[:, batch["order"]]  # (N+1, B, D), column after column
    return objective(states, recipe.plan(step), base, batch["columns"], gold)


def _cosines(terms: dict[str, Tensor], groups: dict[int, list[nn.Parameter]]) -> list[tuple[int, str, str, float]]:
    """Rows (layer, term_a, term_b, cosine) of one step."""
    weights = [p for group in groups.values() for p in group]
    sizes = [sum(p.numel() for p in group) for group in groups.values()]
    gradients = {}  # term -> layer -> its gradient, one long vector
    for name, term in terms.items():
        parts = torch.autograd.grad(term, weights, retain_graph=True, materialize_grads=True)
        whole = torch.cat([part.flatten() for part in parts])
        gradients[name] = dict(zip(groups, whole.split(sizes), strict=True))
    rows = []
    for layer in groups:
        for a, b in combinations(sorted(terms), 2):
            x, y = gradients[a][layer], gradients[b][layer]
            lengths = x.norm() * y.norm()
            rows.append((layer, a, b, (x @ y / lengths).item() if lengths > 0 else float("nan")))
    return rows
