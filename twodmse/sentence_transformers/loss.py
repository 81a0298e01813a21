"""CellsLoss: any recipe of this package as a loss for SentenceTransformerTrainer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import TrainerCallback

from twodmse.encoder.reading import check_count
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.plan import TEACHER, PlanOf
from twodmse.objectives.recipes import Recipe
from twodmse.sentence_transformers.citations import citation
from twodmse.sentence_transformers.layers import check_model, layer_states, parts_by_length, stack_columns, unwrapped
from twodmse.sentence_transformers.teacher import Teacher
from twodmse.training.arguments import checked_options
from twodmse.training.distributed import gather_rows, whole_gradient, world_size

BASE = (1.0, 1.0, 1.0), 20.0  # weights of the mix's parts, and the scale, of base losses given by name
DISTILLING = {"MSELoss", "EmbedDistillLoss"}  # losses of sentence-transformers towards a teacher's vectors
FAR = 2**24  # float32 holds no odd number beyond


class CellsLoss(nn.Module):
    """Trains cells (layer, dim) of a SentenceTransformer by a recipe, in place of their Matryoshka2dLoss.

    A step is one forward pass over all columns (with ``chunks``, one for each); every layer's pooled states come from
    it, and the recipe's terms from them. Value and gradients are those of this package's own trainer on the same batch
    and step, with the states not normalised: a Normalize module at the model's end is left out while training, as
    cosines do not need it.

    The data are pairs, triplets, or pairs with a label as gold score, in the columns that the trainer takes. With
    several processes the losses see the batch of all of them, as in one process with the whole batch.

    Recipes that sample a layer or dim (2dmse, 2dmse-weighted, st2d, st2d-2024) draw by a step number. With
    ``callbacks=[loss.callback()]`` given to the trainer it is the trainer's own count of optimizer steps: the batches
    accumulated for one step train the same cells, a resumed run goes on with the count of its checkpoint, and the draws
    are those that ``twodmse train`` makes at that step and seed. Without the callback each call draws its number from
    torch's generator, as Matryoshka2dLoss draws at each call from Python's: the trainer stores that generator with each
    checkpoint, so a resumed run draws what the run would have drawn. In a loop of your own set ``loss.step``. Outside
    training (the loss on evaluation data) the number is 0, so that the losses of two evaluations can be compared.

    Args:
        model: a SentenceTransformer of Transformer, Pooling (mean, cls or lasttoken) and at most Normalize.
        recipe: a name, see ``twodmse recipes``, or a plan of your own as `Recipe` takes it.
        base_loss: the loss every trained cell takes: auto (contrastive, or cosent where the data have labels), another
            name of `BaseLoss.named`, a `BaseLoss` or a function called as one, or a loss of sentence-transformers that
            computes from embeddings, such as ``CoSENTLoss(model)``.
        teacher: for recipes that align to one (grid): a SentenceTransformer, ``bundled``, a folder or a hub id; see
            `Teacher`.
        noised: the last column of the data holds `noised_copies`, which the alignments see and the base loss does not.
        chunks: parts the texts of a step pass in, by length, so that less padding is computed; the loss is the same. On
            a CPU and short texts, 4 is several times as fast as 1.
        **options: settings of the recipe as `Recipe` takes them: dims, seed, temperature, align_weight and so on.

    Raises:
        TypeError: if the model is no SentenceTransformer.
        ValueError: if the model cannot be cut, or recipe, options and teacher do not fit it or each other.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        recipe: str | PlanOf = "grid",
        base_loss: str | Callable[..., Tensor] | nn.Module = "auto",
        teacher: SentenceTransformer | str | None = None,
        noised: bool = False,
        chunks: int = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        check_count("chunks", chunks)
        if not isinstance(noised, bool):
            raise ValueError(f"noised is {noised!r}: give True or False")
        if isinstance(base_loss, str):
            BaseLoss.named(base_loss, False, *BASE)
        options, (num_layers, dim) = checked_options(options), check_model(model)
        self.model, self.noised, self.chunks = model, noised, chunks
        self.teacher = None if teacher is None else Teacher(teacher, model)
        if self.teacher is not None:
            options = options | {"teacher_dim": self.teacher.dim}
        self.recipe = Recipe(recipe, num_layers, dim, **options)
        targets = {alignment.target for alignment in self.recipe.plan(0).alignments}
        if self.teacher is not None and TEACHER not in targets:
            raise ValueError(f"recipe {self.recipe.name!r} aligns to no teacher: leave it out")
        if noised and not targets:
            raise ValueError(f"noised copies are for alignments, and recipe {self.recipe.name!r} as set has none")
        if not isinstance(base_loss, str) and not callable(base_loss):
            raise ValueError(f"base_loss is {base_loss!r}: give a name, a loss of sentence-transformers or a function")
        if isinstance(base_loss, nn.Module):
            check_theirs(base_loss)
            self.loss = base_loss  # the model card cites it by this name
        self.base_loss, self.options = base_loss, options
        self.step: int | None = None
        self.last_terms: dict[str, float] = {}  # of the newest batch
        self.sampled: dict[str, int] = {}  # the layer and dim it drew, where the recipe draws

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch: the sum of `terms`.

        Args:
            sentence_features: the tokens of each column, as the trainer's collator makes them.
            labels: (b,) gold scores of pairs; None for pairs and triplets without.

        Returns:
            ().

        Raises:
            ValueError: if the loss is not finite, columns and labels do not fit together, labels are so large that
                float32 tells few of them apart, or the base loss finds nothing to compare in columns without labels.
                (A batch whose labels are all the same has a loss of 0.)
        """
        terms = self.terms(list(sentence_features), labels)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss became {loss.item()}: lower the learning rate, or train in float32")
        self.last_terms = {name: term.item() for name, term in terms.items()}
        return whole_gradient(loss) if self.model.training else loss

    def terms(self, columns: list[dict[str, Tensor]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """The recipe's weighted terms on a batch, each under its own name; arguments as `forward`."""
        own = len(columns) - self.noised
        if own not in (2, 3) or (labels is not None and own != 2):
            scored = ("" if labels is None else " with labels") + (" and one of noised copies" if self.noised else "")
            raise ValueError(f"the data have {own} columns of texts{scored}: give 2 or 3, and labels with 2")
        side = unwrapped(self.model).tokenizer.padding_side
        parts, places = parts_by_length(stack_columns(columns, side), self.chunks, side)
        states = torch.cat([layer_states(self.model, part) for part in parts], dim=1)[:, places]  # (N+1, B, D)
        with torch.autocast(states.device.type, enabled=False):
            gold = None if labels is None else check_apart(labels)
            vectors = None if self.teacher is None else torch.cat([self.teacher(p) for p in parts])[places]  # (B, E)
            if self.model.training:
                states = gather_rows(states, len(columns), dim=1)
                gold = None if gold is None else gather_rows(gold)
                vectors = None if vectors is None else gather_rows(vectors, len(columns))
            plan, base = self.recipe.plan(self._step_number()), self._base(gold is not None)
            if gold is None and isinstance(base, BaseLoss):
                base.check_compares("a batch", own, None)
            if gold is not None and not isinstance(base, BaseLoss):
                gold = gold.float()
            self.sampled = plan.sampled
            return objective(states, plan, base, len(columns), gold, vectors, own)

    def callback(self) -> TrainerCallback:
        """For the trainer's ``callbacks``: draws by the trainer's count of optimizer steps, whatever happens to it."""
        return _StepOfTrainer(self)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        base = self.base_loss if isinstance(self.base_loss, str | nn.Module) else repr(self.base_loss)
        teacher = {} if self.teacher is None else {"teacher": self.teacher.encoder}
        noised = {"noised": True} if self.noised else {}
        return {"recipe": self.recipe.name, "base_loss": base} | teacher | noised | self.options

    @property
    def citation(self) -> str:
        """The BibTeX entry of the recipe's source."""
        return citation(self.recipe.name)

    def _step_number(self) -> int:
        if not self.model.training:
            return 0
        if self.step is not None:
            return self.step
        drawn = torch.randint(2**31, (1,))
        if world_size() > 1:  # the first process draws for all
            drawn = drawn.to(next(self.model.parameters()).device)
            dist.broadcast(drawn, 0)
        return int(drawn)

    def _base(self, scored: bool) -> Callable[..., Tensor]:
        if isinstance(self.base_loss, str):
            return BaseLoss.named(self.base_loss, scored, *BASE)
        loss = self.base_loss
        if not isinstance(loss, nn.Module):
            return loss

        def theirs(columns: Iterable[Tensor], gold: Tensor | None, dims: Iterable[int]) -> Tensor:
            cut = ([column[:, :d] for column in columns] for d in dims)
            return torch.stack([loss.compute_loss_from_embeddings(embeddings, gold) for embeddings in cut])  # (K,)

        return theirs


