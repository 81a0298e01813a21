"""What a model folder says: every setting of sentence-transformers 2 to 6 that changes a vector is read, or refused.

A folder lists its modules in modules.json: a transformer, a pooling, and what follows. A plain transformers folder has
no such list and is mean-pooled. Each file has its rules here; a setting that breaks one, or that has none, is refused
with its name, because a vector made without it would be another one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from twodmse.checked import read_json
from twodmse.encoder.pooling import POOLINGS
from twodmse.encoder.storage import OWN_CONFIG, POOLING_NAMES, Layout
from twodmse.files import LISTED

# sentence-transformers' own order: the first of these that is there is read.
LENGTH_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
IDENTITY = "torch.nn.modules.linear.Identity"
TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
LOADING = ("add_pooling_layer", "attn_implementation", "dtype", "torch_dtype", "trust_remote_code", "use_fast")


class Rule(NamedTuple):
    """What a setting may be."""

    fits: Callable[[Any], bool]
    says: str


def _one_of(*values: Any) -> Rule:
    return Rule(lambda v: any(v is w or (type(v) is type(w) and v == w) for w in values), f"one of {list(values)}")


def _loading_only(value: Any) -> bool:
    return isinstance(value, dict) and all(key in LOADING for key in value)


ANY = Rule(lambda v: True, "anything")
WHOLE = Rule(lambda v: type(v) is int and v >= 1, "a whole number from 1 up")
LENGTH = Rule(lambda v: v is None or WHOLE.fits(v), f"null or {WHOLE.says}")
FLAG = Rule(lambda v: isinstance(v, bool), "true or false")
TEXT_OR_NULL = Rule(lambda v: v is None or isinstance(v, str), "a text or null")
PROMPTS = Rule(
    lambda v: isinstance(v, dict) and all(TEXT_OR_NULL.fits(text) for text in v.values()), "an object of texts"
)
LOADED_PLAINLY = Rule(_loading_only, f"an object of {', '.join(LOADING)}: twodmse gives a model no other settings")
UNUSED = Rule(lambda v: not v, "absent: twodmse does not apply it")
SENTENCE = _one_of("sentence_embedding")

OWN = {"pooling": _one_of(*POOLINGS), "max_length": WHOLE, "dim": WHOLE}
TRANSFORMER = {
    "max_seq_length": LENGTH,
    "do_lower_case": FLAG,
    "transformer_task": _one_of("feature-extraction"),
    "modality_config": Rule(lambda v: isinstance(v, dict) and v.get("text") == TEXT, f"{{'text': {TEXT}}}"),
    "module_output_name": _one_of("token_embeddings"),
    "unpad_inputs": ANY,  # speed only
    "processing_kwargs": UNUSED,
    "query_length": UNUSED,
    "document_length": UNUSED,
    "query_expansion": UNUSED,
} | dict.fromkeys(
    ("model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs"), LOADED_PLAINLY
)
POOLING = {
    "word_embedding_dimension": WHOLE,
    "embedding_dimension": WHOLE,
    "pooling_mode": Rule(
        lambda v: isinstance(v, str) or (isinstance(v, list) and all(isinstance(m, str) for m in v)), "a mode or a list"
    ),
    "include_prompt": FLAG,
} | dict.fromkeys(FLAGS, FLAG)
DENSE = {
    "in_features": WHOLE,
    "out_features": WHOLE,
    "bias": FLAG,
    "activation_function": Rule(lambda v: v == IDENTITY, f"{IDENTITY}: twodmse cuts linear modules only"),
    "module_input_name": SENTENCE,
    "module_output_name": SENTENCE,
    "use_residual": UNUSED,
}
WHOLE_MODEL = {
    "__version__": ANY,
    "model_type": _one_of("SentenceTransformer"),
    "prompts": PROMPTS,
    "default_prompt_name": TEXT_OR_NULL,
    "similarity_fn_name": ANY,  # how vectors are compared, not what they are
    "truncate_dim": LENGTH,
}


class Settings(NamedTuple):
    """What a model folder says."""

    layout: Layout
    weights: Path  # the folder of the transformer: the folder itself, or one inside it
    head: nn.Linear | None  # a linear module after the pooling


def read_settings(path: Path, rules: dict[str, Rule], needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings in a JSON file, every one of them known and within its rule.

    Raises:
        ValueError: naming the file and the setting.
    """
    try:
        settings = read_json(path, dict[str, Any])
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): the model folder is not whole") from error
    for name in needed:
        if name not in settings:
            raise ValueError(f"{path} has no {name!r}: write it anew, or take it away")
    for name, value in settings.items():
        if name not in rules and value not in (None, {}):
            raise ValueError(f"{path} sets {name!r} to {value!r}: twodmse does not know and cannot apply it")
        if name in rules and not rules[name].fits(value):
            raise ValueError(f"{path} sets {name!r} to {value!r}: for twodmse it must be {rules[name].says}")
    return settings


