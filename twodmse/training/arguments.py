"""What transformers' Trainer is told of a config: its arguments, the precision, a learning rate for each depth.

And what is refused before it starts: callbacks, loggers and plans that do not go with the config.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_type_hints

import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from twodmse.checked import checked
from twodmse.config import TrainConfig, is_default
from twodmse.encoder.backbone import Backbone
from twodmse.encoder.encoder import Encoder
from twodmse.encoder.loading import positions
from twodmse.names import OWN
from twodmse.objectives.alignment import KINDS
from twodmse.objectives.plan import TEACHER
from twodmse.objectives.recipes import Recipe
from twodmse.training.distributed import take_off_wrappers

log = logging.getLogger(__name__)

MEASURE = ("eval_data", "eval_cells", "eval_metric")  # settings by which the best model so far is told
PLANS_CHECKED = 20  # steps whose plans are looked at before a run


def training_arguments(
    config: TrainConfig, encoder: Encoder, callbacks: Sequence[TrainerCallback] = ()
) -> TrainingArguments:
    """The Trainer's own settings for a config."""
    on_cpu = encoder.device.type == "cpu"
    return TrainingArguments(
        output_dir=config.out,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.lr,
        warmup_steps=round(config.warmup * config.steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=wants_bf16(config.precision, on_cpu),
        fp16=wants_fp16(config.precision, encoder.device.type),
        use_cpu=on_cpu,
        seed=config.seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_steps=config.save_every,
        save_total_limit=None,  # the oldest go once the newest is whole: see _save_checkpoint
        eval_strategy="steps" if config.eval_every else "no",
        eval_steps=config.eval_every or None,
        metric_for_best_model=f"eval_{config.eval_metric}" if config.eval_every else None,
        greater_is_better=True,
        restore_callback_states_from_checkpoint=bool(callbacks),
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,  # in favour of QuietProgress
        remove_unused_columns=False,
        accelerator_config={"split_batches": True, "even_batches": False},
        ddp_find_unused_parameters=not config.last_layer or config.recipe.startswith(OWN),
        dataloader_pin_memory=False,
    )


def rate_multiples(backbone: Backbone, first: float) -> dict[nn.Parameter, float]:
    """Each parameter's multiple of the learning rate: first^((N-n)/(N-1)) in layer n of N, ``first`` outside them."""
    multiples = dict.fromkeys(backbone.parameters(), first)
    below_last = max(backbone.num_layers - 1, 1)
    for depth, layer in enumerate(backbone.layers):
        multiples |= dict.fromkeys(layer.parameters(), first ** (1 - depth / below_last))
    return multiples


def wants_bf16(precision: str, on_cpu: bool) -> bool:
    """Whether to train under bfloat16 autocast: ``auto`` does so where it is computed natively, and faster.

    On a CPU that is one with AVX-512's bfloat16 instructions, AMX or not: a step of MiniLM on `mini-nli` takes 0.55
    times as long as in float32 (`bench_train` on one core and on two of an AMD EPYC without AMX).
    """
    if precision != "auto":
        return precision == "bf16"
    return torch.cpu._is_avx512_bf16_supported() if on_cpu else torch.cuda.is_bf16_supported(including_emulation=False)


@torch.no_grad()
def usable_precision(encoder: Encoder, precision: str) -> str:
    """The precision asked for, or ``fp32`` for ``auto`` where the model's code does not run in bfloat16; that is said.

    Raises:
        ValueError: if bfloat16 was asked for by name and does not work.
    """
    device, kind = encoder.device, type(encoder.backbone.model).__name__
    if not wants_bf16(precision, device.type == "cpu"):
        return precision
    try:
        with torch.autocast(device.type, torch.bfloat16):
            encoder.backbone([encoder.batch(encoder.tokenise(["a", "a a a"], "")["input_ids"])])
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        if precision != "auto":
            raise ValueError(f"{kind} does not run in bfloat16 ({reason}): use --precision fp32") from error
        log.warning("%s does not run in bfloat16 (%s): it is trained in float32", kind, reason)
        return "fp32"
    return precision


def wants_fp16(precision: str, device: str) -> bool:
    """Whether to train under float16 autocast with scaled losses: ``auto`` does so on a GPU without bfloat16, a T4."""
    return precision == "auto" and device == "cuda" and not wants_bf16(precision, on_cpu=False)


def check_callbacks(callbacks: Any, config: TrainConfig) -> None:
    """Refuse what cannot be called back.

    Raises:
        ValueError: for no list of transformers' callbacks, or early stopping where nothing is evaluated.
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise ValueError(f"callbacks is a {type(callbacks).__name__}: give a list of transformers' callbacks")
    for callback in callbacks:
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, TrainerCallback):
            raise ValueError(f"{callback!r} among the callbacks is no transformers.TrainerCallback")
        if issubclass(kind, EarlyStoppingCallback) and not config.eval_every:
            raise ValueError(
                "EarlyStoppingCallback looks at evaluations, and eval_every is 0: say after how many steps"
            )


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that transformers does not find here.

    Raises:
        ValueError: naming them and those that are installed.
    """
    here = get_available_reporting_integrations()
    missing = [name for name in names if name not in here]
    if missing:
        found = ", ".join(here) or "none"
        raise ValueError(f"report_to names {', '.join(missing)}, which is not installed: installed here: {found}")


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a recipe, each checked as the setting of a run that has its name.

    Raises:
        ValueError: naming the first that cannot work.
    """
    kinds = get_type_hints(TrainConfig, include_extras=True)
    return {name: checked(kinds[name], value, name) if name in kinds else value for name, value in options.items()}


class OwnIntervals(TrainerCallback):
    """The intervals of this run's settings instead of a checkpoint's, and no best score that is one of something else.

    Args:
        measured_anew: says whether it is.
        once_ready: called last, once the state is there.
    """

    def __init__(self, measured_anew: Callable[[], bool], once_ready: Callable[[], None]) -> None:
        self.measured_anew, self.once_ready = measured_anew, once_ready

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called once the state is there."""
        state.compute_steps(args, state.max_steps)
        if self.measured_anew():
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        self.once_ready()


def choose_attention(encoder: Encoder, precision: str) -> None:
    """Leave torch's fused attention in bfloat16 on a CPU: its backward pass takes several times as long there."""
    on_cpu = encoder.device.type == "cpu"
    if on_cpu and wants_bf16(precision, on_cpu):
        encoder.backbone.model.set_attn_implementation("eager")


def set_dropout(backbone: Backbone, p: float | None) -> None:
    """Set every dropout of the backbone, those inside attention included, to probability ``p``; None keeps them.

    Layers are never left out as a whole (``layerdrop``): each of them has a state to train.
    """
    for module, name, _ in dropouts(backbone):
        if name == "layerdrop" or p is not None:
            setattr(module, name, 0.0 if name == "layerdrop" else p)


def dropouts(backbone: Backbone) -> list[tuple[nn.Module, str, float]]:
    """Every probability of the backbone by which something is dropped: the module, its name there, the value."""
    return [
        (module, name, value)
        for module in backbone.modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
        if name == "layerdrop" or "dropout" in name or (name == "p" and isinstance(module, nn.Dropout))
    ]


@contextmanager
def put_back(backbone: Backbone) -> Iterator[None]:
    """Put back, once training is over, what is set for its time: dropouts, the kind of attention, autocast."""
    before, attention = dropouts(backbone), backbone.model.config._attn_implementation
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        if backbone.model.config._attn_implementation != attention:
            backbone.model.set_attn_implementation(attention)
        take_off_wrappers(backbone)


@torch.no_grad()
def check_still(encoder: Encoder) -> None:
    """Refuse an encoder that is random in training though every dropout that is known of it is 0.

    Raises:
        ValueError: naming the model.
    """
    batch = encoder.batch(encoder.tokenise(["a", "a a a"], "")["input_ids"])
    was_training = encoder.backbone.training
    encoder.backbone.train()
    first, second = encoder.backbone([batch]), encoder.backbone([batch])
    encoder.backbone.train(was_training)
    if not torch.equal(first, second):
        name = type(encoder.backbone.model).__name__
        raise ValueError(f"dropout is 0, and {name} still drops at random in a place that is not known: leave it out")


def check_whole(encoder: Encoder) -> None:
    """Refuse an encoder in half precision, or one cut in width: its backbone has coordinates that it does not give.

    Raises:
        ValueError: saying what to do.
    """
    kind = next(encoder.backbone.parameters()).dtype
    if kind.itemsize < torch.float32.itemsize:
        raise ValueError(
            f"the encoder's weights are in {kind}, in which most steps round to nothing: load it without dtype; "
            "the config's precision computes in half precision on weights in float32"
        )
    if encoder.dim < encoder.backbone.dim:
        raise ValueError(
            f"the encoder keeps {encoder.dim} of its {encoder.backbone.dim} coordinates, and training would train all: "
            "train the whole model, and cut it afterwards"
        )


def check_read(config: TrainConfig, encoder: Encoder) -> None:
    """Refuse an encoder that pools otherwise than the config says, or reads another length than it asks for.

    A length at its default asks for none: an encoder in memory keeps its own, and the models of the run say it.

    Raises:
        ValueError: naming both.
    """
    layout = encoder.layout
    if config.pooling not in (None, layout.pooling):
        raise ValueError(f"pooling is {config.pooling!r}, and the encoder pools by {layout.pooling!r}: load it so")
    usable = min(config.max_length, positions(encoder.backbone.model))
    if usable != layout.max_length and not is_default("max_length", config.max_length):
        raise ValueError(
            f"max_length is {config.max_length}, and the encoder reads {layout.max_length} tokens: load it with that "
            "max_length, or leave it out"
        )


def check_plan(recipe: Recipe, config: TrainConfig) -> None:
    """Refuse a plan that cannot be trained with the config, by its first steps.

    Raises:
        ValueError: naming what is missing.
    """
    plans = [recipe.plan(step) for step in range(PLANS_CHECKED)]
    alignments = [alignment for plan in plans for alignment in plan.alignments]
    if config.noise and not alignments:
        raise ValueError(f"noise is {config.noise}, for alignments: {recipe.name!r} as set has none, use noise=0")
    if not any(part.weight for plan in plans for part in plan.parts):
        raise ValueError(f"nothing is trained: {recipe.name!r} as set has no loss with a weight above 0")
    taught = [alignment.kind for alignment in alignments if alignment.target == TEACHER]
    if taught and config.teacher is None:
        raise ValueError(f"recipe {recipe.name!r} aligns to a teacher: name one, for example teacher='bundled'")
    for kind in taught:
        if KINDS[kind].raw:
            raise ValueError(
                f"recipe {recipe.name!r} aligns to a teacher by {kind!r}, which compares raw vectors, and a teacher's "
                "have length 1: align by scores, pairs or vectors"
            )
    held_to = config.hold_weight and not is_default("hold_weight", config.hold_weight)
    if held_to and recipe.teacher_dim not in (None, recipe.dim):
        raise ValueError(
            f"hold_weight is {config.hold_weight}, and the teacher has {recipe.teacher_dim} dims, not {recipe.dim}: "
            "vectors cannot be held to it, leave it out"
        )
