"""The authors' own losses and training steps on given tensors: a script that test_originals runs for each package.

It sees one of their packages on its path, and nothing of ours. Use: python original_code.py CASES.pt ANSWERS.pt
"""

import importlib.util
import random
import sys
import types
import warnings

import torch
from torch import nn

# What AnglE imports beside its losses and this machine may lack: adapters, quantised weights, logging.
UNUSED = ("bitsandbytes", "boltons", "boltons.iterutils", "peft", "peft.tuners", "peft.tuners.lora", "prettytable")


class Unused(types.ModuleType):
    """Stands in for a module of which only names are imported."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def angle():
    """AnglE's module of trainers."""
    import transformers.trainer  # noqa: F401, first: it looks for some of the same modules

    if "angle_emb" not in sys.modules:
        missing = [name for name in UNUSED if importlib.util.find_spec(name.partition(".")[0]) is None]
        sys.modules.update({name: Unused(name) for name in missing})
    import angle_emb.angle

    return angle_emb.angle


def angle_loss(case):
    """AngleLoss on columns of vectors, texts of one row in turn, as its collator lays them out."""
    columns = [column.clone().requires_grad_() for column in case["columns"]]
    outputs = torch.stack(columns, dim=1).flatten(0, 1)  # (rows x columns, D)
    value = loss_of(case)(labels_of(case, len(columns), len(columns[0])), outputs)
    value.backward()
    return {"value": value.detach(), "gradients": [column.grad for column in columns]}


def loss_of(case):
    formats = getattr(angle(), "DatasetFormats", None)  # letters, before there was a class of them
    letter = case["format"]
    return angle().AngleLoss(dataset_format=getattr(formats, letter) if formats else letter, **case["weights"])


def labels_of(case, columns, rows):
    gold = torch.full((rows,), -1.0) if case["gold"] is None else case["gold"]
    return gold.repeat_interleave(columns)[:, None]  # (rows x columns, 1)


def angle_step(case):
    """One step of a trainer, its draws given, without what transformers' Trainer adds."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(case["model"]).eval()
    trainer = object.__new__(getattr(angle(), case["trainer"]))
    trainer.__dict__.update(
        pooler=angle().Pooler(model, pooling_strategy="cls"),
        loss_fct=loss_of(case),
        kl_loss_fct=nn.KLDivLoss(reduction="batchmean"),
        n_layers=model.config.num_hidden_layers,
        hidden_size=model.config.hidden_size,
        **case["attributes"],
    )
    asked = draw_instead(case["draws"])
    if case.get("exact_svd"):
        torch.svd_lowrank = exact_svd
    labels = labels_of(case, case["columns"], len(case["inputs"]["input_ids"]) // case["columns"])
    value = trainer.compute_loss(model, {**case["inputs"], "labels": labels})
    value.backward()
    return {"value": value.detach(), "gradients": gradients(model), "asked": asked}


def draw_instead(draws):
    """Make `random` hand out the given draws; returns the list of what was asked for."""
    left, asked = list(draws), []

    def drawn(*of):
        asked.append(of)
        return left.pop(0)

    random.randint = lambda low, high: drawn(low, high)
    random.choice = lambda among: drawn(*among)
    random.sample = lambda population, count: [drawn(*population)]
    return asked


def exact_svd(matrix, q):
    """In place of the randomised decomposition: the exact one, each vector's largest entry positive."""
    u, s, v = torch.linalg.svd(matrix)
    signs = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()
    return (u * signs)[:, :q], s[:q], v.T[:, :q]


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def matryoshka_2d(case):
    """sentence-transformers' Matryoshka2dLoss over in-batch ranking, its draws given."""
    from sentence_transformers import SentenceTransformer, losses

    modules = list(SentenceTransformer(case["model"], device="cpu"))[:2]  # not the last one, which normalises
    model = SentenceTransformer(modules=modules).eval()
    loss = losses.Matryoshka2dLoss(model, losses.MultipleNegativesRankingLoss(model), list(case["dims"]))
    dims = loss.loss.matryoshka_dims  # sorted; a place among them is drawn
    last_dim, layer, dim = case["draws"]
    asked = draw_instead([dims.index(last_dim), layer, dims.index(dim)])
    value = loss([model.tokenize(list(column)) for column in case["texts"]], None)
    value.backward()
    return {"value": value.detach(), "gradients": gradients(model[0].auto_model), "asked": asked}


KINDS = {"loss": angle_loss, "step": angle_step, "matryoshka_2d": matryoshka_2d}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    cases = torch.load(sys.argv[1])
    torch.save({name: KINDS[case["kind"]](case) for name, case in cases.items()}, sys.argv[2])
