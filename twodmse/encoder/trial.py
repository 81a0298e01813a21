"""A trial at the end of loading: every layer is read as the model itself computes it, or the model is refused.

A model's code may do what a stack of layers does not: end in a norm of another name, change what a layer gives after
it, make positions from padding, mix texts of a batch. None of this raises an error by itself; all of it shows in the
vectors of two texts of unlike length.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor

from twodmse.encoder.backbone import Backbone
from twodmse.encoder.stack import cut

TOLERANCE = 1e-3  # largest length of a difference in lengths of the vector; rounding in float32 is a thousandth of it
LENGTHS = (2, 20)  # tokens of the two texts, before those that stand around every text


@torch.no_grad()
def trial(encoder: Any) -> None:
    """Run two texts together, alone, and through the model's own pass, whole and cut, and compare.

    Args:
        encoder: the `Encoder` to try, in float32.

    Raises:
        ValueError: naming the kind of model, what differs and by how much.
    """
    backbone, kind = encoder.backbone, type(encoder.backbone.model).__name__
    N, ids = backbone.num_layers, _texts(encoder)
    both = encoder.batch(ids)
    try:
        states = backbone([both])  # (N+1, 2, D)
        alone = torch.cat([backbone([encoder.batch([own])]) for own in ids], dim=1)  # (N+1, 2, D)
        own = {n: _own_pass(backbone, n, both) for n in sorted({1, max(1, N - 1), N})}  # (2, D) each
        types = _token_types(encoder, both)
        typed = _own_pass(backbone, N, both | types) if types else states[N]  # (2, D)
    except Exception as error:  # a model's code raises whatever it raises
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"{kind} cannot be read layer by layer ({type(error).__name__}: {reason}): twodmse works with encoders "
            "such as BERT, RoBERTa, MPNet, DistilBERT and ModernBERT"
        ) from error
    if not torch.isfinite(states).all() or not states[N].any(dim=-1).all():
        raise ValueError(f"{kind} gives vectors that are zero or no numbers: its weights are damaged")
    for n in range(N + 1):
        apart = difference(states[n], alone[n])
        if not apart <= TOLERANCE:
            raise ValueError(
                f"{kind} gives a text another vector beside a longer one than alone (layer {n}, a difference of "
                f"{apart:.1e} of its length): it does not mask padding, so its vectors depend on the batch"
            )
    apart = difference(typed, states[N])
    if not apart <= TOLERANCE:
        raise ValueError(
            f"{kind} gives other vectors with the token_type_ids of its tokenizer (a difference of {apart:.1e} of "
            "their length), which twodmse leaves out: take token_type_ids out of model_input_names in "
            "tokenizer_config.json"
        )
    for n, expected in own.items():
        apart = difference(states[n], expected)
        if not apart <= TOLERANCE:
            raise ValueError(
                f"layer {n} of {kind} is not what the model cut to {n} layers gives (a difference of {apart:.1e} of "
                "its length): it does more than run one layer after the other, and cannot be cut in depth"
            )


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest distance of two rows of (b, D), in lengths of the expected one."""
    lengths = expected.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return float(((found - expected).norm(dim=-1) / lengths).max())


def _own_pass(backbone: Backbone, n: int, batch: dict[str, Tensor]) -> Tensor:
    """The pooled end (b, D) of the model's own pass, cut to ``n`` layers."""
    model = backbone.model if n == backbone.num_layers else cut(backbone.model, n)
    return backbone.vectors(model(**batch).last_hidden_state, batch["attention_mask"])


def _token_types(encoder: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The token types (b, T) that other tools would give the model beside a batch, under their name; else nothing."""
    name = "token_type_ids"
    given = name in encoder.tokenizer.model_input_names
    if not given or name not in signature(encoder.backbone.model.forward).parameters:
        return {}
    return {name: torch.zeros_like(batch["input_ids"])}


def _texts(encoder: Any) -> list[list[int]]:
    """The token ids of two texts of the encoder's own vocabulary, a short and a longer one."""
    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids)
    usual = [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]
    picked = usual[:: max(1, len(usual) // LENGTHS[1])]  # from all over the vocabulary
    texts = [tokenizer.decode((picked * LENGTHS[1])[:length]) or "a" for length in LENGTHS]
    return encoder.tokenise(texts, "")["input_ids"]
