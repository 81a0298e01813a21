"""Model and tokenizer of a folder, read by transformers and looked at before they are believed."""

import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from twodmse.checked import is_whole, read_json
from twodmse.encoder.stack import HEADS, layers_of

log = logging.getLogger(__name__)

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.*",
    "*.model",
    "*.vocab",
    "*.bpe",
    "*.tiktoken",
    "merges.txt",
    "tokenizer*.txt",
)
T5_ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
NO_CODE = "custom code, and twodmse runs none: only architectures that transformers itself has can be loaded"


def load_parts(folder: Path, name: str | Path, lower_case: bool = False) -> tuple[nn.Module, Any]:
    """Model, in float32, and tokenizer of a transformers folder.

    Args:
        folder: holds config.json, the weights and the tokenizer.
        name: what messages call it.
        lower_case: whether the tokenizer is to lower-case every text, whatever it does by itself.

    Raises:
        FileNotFoundError: if weights or tokenizer are missing.
        ValueError: if the weights do not fill the model that config.json describes, are no numbers, or do not fit the
            tokenizer, or if the model is of a kind that twodmse does not read.
    """
    if not any(folder.glob("model*.safetensors")):
        raise FileNotFoundError(f"{name} has no model.safetensors: twodmse reads safetensors weights only")
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise FileNotFoundError(f"{name} has no tokenizer (no tokenizer.json or vocabulary): its texts cannot be read")
    check_config(folder, name)
    settings = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, **settings)
            config.use_cache = False  # of decoders: nothing is generated
            kind = getattr(transformers, T5_ENCODERS.get(config.model_type, ""), AutoModel)
            tokenizer = AutoTokenizer.from_pretrained(folder, **settings)
            model, report = kind.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True, **settings,
            )  # fmt: skip
    except Exception as error:  # transformers raises many kinds for a damaged folder
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{name} could not be loaded as a transformers encoder: {reason}") from error
    check_filled(report, name)
    try:
        model.get_input_embeddings()
    except NotImplementedError as error:
        raise ValueError(f"{name} is a {type(model).__name__}, which has no table of word vectors") from error
    check_numbers(model, folder, name)
    check_vocabulary(model, tokenizer, name)
    return model, lower_cased(tokenizer, name) if lower_case else tokenizer


def check_config(folder: Path, name: str | Path) -> None:
    """Refuse a config that asks for what twodmse does not do; raises a ValueError."""
    config, tokenizer = (
        read_json(path, dict[str, Any], constants=True) if path.is_file() else {}
        for path in (folder / "config.json", folder / "tokenizer_config.json")
    )
    kind, known = config.get("model_type"), transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    code = config.get("auto_map") or tokenizer.get("auto_map")
    if code and kind not in known:
        raise ValueError(f"{name} is a {kind} model of {NO_CODE}")
    if code:
        log.warning(
            "%s asks for code of its own (auto_map): twodmse runs none, transformers' own %s is used", name, kind
        )
    if config.get("quantization_config"):
        raise ValueError(f"{name} sets 'quantization_config': save it without, twodmse reads plain weights")
    if config.get("is_encoder_decoder") and kind not in T5_ENCODERS:
        raise ValueError(f"{name} is a {kind} model, with a decoder: twodmse cuts encoders (and of T5 its own)")


def check_filled(report: dict[str, Any], name: str | Path) -> None:
    """Refuse weights that do not fill the model, which transformers would fill with random numbers, by a ValueError."""
    other = sorted(entry for entry in report["mismatched_keys"] if entry[0].partition(".")[0] not in HEADS)
    if other:
        key, found, wanted = other[0]
        raise ValueError(
            f"{name} has {key} of shape {tuple(found)}, but its config.json describes {tuple(wanted)} "
            f"({len(other)} such weights): the config is not that of these weights"
        )
    missing = sorted(key for key in report["missing_keys"] if key.partition(".")[0] not in HEADS)
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} weights that its config.json asks for (first: {missing[0]}): "
            "they would be filled with random numbers; the folder is damaged or its config was not cut with its layers"
        )


def check_numbers(model: nn.Module, folder: Path, name: str | Path) -> None:
    """Refuse weights that are not finite, a layer or a vocabulary of zeros, and integers; raises a ValueError."""
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} has weights that are NaN or infinite (first in {key}): the model is damaged")
    places = [("vocabulary", model.get_input_embeddings())]
    places += [(f"layer {n}", layer) for n, layer in enumerate(layers_of(model), start=1)]
    for place, module in places:
        if not any(weight.dim() > 1 and weight.any() for weight in module.parameters()):
            raise ValueError(f"{name} has nothing but zeros in its {place}: the model is damaged")
    parameters = {key for key, _ in model.named_parameters()}
    for file in folder.glob("model*.safetensors"):
        try:
            with safe_open(file, "pt") as stored:
                kinds = {key: stored.get_slice(key).get_dtype() for key in stored.keys() if key in parameters}  # noqa: SIM118
        except SafetensorError:
            continue  # a file that the index does not name
        whole = [key for key, kind in kinds.items() if not kind.startswith(("F", "BF"))]
        if whole:
            raise ValueError(
                f"{name} holds {whole[0]} as whole numbers ({kinds[whole[0]]}): twodmse reads plain weights"
            )