def check_theirs(loss: nn.Module) -> None:
    """Refuse a loss of sentence-transformers that cannot serve as base loss.

    Raises:
        ValueError: if it does not compute from embeddings, is one of those whose labels are vectors of a teacher, or is
            to gather the batches of all processes, which `CellsLoss` has done before it.
    """
    name = type(loss).__name__
    if not hasattr(loss, "compute_loss_from_embeddings"):
        raise ValueError(f"{name} does not compute from embeddings: use a loss that does, such as CoSENTLoss")
    if not DISTILLING.isdisjoint(kind.__name__ for kind in type(loss).__mro__):
        raise ValueError(
            f"{name} takes a teacher's vectors as labels, and cells take scores or none: name the teacher instead, as "
            "teacher=... of the recipe grid"
        )
    if any(getattr(part, "gather_across_devices", False) for part in loss.modules()):
        raise ValueError(
            f"{name} has gather_across_devices=True, and CellsLoss gathers the batches of all processes itself: leave "
            "it out"
        )


def check_apart(labels: Tensor) -> Tensor:
    """Labels (b,) as they are, refusing those that float32 has rounded together, such as times of a clock.

    Raises:
        ValueError: if they are beyond 2^24 and so near each other that fewer than a thousand could be told apart.
    """
    if labels.dtype != torch.float32:
        return labels
    least, most = labels.min().item(), labels.max().item()
    size = max(abs(least), abs(most))
    if size > FAR and most - least < 1000 * 2**-23 * size:
        raise ValueError(
            f"labels from {least:.0f} to {most:.0f}: the trainer hands them on in float32, which cannot tell such "
            "labels apart; subtract their smallest from all of them first"
        )
    return labels


class _StepOfTrainer(TrainerCallback):
    """Tells a loss the number of the optimizer step that begins."""

    def __init__(self, loss: CellsLoss) -> None:
        self.loss = loss

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The trainer's count, which a resumed run takes from its checkpoint."""
        self.loss.step = state.global_step
