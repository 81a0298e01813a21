"""Presets of TrainConfig, each with its source."""

from typing import Any

from twodmse.objectives.recipes import PAIR_WEIGHT

# Settings by source. What all share: labels are 0 and 1, which the versions' casts to integers leave as they are; and
# the hub's all-nli, whose 557,850 triplets are not those of the sources (SeanLee97/nli_for_simcse, or an unnamed file).
# Not here: gradients accumulated over batches, float16, pooling cls_avg, rows dropped for a text that their batch has
# already (they wait for another batch).
TRIPLETS = 557_850
ANGLE = {"data": "all-nli", "pooling": "cls", "loss": "mix", "save_every": 1000}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # AnglE 74e5ba2 (23 February 2024, published with 2402.14776v1; packages 0.3.4 to 0.3.7), the defaults of its
    # train_cli.py: weights 1, 1, 1, angle scale 1, batches of 32, 20 epochs. Its default backbone is roberta-large; the
    # paper has BERT-base.
    "paper-74e5ba2": ANGLE
    | {
        "recipe": "2dmse",
        "backbone": "google-bert/bert-base-uncased",
        "mix": (1.0, 1.0, 1.0),
        "angle_scale": 1.0,
        "two_passes": True,
        "batch_size": 32,
        "lr": 1e-5,
        "steps": 20 * TRIPLETS // 32,
        "warmup": 100 * 32 / (20 * TRIPLETS),  # 100 steps
        "max_length": 512,
        "seed": 42,
    },
    # AnglE README_2DMSE.md (February 2024): weights 20, 1, 1 on UAE-Large, one epoch. Its frozen teacher, and its KL
    # over the teacher's tokens, are not here, and an update there is of 6 batches.
    "readme-2dmse": ANGLE
    | {
        "recipe": "2dmse",
        "backbone": "WhereIsAI/UAE-Large-V1",
        "mix": (20.0, 1.0, 1.0),
        "two_passes": True,
        "batch_size": 16,
        "lr": 1e-5,
        "steps": TRIPLETS // 16,
        "warmup": 100 * 16 / TRIPLETS,  # 100 steps
        "max_length": 128,
    },
    # AnglE examples/NLI/README.md, section 4.1 (June 2024): in-batch 30, cosine 0, angle 1 on labelled pairs, 10
    # epochs. It trains whole models: recipe full. There, 8 processes of 128 pairs each make an update of 2 batches.
    "angle-nli": ANGLE
    | {
        "recipe": "full",
        "data": "all-nli-labelled",
        "backbone": "google-bert/bert-base-uncased",
        "mix": (30.0, 0.0, 1.0),
        "batch_size": 128,
        "lr": 5e-5,
        "steps": 10 * 2 * TRIPLETS // 128,
        "warmup": 50 * 128 / (10 * 2 * TRIPLETS),  # 50 steps
        "max_length": 128,
        "seed": 42,
    },
    # Best form of `grid` found on STS-B validation: the frozen original as teacher, no dropout, a high learning rate,
    # coordinates in order, and noised copies: without them the layers forget what the data do not speak of.
    "grid": {
        "recipe": "grid",
        "data": "all-nli",
        "teacher": "bundled",
        "steps": 517,
        "lr": 4e-4,
        "dropout": 0.0,
        "order_dims": True,
        "noise": 0.5,
        "pair_weight": PAIR_WEIGHT,
    },
}
# The one that can be defended: the code that was published with the paper's first version, at its defaults. No public
# text tells the weights, the learning rate, the batch or the epochs behind the paper's own tables.
PRESETS["paper"] = PRESETS["paper-74e5ba2"]
