"""CellTrainer: transformers' Trainer with a recipe's objective as its loss."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet
from twodmse.encoder.backbone import Backbone
from twodmse.encoder.encoder import Encoder
from twodmse.files import atomic_file
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import Recipe
from twodmse.training.batches import Collator, DistinctBatches
from twodmse.training.checkpoints import keep_newest, mark_complete
from twodmse.training.distributed import gather_rows, whole_gradient
from twodmse.training.gradcache import cached_step, return_large_blocks

CONFIG_FILE = "train_config.json"


class NotFiniteError(ValueError):
    """The loss became NaN or infinite; the run stopped before it could spoil the weights."""


class CellTrainer(Trainer):
    """Trainer whose loss is a recipe's objective on the pooled states of every layer.

    Args:
        encoder: trained in place.
        texts: the data and the order they are taken in.
        batches: the data and the order they are taken in.
        recipe: what each step trains.
        base: the base loss of every cell.
        config: every other setting.
        teacher: the frozen encoder whose scores a recipe aligns to, if it does.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: TextSet,
        batches: DistinctBatches,
        recipe: Recipe,
        base: BaseLoss,
        config: TrainConfig,
        teacher: Encoder | None = None,
    ) -> None:
        self.teacher = teacher
        self.encoder, self.batches, self.recipe, self.base, self.config = encoder, batches, recipe, base, config
        self.last_terms: dict[str, float] = {}
        if config.cache_chunk:
            return_large_blocks()
        choose_attention(encoder, config.precision)
        super().__init__(
            model=encoder.backbone,
            args=training_arguments(config, encoder),
            train_dataset=texts,
            data_collator=Collator(encoder, config.chunks, config.cache_chunk, config.noise, config.seed),
            callbacks=[QuietProgress()],
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader:
        """The run's batches; several processes take equal parts of each."""
        loader = DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def create_optimizer(self, *model: Backbone) -> torch.optim.Optimizer:
        """The Trainer's own, with a learning rate for each depth."""
        optimizer = super().create_optimizer(*model)
        if self.config.first_lr != 1:
            multiples = rate_multiples(self.encoder.backbone, self.config.first_lr)
            optimizer.param_groups = [
                group | {"params": [p for p in group["params"] if multiples[p] == times], "lr": times * group["lr"]}
                for group in optimizer.param_groups
                for times in sorted(set(multiples.values()), key=lambda times: abs(times - 1))  # lr itself is logged
            ]
        return optimizer

    def training_step(self, model: Backbone, inputs: dict[str, Any], *rest: Any) -> Tensor:
        """One step's gradients; with ``cache_chunk``, in the memory of one chunk."""
        if not self.config.cache_chunk:
            return super().training_step(model, inputs, *rest)
        model.train()
        inputs = self._prepare_inputs(inputs)

        def states_of(chunks: list[dict[str, Tensor]]) -> Tensor:
            with self.compute_loss_context_manager():
                return model(chunks)

        return cached_step(
            states_of,
            inputs["chunks"],
            lambda states: self.loss_of(states, inputs),
            self.accelerator.backward,
            lambda: self.accelerator.no_sync(model),
        )

    def compute_loss(self, model: Backbone, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """The loss of a batch from one forward pass (two, if the recipe is to be as its first version was)."""
        states = model(inputs["chunks"])  # (N+1, B, D)
        if self.config.two_passes:
            states = torch.cat([model(inputs["chunks"])[:-1], states[-1:]])  # other dropout below the last layer
        return self.loss_of(states, inputs)

    def loss_of(self, states: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The sum of this step's terms on the batch of all processes; each term is kept for the log.

        Args:
            states: (N+1, B, D) of this process's texts, in the order of its chunks.
            inputs: as `Collator` makes them.

        Raises:
            NotFiniteError: if the sum is NaN or infinite.
        """
        plan = self.recipe.plan(self.state.global_step)
        columns, gold, teacher = inputs["columns"], inputs.get("gold"), None
        with torch.autocast(states.device.type, enabled=False):
            states = gather_rows(states[:, inputs["order"]], columns, dim=1)  # stacked column after column
            gold = None if gold is None else gather_rows(gold)
            if self.teacher is not None:
                teacher = gather_rows(self.teacher_vectors(inputs["texts"], states), columns)  # (B, E)
            terms = objective(states, plan, self.base, columns, gold, teacher, inputs["own_columns"])
            loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise NotFiniteError(
                f"the loss became {loss.item()} at step {self.state.global_step + 1}: lower lr (now {self.config.lr}) "
                f"or use --precision fp32; checkpoints up to here are in {self.config.out}"
            )
        self.last_terms = {name: term.item() for name, term in terms.items()} | plan.sampled
        return whole_gradient(loss)

    def teacher_vectors(self, texts: list[str], like: Tensor) -> Tensor:
        """The frozen teacher's vectors (B, E) of texts stacked column after column."""
        with self.accelerator.autocast():  # the Trainer leaves autocast to accelerate, which wraps the model alone
            vectors = self.teacher.encode(texts, progress=False)
        return torch.from_numpy(vectors).to(like)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms of the step just taken, each under its own name."""
        if "loss" in logs:
            logs = logs | self.last_terms
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write each checkpoint's weights as a whole model folder, usable by `Encoder.load`."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.encoder.write(folder)
            write_config(folder, self.config)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save as the Trainer does, say that nothing is missing, and only then let go of the oldest.

        Raises:
            OSError: if the checkpoint cannot be written; what was written of it is removed, the ones before it stay.
        """
        run = Path(self.args.output_dir)
        folder = run / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)  # the remains of a run that was killed while saving
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(folder)
        except Exception as error:  # a full disk has another kind in each writer: safetensors', torch's, Python's
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(
                f"{folder} could not be written ({error}): make room, then go on with --resume; "
                "the checkpoints before it are kept"
            ) from error
        if self.args.should_save:
            keep_newest(run, self.config.keep, self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read the weights back from a checkpoint's model folder."""
        stored = Encoder.load(resume_from_checkpoint)
        self.encoder.backbone.load_state_dict(stored.backbone.state_dict())

    def history(self) -> pd.DataFrame:
        """One row a logged step: step, loss, lr, gradient norm, the sampled layer and dim, one column a term."""
        rows = [row for row in self.state.log_history if "loss" in row]
        table = pd.DataFrame(rows).drop(columns="epoch", errors="ignore").rename(columns={"learning_rate": "lr"})
        first = [name for name in ("step", "loss", "lr", "grad_norm", "layer", "dim") if name in table]
        return table[first + sorted(set(table) - set(first), key=_by_number)]


def _by_number(term: str) -> list[str | int]:
    """A key that puts last_8 before last_16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", term)]


class QuietProgress(ProgressCallback):
    """The Trainer's progress bar, with the loss on the bar instead of a line a step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Show the newest loss."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")


def training_arguments(config: TrainConfig, encoder: Encoder) -> TrainingArguments:
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
        report_to="none",
        disable_tqdm=True,  # in favour of QuietProgress
        remove_unused_columns=False,
        accelerator_config={"split_batches": True, "even_batches": False},
        ddp_find_unused_parameters=not config.last_layer,
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
    """Whether to train under bfloat16 autocast: ``auto`` does so where the machine computes it natively."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cpu._is_avx512_bf16_supported() if on_cpu else torch.cuda.is_bf16_supported(including_emulation=False)


def wants_fp16(precision: str, device: str) -> bool:
    """Whether to train under float16 autocast with scaled losses: ``auto`` does so on a GPU without bfloat16, a T4."""
    return precision == "auto" and device == "cuda" and not wants_bf16(precision, on_cpu=False)


def choose_attention(encoder: Encoder, precision: str) -> None:
    """Leave torch's fused attention in bfloat16 on a CPU: its backward pass takes several times as long there."""
    on_cpu = encoder.device.type == "cpu"
    if on_cpu and wants_bf16(precision, on_cpu):
        encoder.backbone.model.set_attn_implementation("eager")


def set_dropout(backbone: Backbone, p: float | None) -> None:
    """Set every dropout of the backbone, those inside attention included, to probability ``p``; None keeps them."""
    if p is None:
        return
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = p


def write_config(folder: Path, config: TrainConfig) -> None:
    """Store the config beside what it makes."""
    with atomic_file(folder / CONFIG_FILE) as path:
        path.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
