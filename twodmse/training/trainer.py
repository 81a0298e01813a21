"""CellTrainer: transformers' Trainer with a recipe's objective as its loss."""

import dataclasses
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerControl
from transformers.integrations import TensorBoardCallback

from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet
from twodmse.encoder.backbone import Backbone
from twodmse.encoder.encoder import Encoder
from twodmse.files import atomic_file, atomic_folder, check_folder, fresh_folder
from twodmse.objectives.objective import Base, objective
from twodmse.objectives.recipes import Recipe
from twodmse.training.arguments import (
    MEASURE,
    OwnIntervals,
    choose_attention,
    rate_multiples,
    training_arguments,
    usable_precision,
)
from twodmse.training.batches import Collator, DistinctBatches
from twodmse.training.checkpoints import discard, keep_newest, mark_complete, read_unlogged, write_unlogged
from twodmse.training.distributed import gather_rows, take_off_wrappers, whole_gradient
from twodmse.training.gradcache import cached_step, return_large_blocks
from twodmse.training.validation import Evaluator, check_scores

CONFIG_FILE = "train_config.json"
MODEL_FOLDER, BEST_FOLDER = "model", "best"  # of a run
log = logging.getLogger(__name__)


class NotFiniteError(ValueError):
    """The loss became NaN or infinite; the run stopped before it could spoil the weights."""


