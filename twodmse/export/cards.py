"""Model cards: the README.md beside an exported model, with the front matter the hub reads."""

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from huggingface_hub import ModelCardData, metadata_load, try_to_load_from_cache

from twodmse.checked import Count, Text, checked, read_json
from twodmse.encoder.hub import BUNDLED_PACKAGE, bundled_folder
from twodmse.export.scores import grid_text
from twodmse.version import __version__

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TRAIN_CONFIG = "train_config.json"  # lies beside the weights of every model trained here
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
EXAMPLES = ("The shop is shut on Sundays.", "You cannot buy anything there at the weekend.")
TAGS = ["feature-extraction", "sentence-similarity", "matryoshka", "2dmse", "twodmse"]


@dataclass(frozen=True)
class Origin:
    """Where an encoder's weights come from, as far as the files beside them tell."""

    backbone: str | None  # hub id, or the name of a folder; None where nothing is recorded
    on_hub: bool  # whether ``backbone`` is a hub id
    license: str | None  # as the backbone's own card names it, in the hub's words (apache-2.0, mit, ...)
    datasets: tuple[str, ...]  # training data of the backbone, as its own card names them
    trained: tuple[str, ...]  # training runs of this package since then, the newest first


@dataclass(frozen=True)
class CardFacts:
    """What a card says of the model beside it; N and D are those of the encoder it was cut from."""

    format: str  # safetensors | onnx
    layer: int
    dim: int
    num_layers: int  # N
    full_dim: int  # D
    pooling: str
    max_length: int
    size: int  # bytes of the weights file
    full_size: int  # bytes of the whole encoder's weights in float32
    texts: int  # how many were compared with the encoder's vectors
    difference: float  # largest of a coordinate in float32
    cosines: np.ndarray | None  # (n,) of the int8 vectors of n sentences with the encoder's; None for float32 weights
    all_layers: bool = False  # whether the file gives the states of every layer; ``cosines`` are (layer + 1, n) then
    closing: int | None = None  # token that ends every text, where there is one
    cut_side: str = "right"  # of a text that is too long


def find_origin(name: str) -> Origin:
    """Follow the records beside the weights back to the backbone.

    Args:
        name: what the weights were loaded from: a folder, a folder of the hub's cache, or nothing.
    """
    trained: list[str] = []
    seen: set[str] = set()
    while name not in seen and (config := _train_config(name)) is not None:
        seen.add(name)
        trained.append(
            f"recipe `{_code(config['recipe'])}` on `{_code(_shown(config['data']))}`, {config['steps']} steps"
        )
        name = str(bundled_folder()) if config["backbone"] == "bundled" else config["backbone"]
    folder = Path(name)
    backbone, on_hub = _hub_id(name)
    card = _front_matter(folder, backbone if on_hub else None)
    base = card.get("base_model")
    if (
        not on_hub and isinstance(base, str) and HUB_ID.fullmatch(base)
    ):  # a folder exported earlier: its card names the backbone
        backbone, on_hub = base, True
    license_, datasets = card.get("license"), card.get("datasets") or []
    return Origin(
        backbone,
        on_hub,
        license_ if isinstance(license_, str) and license_ != "unknown" else None,
        tuple(d for d in (datasets if isinstance(datasets, list) else [datasets]) if isinstance(d, str)),
        tuple(trained),
    )


def _train_config(name: str) -> dict[str, Any] | None:
    """The settings of the training run that made the weights in a folder; None if none of ours lie there."""
    path = Path(name) / TRAIN_CONFIG
    config = read_json(path, dict[str, Any]) if name and path.is_file() else {}
    kinds = {"recipe": Text, "data": Text, "steps": Count, "backbone": Text}
    if not set(kinds) <= set(config):
        return None
    return {key: checked(kind, config[key], f"{path}: {key}") for key, kind in kinds.items()}


def _shown(data: str) -> str:
    """A data set's name, or the name of its file without the folders of the machine it lay on."""
    return data if data.startswith("hub:") else Path(data).name


def _code(text: str) -> str:
    """Somebody else's text for a code span: on one line, without what would end the span."""
    return " ".join(text.replace("`", "'").split())


def _task(name: str) -> str:
    return f"`{_code(_shown(name))}`"


def _words(text: str) -> str:
    """Somebody else's text for prose: on one line, nothing in it read as Markdown or HTML."""
    return re.sub(r"([\\`*\[\]()<>|!#])", r"\\\1", " ".join(text.split()))


def _hub_id(name: str) -> tuple[str | None, bool]:
    """The hub id behind what weights were loaded from, and whether it is one; else the folder's name."""
    parts = Path(name).parts
    if BUNDLED_PACKAGE in parts:
        return MINILM, True
    cached = [part for part in parts if part.startswith("models--")]  # the hub's cache: models--owner--name
    if cached:
        return cached[-1].removeprefix("models--").replace("--", "/"), True
    if name and not Path(name).exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name.partition("@")[0], True  # a revision is no part of the id
    return Path(name).resolve().name if name else None, False


def _front_matter(folder: Path, hub_id: str | None) -> dict[str, Any]:
    """The front matter of the card in a folder, or of the hub id's card where it is in the hub's cache."""
    path = folder / "README.md"
    if hub_id and not path.is_file():
        cached = try_to_load_from_cache(hub_id, "README.md")
        path = Path(cached) if isinstance(cached, str) else path
    try:
        return (metadata_load(path) if path.is_file() else None) or {}
    except Exception:  # a damaged card of somebody else's, in any of YAML's errors: nothing is known then
        return {}


