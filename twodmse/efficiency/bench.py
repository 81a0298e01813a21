"""Benchmarks: contenders take turns in one process on the same work, so that their ratio means something."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet, distinct, load_texts
from twodmse.data.tasks import load_tasks
from twodmse.efficiency.costs import bundled_texts, cut_view
from twodmse.efficiency.peer import BATCH, cutter, load_peer
from twodmse.efficiency.timing import half_range, need_peer, peak_memory, take_turns
from twodmse.encoder.encoder import Encoder
from twodmse.evaluation.grid import check_grid, default_dims, pairs_grid
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import Recipe
from twodmse.objectives.summary import WITH_TEACHER, named, names
from twodmse.training.arguments import choose_attention, set_dropout, wants_bf16
from twodmse.training.batches import Collator, DistinctBatches

PEER = "sentence-transformers"
Step = Callable[[int, list[int]], None]
PeerLoop = Callable[[TextSet], dict[tuple[int, int], float]]


def bench_train(
    recipes: Sequence[str] = ("full", "2dmse"),
    data: str = "mini-nli",
    backbone: str = "bundled",
    batch_size: int = 64,
    steps: int = 10,
    precision: str = "auto",
    peer: bool = True,
    length: int = 128,
) -> pd.DataFrame:
    """Seconds of one whole training step (tokenise, forward, loss, backward, optimizer) of each recipe.

    Every contender has its own copy of the backbone and takes each batch in turn; the first round is not counted.

    Args:
        recipes: names of recipes, the first of which is the unit of the ratios. ``grid+teacher`` is the preset ``grid``
            as it trains: with noised copies, without dropout; the teacher's own forward pass is not counted.
        data: triplets, as `load_texts`.
        backbone: as `Encoder.load`.
        batch_size: triplets a step.
        steps: rounds that count.
        precision: auto, fp32 or bf16.
        peer: also take part with sentence-transformers' Matryoshka2dLoss over in-batch ranking.
        length: maximal length in tokens.

    Returns:
        One row a contender: name, seconds (median), spread (half the interquartile range), triplets_per_second, ratio
        (median over rounds of the time to the first recipe's of the same round).

    Raises:
        ValueError: for an unknown recipe, or if sentence-transformers takes part and is not installed.
    """
    if precision not in (kinds := ("auto", "fp32", "bf16")):
        raise ValueError(f"precision is {precision!r}: it must be one of {', '.join(kinds)}")
    unknown = [name for name in recipes if name not in names()]
    if unknown or not recipes:
        raise ValueError(f"unknown recipe {unknown}: choose from {', '.join(names())}")
    if peer:
        need_peer()
    texts = load_texts(data)
    steppers = {name: _our_step(name, backbone, texts, precision, length) for name in recipes}
    if peer:
        steppers[PEER] = _peer_step(backbone, texts, precision, length)
    batches = list(DistinctBatches(texts, batch_size, steps + 1, seed=0))
    contenders = {name: lambda number, step=step: step(number, batches[number]) for name, step in steppers.items()}
    seconds = take_turns(contenders, steps)  # (steps, contenders)
    table = pd.DataFrame({"seconds": seconds.median(), "spread": seconds.apply(half_range)}).rename_axis("name")
    table["triplets_per_second"] = batch_size / table["seconds"]
    table["ratio"] = seconds.div(seconds[recipes[0]], axis=0).median()  # a round's own: what slows all of it cancels
    return table.reset_index()


def _our_step(name: str, backbone: str, texts: TextSet, precision: str, length: int) -> Step:
    encoder = Encoder.load(backbone, max_length=length)
    device = encoder.device
    config = TrainConfig.preset("grid" if name.endswith(WITH_TEACHER) else "default")
    recipe = named(name, encoder.num_layers, encoder.dim)
    collate = Collator(encoder, config.chunks, noise=config.noise)
    set_dropout(encoder.backbone, config.dropout)
    choose_attention(encoder, precision)
    finish = _optimizer_step(encoder.backbone.train())

    def step(number: int, rows: list[int]) -> None:
        batch = collate([texts[i] for i in rows])
        chunks = [{key: value.to(device) for key, value in chunk.items()} for chunk in batch["chunks"]]
        with _autocast(precision, device):
            states = encoder.backbone(chunks)[:, batch["order"].to(device)]
        teacher = torch.randn_like(states[0]) if config.teacher else None  # any vectors take the same time
        terms = objective(
            states, recipe.plan(number), BaseLoss(), batch["columns"], teacher=teacher, own_columns=batch["own_columns"]
        )
        finish(torch.stack(list(terms.values())).sum())

    return step


def _peer_step(backbone: str, texts: TextSet, precision: str, length: int) -> Step:
    from sentence_transformers import losses
    from sentence_transformers.util import batch_to_device

    model = load_peer(backbone, Encoder.load(backbone, max_length=length)).train()
    width = model[0].auto_model.config.hidden_size
    dims = list(Recipe("st2d", 2, width).dims)[::-1]
    loss = losses.Matryoshka2dLoss(model, losses.MultipleNegativesRankingLoss(model), dims)
    finish = _optimizer_step(model)

    def step(_: int, rows: list[int]) -> None:
        features = [model.preprocess([column[i] for i in rows]) for column in texts.columns]
        with _autocast(precision, model.device):
            value = loss([batch_to_device(f, model.device) for f in features], None)
        finish(value)

    return step


def _optimizer_step(module: nn.Module) -> Callable[[torch.Tensor], None]:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6, fused=True)

    def finish(loss: torch.Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return finish


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, wants_bf16(precision, on_cpu=device.type == "cpu"))


def bench_encode(encoder: Encoder, rounds: int = 5, batch_size: int = 16) -> pd.DataFrame:
    """Seconds of encoding one long batch at each depth, against the share n / N that the layers run would suggest.

    What every depth pays alike (tokenising, the embedding layer) is timed by a contender that stops at the first layer.

    Args:
        encoder: the encoder.
        rounds: that count.
        batch_size: texts of the batch, each of the encoder's maximal length.

    Returns:
        One row a layer 1..N: layer, seconds (median of the whole encoding), spread (half the interquartile range),
        ratio (median over rounds of the time to layer N's of the same round, both less that of the first contender),
        share (n / N), excess (ratio / share: 1 if a layer costs its share and nothing else). Ratio and excess are NaN
        where the layers take no measurable time beside what every depth pays.

    Raises:
        ValueError: if there are no rounds.
    """
    texts = long_texts(encoder, batch_size)
    views = {n: cut_view(encoder, n) for n in range(1, encoder.num_layers + 1)}
    contenders: dict[int, Callable[[int], Any]] = {0: lambda _: embed_only(encoder, texts)}
    contenders |= {n: lambda _, view=view: view.encode(texts, batch_size=batch_size) for n, view in views.items()}
    seconds = take_turns(contenders, rounds)  # (rounds, N + 1)
    layers = seconds.drop(columns=0)
    net = layers.sub(seconds[0], axis=0)  # (rounds, N)
    table = pd.DataFrame({"seconds": layers.median(), "spread": layers.apply(half_range)}).rename_axis("layer")
    seen = (net.median() > 0) & (net[encoder.num_layers].median() > 0)  # layers of a tiny model are lost in the noise
    table["ratio"] = net.div(net[encoder.num_layers], axis=0).median().where(seen)
    table["share"] = table.index / encoder.num_layers
    return table.assign(excess=table["ratio"] / table["share"]).reset_index()


def long_texts(encoder: Encoder, count: int) -> list[str]:
    """Texts of the encoder's maximal length: bundled sentences, joined."""
    sentences, joined = bundled_texts(), encoder.max_length // 4  # every sentence has at least 4 tokens
    return [" ".join(sentences[(i + j) % len(sentences)] for j in range(joined)) for i in range(count)]


class _Reached(Exception):
    """Ends a pass at the first layer."""


def embed_only(encoder: Encoder, texts: Sequence[str]) -> None:
    """Do what `Encoder.encode` does with one batch up to its first layer, and stop there."""

    def stop(*_: Any) -> None:
        raise _Reached

    hook = encoder.backbone.layers[0].register_forward_pre_hook(stop)
    try:
        with suppress(_Reached):
            encoder.encode(texts, batch_size=len(texts))
    finally:
        hook.remove()


def bench_grid(
    model: str = "bundled",
    tasks: Sequence[str] = ("mini-sts",),
    dims: Sequence[int] | None = None,
    peer: bool = True,
    rounds: int = 1,
) -> pd.DataFrame:
    """Seconds of the one-pass grid, against encoding the texts once and against the loop over cells.

    All take turns on each task: one encoding of its distinct texts; the grid of every layer x every dim 1..D; the grid
    of every layer x ``dims``; and the loop that a user of sentence-transformers writes for the latter: cut the layers,
    set ``truncate_dim``, run EmbeddingSimilarityEvaluator, cell by cell. Both sides use batches of 64 texts and the
    same maximal length, and have the model and the pairs at hand; the grids' 95% intervals are part of their time.

    Args:
        model: as `Encoder.load`.
        tasks: as `sts_grid`.
        dims: the six largest of the default ones if None.
        peer: also run the loop (minutes for a large task).
        rounds: that count.

    Returns:
        One row a task, and a row ``all`` over several (sums; the largest peak and difference): task, texts,
        encode_seconds, all_dims_seconds, all_dims_ratio (to encoding), all_dims_peak_bytes (of this process, above what
        it held with the model), and with ``peer`` cells, grid_seconds, peer_seconds, speed_up, difference (largest of a
        cell's Spearman x 100). Seconds are medians over rounds.

    Raises:
        ValueError: for an unknown task or a dim out of range, or if sentence-transformers takes part and is not
            installed.
    """
    if peer:
        need_peer()
    sets = load_tasks(tasks)
    encoder = Encoder.load(model)
    layers, dims = check_grid(encoder, None, default_dims(encoder.dim)[-6:] if dims is None else dims)
    loop = _peer_loop(model, encoder, dims) if peer else None
    encoder.encode(bundled_texts()[:BATCH])  # warm
    table = pd.DataFrame([_grid_times(encoder, pairs, layers, dims, loop, rounds) for pairs in sets])
    if len(table) > 1:
        most = ("all_dims_peak_bytes", "difference")
        last = {c: table[c].max() if c in most else table[c].sum() for c in table.columns[1:]}
        table = pd.concat([table, pd.DataFrame([{"task": "all"} | last])], ignore_index=True)
    table.insert(4, "all_dims_ratio", table["all_dims_seconds"] / table["encode_seconds"])
    return table.assign(speed_up=table["peer_seconds"] / table["grid_seconds"]) if peer else table


def _grid_times(
    encoder: Encoder, pairs: TextSet, layers: list[int], dims: list[int], loop: PeerLoop | None, rounds: int
) -> dict[str, Any]:
    texts = distinct(pairs)[0]
    every = range(1, encoder.dim + 1)
    kept: dict[str, Any] = {}

    def all_dims(_: int = 0) -> None:
        pairs_grid(encoder, pairs, every, layers)

    contenders = {"encode": lambda _: encoder.encode(texts), "all_dims": all_dims}
    if loop is not None:
        contenders["grid"] = lambda _: kept.update(grid=pairs_grid(encoder, pairs, dims, layers))
        contenders["peer"] = lambda _: kept.update(peer=loop(pairs))
    seconds = take_turns(contenders, rounds, warm=0, title=pairs.name).median()
    row = {"task": pairs.name, "texts": len(texts), "encode_seconds": seconds["encode"]}
    peak = peak_memory(all_dims)  # untimed: it gives memory back first, which slows what follows
    row |= {"all_dims_seconds": seconds["all_dims"], "all_dims_peak_bytes": peak}
    if loop is None:
        return row
    ours = kept["grid"].set_index(["layer", "dim"])["spearman"]
    row |= {"cells": len(ours), "grid_seconds": seconds["grid"], "peer_seconds": seconds["peer"]}
    return row | {"difference": (ours - pd.Series(kept["peer"])).abs().max()}


def _peer_loop(model: str, encoder: Encoder, dims: list[int]) -> PeerLoop:
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    peer = load_peer(model, encoder)
    cut = cutter(peer)

    def loop(pairs: TextSet) -> dict[tuple[int, int], float]:
        scores = {}
        for n in range(1, encoder.num_layers + 1):
            cut(n)
            for dim in dims:
                evaluator = EmbeddingSimilarityEvaluator(
                    list(pairs.columns[0]), list(pairs.columns[1]), np.asarray(pairs.gold).tolist(), batch_size=BATCH,
                    similarity_fn_names=["cosine"], truncate_dim=dim, write_csv=False,
                )  # fmt: skip
                scores[n, dim] = 100 * evaluator(peer)["spearman_cosine"]
        return scores

    return loop