def check_vocabulary(model: nn.Module, tokenizer: Any, name: str | Path) -> None:
    """Refuse a tokenizer with tokens that the model does not have; raises a ValueError."""
    largest, rows = max(tokenizer.get_vocab().values(), default=-1), model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise ValueError(
            f"{name} has a tokenizer with token numbers up to {largest}, but its vocabulary has {rows} rows: "
            "the tokenizer is not that of this model"
        )


def lower_cased(tokenizer: Any, name: str | Path) -> Any:
    """The tokenizer, made to lower-case first as sentence-transformers does for ``do_lower_case``."""
    from tokenizers import normalizers

    if not tokenizer.is_fast:
        raise ValueError(f"{name} sets 'do_lower_case' and has no tokenizer.json: twodmse cannot lower-case its texts")
    own = tokenizer.backend_tokenizer.normalizer
    steps = list(own) if isinstance(own, normalizers.Sequence) else [own] if own is not None else []
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    return tokenizer


def usable_length(model: nn.Module, tokenizer: Any, wanted: int | None) -> int:
    """How many tokens of a text are read: what is wanted, else what the tokenizer says, but never past the positions.

    Raises:
        ValueError: if nothing says a length, or it leaves no room for a token of the text.
    """
    said = tokenizer.model_max_length if wanted is None else wanted
    if isinstance(said, bool) or not isinstance(said, int | float | np.integer) or not said >= 1 or said % 1:
        raise ValueError(
            f"the maximal length is {said!r} (max_length, or the tokenizer's model_max_length): give a whole number"
        )
    length = int(min(said, most := positions(model)))
    if wanted is not None and wanted > most:
        log.warning("the model has positions for %d tokens, fewer than the %d to read: texts are cut there", most, said)
    if length > 10**9:
        raise ValueError(
            "neither the tokenizer nor the model says how long a text may be: give max_length, or write "
            "model_max_length into tokenizer_config.json"
        )
    around = tokenizer.num_special_tokens_to_add()
    if length <= around:
        raise ValueError(f"the maximal length is {length}, and {around} tokens stand around every text: give more")
    return length


def positions(model: nn.Module) -> float:
    """How many tokens the model has positions for; infinite if it does not say."""
    limits = [getattr(model.config, "max_position_embeddings", None) or -1]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)  # RoBERTa counts from after the padding's
    return min((limit for limit in limits if limit >= 1), default=float("inf"))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bars and load reports, and restore its settings afterwards."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def found_device() -> torch.device:
    """The accelerator that torch finds (CUDA, MPS, XPU), else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def check_number(word: str, value: Any, least: int, most: int) -> None:
    """Raise a ValueError that names a number out of its range."""
    if not is_whole(value, least, most):
        raise ValueError(f"{word} {value!r} is out of range: this encoder has {word}s {least}..{most}")


def listed(word: str, values: Any) -> list[Any]:
    """Several layers or dims as a list, whatever they came in.

    Raises:
        ValueError: if it is one number, a text, or a list of lists.
    """
    try:
        found = None if isinstance(values, str | bytes) else list(values)
    except TypeError:  # one number
        found = None
    if found is None or not all(isinstance(value, Hashable) for value in found):
        raise ValueError(f"{word}s is {values!r}: give a list of integers")
    return found


def cell_wanted(layer: int | None, dim: int | None, num_layers: int, width: int) -> tuple[int, int]:
    """The wanted cell (layer, dim), with None read as the largest.

    Raises:
        ValueError: if the layer is outside 1..N or the dim outside 1..D.
    """
    layer = num_layers if layer is None else layer
    dim = width if dim is None else dim
    check_number("layer", layer, 1, num_layers)
    check_number("dim", dim, 1, width)
    return int(layer), int(dim)


def layers_wanted(layers: Any, num_layers: int) -> list[int]:
    """The wanted layers as integers, in their order; None is 0..N.

    Raises:
        ValueError: if they are no list, or one is out of range.
    """
    wanted = listed("layer", range(num_layers + 1) if layers is None else layers)
    for layer in wanted:
        check_number("layer", layer, 0, num_layers)
    return [int(layer) for layer in wanted]


def check_placement(device: Any, dtype: Any) -> None:
    """Raise a ValueError for a device that torch cannot use here, or a dtype that weights cannot have."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype is {dtype!r}: give one of torch.float32, torch.float16 and torch.bfloat16")
    try:
        torch.empty(0, device=device)
    except Exception as error:  # of many kinds, one a device
        raise ValueError(f"torch cannot use the device {device!r} here: this machine has {found_device()}") from error


def check_encoder(encoder: Any) -> None:
    """Raise a ValueError that names what is no encoder, such as a model's name in its place."""
    if not hasattr(encoder, "check_cell"):
        raise ValueError(f"the encoder is {str(encoder)[:80]!r}: give an Encoder, such as Encoder.load gives")