def model_card(facts: CardFacts, origin: Origin, grid: pd.DataFrame | None = None) -> str:
    """The text of README.md.

    Args:
        facts: of the model.
        origin: of its weights.
        grid: of the encoder it was cut from, as `sts_grid` gives it.
    """
    library = {"safetensors": "sentence-transformers", "onnx": "onnx"}[facts.format]
    front = ModelCardData(
        library_name=library,
        pipeline_tag="sentence-similarity",
        tags=[library, *TAGS] + (["int8"] if facts.cosines is not None else []),
        base_model=origin.backbone if origin.on_hub else None,
        license=origin.license or "unknown",
        datasets=list(origin.datasets) or None,
    ).to_yaml()
    values = vars(facts) | {
        "front": front,
        "checked": _checked(facts),
        "backbone": _backbone(origin),
        "name": _words((origin.backbone or "encoder").rpartition("/")[2]),
        "megabytes": f"{facts.size / 1e6:.1f}",
        "full_megabytes": f"{facts.full_size / 1e6:.1f}",
        "bytes": 4 * facts.dim,
        "full_bytes": 4 * facts.full_dim,
        "does": Template(_text("does_all.md" if facts.all_layers else "does.md")).substitute(vars(facts)).strip(),
        "use": Template(_text(f"{facts.format}_all.md" if facts.all_layers else f"{facts.format}.md"))
        .substitute(vars(facts) | {"texts": json.dumps(EXAMPLES)} | _notes(facts))
        .strip(),
        "scores": "No scores were given when this was exported."
        if grid is None
        else grid_text(grid, facts.layer, facts.dim, _task),
        "origin": "\n".join(f"- {line}" for line in _origin_lines(origin)),
        "version": __version__,
    }
    return Template(_text("card.md")).substitute(values)


def _text(name: str) -> str:
    return (files("twodmse") / "resources" / "cards" / name).read_text(encoding="utf-8")


def _notes(facts: CardFacts) -> dict[str, str]:
    """What the readers of an ONNX folder must know of this one, each in a sentence or two."""
    names = {"mean": ("MEAN", "mean"), "cls": ("CLS", "cls"), "last": ("LAST_TOKEN", None)}
    fastembed, pooling = names[facts.pooling]
    pipeline = (
        f'`pipeline("feature-extraction", folder, {{ dtype: "fp32" }})` called with `{{ pooling: "{pooling}", '
        "normalize: true }` gives the same."
    )
    if pooling is None:
        pipeline = "Its `feature-extraction` pipeline takes padding for the last token: use the model as above."
    named = 'sentence-transformers by `model_kwargs={"file_name": "onnx/model_quantized.onnx"}`, transformers.js'
    quantised = (
        "\n`onnx/model_quantized.onnx` is the same with 8-bit weights. "
        f'{"transformers.js" if facts.all_layers else named} takes\nit by `dtype: "q8"`, its default in a page.'
    )
    if facts.cut_side == "left":
        cut = f"transformers.js cuts a text of more than {facts.max_length} tokens at its end, this model at its start."
    elif facts.closing is None:
        cut = ""
    else:
        cut = Template(_text("closing.md")).substitute(vars(facts))
    return {
        "rows": str(facts.layer + 1),
        "fastembed": fastembed,
        "pipeline": pipeline,
        "quantised": quantised * (facts.cosines is not None),
        "cut": cut,
    }


def _checked(facts: CardFacts) -> str:
    """What the comparison with the encoder came to."""
    of = " of the vector's length" if facts.all_layers else ""
    line = (
        f"Compared with the whole encoder on {facts.texts} texts before it was written: in float32 no coordinate "
        f"differs by more than {facts.difference:.1e}{of}."
    )
    if facts.cosines is None:
        return line
    return (
        f"{line}\nThen quantised to int8: on {facts.cosines.shape[-1]} sentences the cosine to the float32 vectors is "
        f"{facts.cosines.mean():.4f} on average and {facts.cosines.min():.4f} at the lowest.\nA text's vector also "
        "depends a little on what else is in its batch: the activations of a batch share one scale."
    )


def _backbone(origin: Origin) -> str:
    if origin.backbone is None:
        return "an encoder of unrecorded origin"
    return (
        f"[{origin.backbone}](https://huggingface.co/{origin.backbone})"
        if origin.on_hub
        else f"`{_code(origin.backbone)}`"
    )


def _origin_lines(origin: Origin) -> list[str]:
    """Backbone, its licence, its data, and what was trained since, each a sentence."""
    whose = "its own model card" if origin.backbone else "a model card"
    licence = (
        f"{_words(origin.license)}, says {whose}" if origin.license else "unknown: find it out before passing this on"
    )
    data = ", ".join(map(_words, origin.datasets)) or "not recorded"
    trained = "; before that: ".join(origin.trained) or f"no `{TRAIN_CONFIG}` lay beside the weights this was cut from"
    return [
        f"Backbone: {_backbone(origin)}",
        f"Licence of the backbone: {licence}",
        f"Training data of the backbone: {data}",
        f"Trained since: {trained}",
    ]