class CellTrainer(Trainer):
    """Trainer whose loss is a recipe's objective on the pooled states of every layer.

    Args:
        encoder: trained in place.
        texts: the data.
        batches: the order they are taken in.
        recipe: what each step trains.
        base: the base loss of every cell.
        config: every other setting.
        teacher: the frozen encoder whose scores a recipe aligns to, if it does.
        callbacks: more of transformers' callbacks.
        evaluator: scores the encoder every ``config.eval_every`` steps; the best so far is kept in ``best``.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: TextSet,
        batches: DistinctBatches,
        recipe: Recipe,
        base: Base,
        config: TrainConfig,
        teacher: Encoder | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        evaluator: Evaluator | None = None,
    ) -> None:
        self.teacher, self.evaluator = teacher, evaluator
        self.encoder, self.batches, self.recipe, self.base, self.config = encoder, batches, recipe, base, config
        self.last_terms: dict[str, float] = {}
        self.measured_anew = False  # whether the best score so far is one of other cells, pairs or another metric
        self.unlogged: tuple[float, int] | None = None  # of the checkpoint that is gone on from
        if config.cache_chunk:
            return_large_blocks()
        precision = config.precision
        for model in (encoder, teacher):
            precision = precision if model is None else usable_precision(model, precision)
        choose_attention(encoder, precision)
        super().__init__(
            model=encoder.backbone,
            args=training_arguments(dataclasses.replace(config, precision=precision), encoder, callbacks),
            train_dataset=texts,
            eval_dataset=[] if evaluator else None,  # the evaluator has its own
            data_collator=Collator(encoder, config.chunks, config.cache_chunk, config.noise, config.seed),
            callbacks=[QuietProgress(), OwnIntervals(lambda: self.measured_anew, self.count_unlogged), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and config.logging_dir is not None:
                callback.logging_dir = config.logging_dir

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
                teacher = gather_rows(self.teacher_vectors(self.teacher, inputs["texts"], states), columns)  # (B, E)
            terms = objective(states, plan, self.base, columns, gold, teacher, inputs["own_columns"])
            loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise NotFiniteError(
                f"the loss became {loss.item()} at step {self.state.global_step + 1}: lower lr (now {self.config.lr}) "
                f"or use --precision fp32; checkpoints up to here are in {self.config.out}"
            )
        self.last_terms = {name: term.item() for name, term in terms.items()} | plan.sampled
        return whole_gradient(loss)

    def teacher_vectors(self, teacher: Encoder, texts: list[str], like: Tensor) -> Tensor:
        """A frozen teacher's vectors (B, E) of texts stacked column after column."""
        with self.accelerator.autocast():  # the Trainer leaves autocast to accelerate, which wraps the model alone
            vectors = teacher.encode(texts, progress=False)
        return torch.from_numpy(vectors).to(like)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """What the evaluator says of the encoder as it is now: each score under ``eval_`` and its name.

        Raises:
            ValueError: as `check_scores`.
        """
        wrappers = take_off_wrappers(self.encoder.backbone)  # it is scored as it is saved, without autocast
        try:
            scores = check_scores(self.evaluator(self.encoder), self.config.eval_metric, self.state.global_step)
        finally:
            self.encoder.backbone.__dict__.update(wrappers)
        metrics = {f"{metric_key_prefix}_{name}": float(score) for name, score in scores.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Keep the model in ``best`` where its score is the highest so far."""
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.should_save:
            write_model(self.encoder, Path(self.args.output_dir) / BEST_FOLDER, self.config)
        return is_best

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms of the step just taken, each under its own name."""
        if "loss" in logs:
            logs = logs | self.last_terms
        super().log(logs, start_time)

    def count_unlogged(self) -> None:
        """Go on with the mean loss where a checkpoint lies between two rows of the history."""
        if self.unlogged is not None:
            loss, self._globalstep_last_logged = self.unlogged
            self._tr_loss += loss

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write each checkpoint's weights as a whole model folder, usable by `Encoder.load`."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.encoder.write(folder)
            write_config(folder, self.config)
            write_unlogged(folder, self._tr_loss.item(), self._globalstep_last_logged)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save as the Trainer does, say that nothing is missing, and only then let go of the oldest.

        Raises:
            OSError: if the checkpoint cannot be written; what was written of it is removed, the ones before it stay.
        """
        run = Path(self.args.output_dir)
        folder = run / f"checkpoint-{self.state.global_step}"
        others = discard(folder) if self.args.should_save else []  # the remains of a run that was killed while saving
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(folder, others)
        except Exception as error:  # a full disk has another kind in each writer: safetensors', torch's, Python's
            discard(folder)
            if isinstance(error, (TypeError, RecursionError)):  # JSON cannot hold a callback's state: room is no help
                raise
            raise OSError(
                f"{folder} could not be written ({error}): make room, then go on with --resume; "
                "the checkpoints before it are kept"
            ) from error
        if self.args.should_save:
            keep_newest(run, self.config.keep, self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read the weights back from a checkpoint's model folder."""
        self.encoder.backbone.load_state_dict(Encoder.load(resume_from_checkpoint).backbone.state_dict())
        before = TrainConfig.read(Path(resume_from_checkpoint) / CONFIG_FILE)
        other = [name for name in MEASURE if getattr(before, name) != getattr(self.config, name)]
        self.measured_anew, self.unlogged = bool(other), read_unlogged(Path(resume_from_checkpoint))
        if other:
            log.warning("%s changed: from here on the best model is told anew, and scores are others", ", ".join(other))

    def history(self) -> pd.DataFrame:
        """One row a logged step: step, loss, lr, gradient norm, the sampled layer and dim, one column a term."""
        rows = [row for row in self.state.log_history if "loss" in row]
        table = pd.DataFrame(rows).drop(columns="epoch", errors="ignore").rename(columns={"learning_rate": "lr"})
        first = [name for name in ("step", "loss", "lr", "grad_norm", "layer", "dim") if name in table]
        return table[first + sorted(set(table) - set(first), key=_by_number)]

    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation: step, and a column a score."""
        rows = [row for row in self.state.log_history if any(name.startswith("eval_") for name in row)]
        table = pd.DataFrame(rows, columns=None if rows else ["step"]).drop(columns="epoch", errors="ignore")
        table = table.rename(columns=lambda name: name.removeprefix("eval_"))
        return table[["step", *sorted(table.columns.drop("step"), key=_by_number)]]  # JSON has sorted them as texts


def _by_number(term: str) -> list[str | int]:
    """A key that puts last_8 before last_16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", term)]


class QuietProgress(ProgressCallback):
    """The Trainer's progress bar, with the loss on the bar instead of a line a step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Show the newest loss."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")


def write_model(encoder: Encoder, folder: Path, config: TrainConfig) -> None:
    """Write a model and the config that made it, in place of an earlier one; one with a user's files is set aside."""
    try:
        check_folder(folder, overwrite=True)
    except FileExistsError:
        aside = fresh_folder(folder)
        os.replace(folder, aside)
        log.warning("%s held what twodmse did not write there: it is kept as %s, and written anew", folder, aside)
    with atomic_folder(folder, overwrite=True) as work:
        encoder.write(work)
        write_config(work, config)


def write_config(folder: Path, config: TrainConfig) -> None:
    """Store the config beside what it makes."""
    with atomic_file(folder / CONFIG_FILE) as path:
        path.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
