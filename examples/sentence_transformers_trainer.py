"""Train every cell of a model inside sentence-transformers' own trainer, on the bundled corpus.

Usage: python examples/sentence_transformers_trainer.py [--steps 60] [--out runs/cells]

About two minutes on two cores. It prints the grid before and after, Spearman x 100 on the bundled validation pairs.
"""

import argparse

import pandas as pd
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.training_args import BatchSamplers

from twodmse import Encoder
from twodmse.data.corpus import mini_nli
from twodmse.encoder.hub import bundled_folder
from twodmse.sentence_transformers import CellsLoss, GridEvaluator


def main() -> None:
    """Train, evaluating the grid on the way, keep the best model, and use one of its cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", default="runs/cells")
    settings = parser.parse_args()

    folder = str(bundled_folder())  # any SentenceTransformer of Transformer, Pooling and Normalize will do
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 64
    loss = CellsLoss(model, recipe="grid", teacher=folder)
    evaluator = GridEvaluator(["mini-sts-validation"])
    show("before", evaluator.grid(model))

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=settings.out,
            max_steps=settings.steps,
            per_device_train_batch_size=32,
            learning_rate=2e-4,
            warmup_steps=settings.steps // 10,
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
        train_dataset=Dataset.from_list(mini_nli()),
        loss=loss,
        evaluator=evaluator,
        callbacks=[loss.callback()],
    )
    trainer.train()
    model.save(f"{settings.out}/model")
    show("after", evaluator.grid(model))

    vectors = Encoder.load(f"{settings.out}/model").encode(["A cat sleeps.", "A dog barks."], layer=3, dim=64)
    print(f"cell (3, 64) of {settings.out}/model: vectors of shape {vectors.shape}")


def show(when: str, grid: pd.DataFrame) -> None:
    """Print a grid by layer and dim, and its mean."""
    print(f"{when}: mean {grid['spearman'].mean():.2f}")
    print(grid.pivot(index="layer", columns="dim", values="spearman").round(1).to_string())


if __name__ == "__main__":
    main()
