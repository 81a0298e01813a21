"""Train every cell of a model inside sentence-transformers' own trainer, with the settings of the preset `grid`.

Usage: python examples/sentence_transformers_trainer.py [--data mini-nli] [--steps 60] [--out runs/cells] ...

It prints the grid before and after, Spearman x 100, and takes minutes on the bundled corpus. The run of the README:
--data all-nli --batch-size 64 --steps 517 --validation stsb-validation --tasks paper
"""

import argparse

import pandas as pd
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.training_args import BatchSamplers

from twodmse import Encoder, load_texts, sts_grid
from twodmse.sentence_transformers import CellsLoss, GridEvaluator, noised_copies
from twodmse.training.ordering import best_order, reorder


def main() -> None:
    """Train, evaluating the grid on the way, keep the best model, and use one of its cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mini-nli")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--validation", default="mini-sts-validation")
    parser.add_argument("--tasks", default="mini-sts")
    parser.add_argument("--out", default="runs/cells")
    settings = parser.parse_args()

    texts = load_texts(settings.data)
    encoder = Encoder.load("bundled", device="cpu")
    reorder(encoder.backbone, best_order(encoder, texts))  # a cut keeps the first coordinates: the best for it
    folder = str(encoder.save(f"{settings.out}/start"))

    # Any SentenceTransformer of Transformer, Pooling and Normalize will do.
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SentenceTransformer(folder, device="cpu", config_kwargs=no_dropout)
    model.max_seq_length = 128
    columns = dict(zip(("anchor", "positive", "negative"), texts.columns, strict=True))
    columns["noised"] = noised_copies(texts.columns[-1], model, 0.5)
    loss = CellsLoss(model, recipe="grid", teacher=folder, noised=True, chunks=4, pair_weight=2.0)
    evaluator = GridEvaluator([settings.validation])

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=settings.out,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=4e-4,
            warmup_steps=round(settings.steps / 10),
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            eval_strategy="steps",
            eval_steps=max(settings.steps // 3, 1),
            save_steps=max(settings.steps // 3, 1),
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_grid_mean",
            greater_is_better=True,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict({name: list(column) for name, column in columns.items()}),
        loss=loss,
        evaluator=evaluator,
        callbacks=[loss.callback()],
    )
    trainer.train()
    model.save(f"{settings.out}/model")

    tasks, dims = settings.tasks.split(","), (16, 32, 64, 128, 256, 384)
    show("before", sts_grid(encoder, tasks, dims, resamples=0))
    trained = Encoder.load(f"{settings.out}/model", device="cpu")
    show("after", sts_grid(trained, tasks, dims, resamples=0))
    vectors = trained.encode(["A cat sleeps.", "A dog barks."], layer=3, dim=64)
    print(f"cell (3, 64) of {settings.out}/model: vectors of shape {vectors.shape}")


def show(when: str, grid: pd.DataFrame) -> None:
    """Print a grid by layer and dim, the mean over the tasks, and its means below and at the last layer."""
    cells = grid.pivot_table(index="layer", columns="dim", values="spearman")
    print(f"{when}: mean of the layers below the last {cells.iloc[:-1].to_numpy().mean():.2f}, of the last ", end="")
    print(f"{cells.iloc[-1].mean():.2f}, full cell {cells.iloc[-1, -1]:.2f}")
    print(cells.round(1).to_string())


if __name__ == "__main__":
    main()