def read_folder(folder: Path) -> Settings:
    """Everything a model folder says about its vectors.

    Raises:
        ValueError: for a setting or a module that this package cannot reproduce, by name.
        FileNotFoundError: if it is no model folder.
    """
    path = folder / OWN_CONFIG
    own = read_settings(path, OWN | {LISTED: ANY}, tuple(OWN)) if path.is_file() else {}
    own.pop(LISTED, None)
    plain = Settings(Layout(**own), folder, None)
    found = _read_modules(folder) if (folder / "modules.json").is_file() else plain
    if not (found.weights / "config.json").is_file():
        raise FileNotFoundError(f"{found.weights} is no model folder: it has no config.json")
    if (found.weights / "adapter_config.json").is_file():
        raise ValueError(f"{found.weights} holds an adapter (adapter_config.json): merge it into the weights first")
    for name in own:
        said = getattr(found.layout, name)
        if said not in (None, own[name]):
            raise ValueError(
                f"{path} sets {name!r} to {own[name]!r}, the files beside it to {said!r}: "
                f"delete {OWN_CONFIG} if another program has written the folder since"
            )
    return found._replace(layout=found.layout._replace(**own))


def _read_modules(folder: Path) -> Settings:
    listing = folder / "modules.json"
    modules = []
    for module in read_json(listing, tuple[Any, ...]):
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise ValueError(f"{listing} has an entry {module!r}: each must have a type and a path, both texts")
        package, _, kind = module["type"].rpartition(".")
        if package.partition(".")[0] != "sentence_transformers":
            raise ValueError(f"{listing} asks for {module['type']}: this is custom code, and twodmse runs none")
        if Path(module["path"]).is_absolute() or ".." in Path(module["path"]).parts:
            raise ValueError(f"{listing} has the path {module['path']!r}: it must lie inside the folder")
        modules.append((kind, folder / module["path"]))
    kinds = [kind for kind, _ in modules if kind != "Dropout"]  # a dropout does nothing outside training
    known = ["Transformer", "Pooling", "Dense", "Normalize"]
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"{folder} has a {kind} module, which twodmse cannot cut in depth: use its backbone alone")
    if kinds != [kind for kind in known if kind in kinds] or kinds[:2] != known[:2]:
        raise ValueError(
            f"{listing} lists {', '.join(kinds)}: twodmse reads {', '.join(known)}, each once, in this order"
        )
    where = dict(modules)
    layout = _read_transformer(where["Transformer"])
    pooling, include = _read_pooling(where["Pooling"] / "config.json")
    layout = layout._replace(pooling=pooling, include_prompt=include)
    layout, head = _read_head(where["Dense"], layout) if "Dense" in where else (layout, None)
    if (folder / "config_sentence_transformers.json").is_file():
        layout = _read_whole(folder / "config_sentence_transformers.json", layout)
    return Settings(layout, where["Transformer"], head)


def _read_transformer(folder: Path) -> Layout:
    path = next((folder / name for name in LENGTH_FILES if (folder / name).is_file()), None)
    settings = read_settings(path, TRANSFORMER) if path else {}
    return Layout(max_length=settings.get("max_seq_length"), lower_case=settings.get("do_lower_case", False))


def _read_pooling(path: Path) -> tuple[str, bool]:
    """The pooling, and whether the tokens of a prompt take part in it."""
    settings = read_settings(path, POOLING)
    modes = settings.get("pooling_mode") or [mode for flag, mode in FLAGS.items() if settings.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    names = {name: pooling for pooling, name in POOLING_NAMES.items()}
    if len(modes) != 1 or modes[0] not in names:
        raise ValueError(f"{path} asks for the pooling {', '.join(modes)}: twodmse pools by one of {', '.join(names)}")
    return names[modes[0]], settings.get("include_prompt", True)


def _read_head(folder: Path, layout: Layout) -> tuple[Layout, nn.Linear | None]:
    """The linear module after the pooling; where it only keeps the first coordinates, the layout that says so."""
    settings = read_settings(folder / "config.json", DENSE, ("in_features", "out_features", "activation_function"))
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} has no model.safetensors: twodmse reads safetensors weights only")
    wide, narrow = settings["in_features"], settings["out_features"]
    head = nn.Linear(wide, narrow, bias=settings.get("bias", True))
    try:
        weights = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
        head.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    except Exception as error:  # safetensors and torch each raise their own
        raise ValueError(f"{folder} does not hold the weights that its config.json describes") from error
    if head.bias is None and narrow <= wide and torch.equal(head.weight, torch.eye(narrow, wide)):
        return layout._replace(dim=narrow), None
    return layout, head


def _read_whole(path: Path, layout: Layout) -> Layout:
    settings = read_settings(path, WHOLE_MODEL)
    prompts = settings.get("prompts") or {}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ValueError(f"{path} sets 'default_prompt_name' to {default!r}, which is not among its prompts")
    default = default if prompts.get(default) else None  # an empty one changes nothing
    if default and not layout.include_prompt:
        raise ValueError(
            f"{path} sets 'default_prompt_name' and the pooling 'include_prompt' false: twodmse cannot do both"
        )
    dims = [dim for dim in (layout.dim, settings.get("truncate_dim")) if dim is not None]
    return layout._replace(dim=min(dims, default=None), prompts=prompts, default_prompt_name=default)
