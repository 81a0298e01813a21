"""The bundled corpus: everyday scenes written for this project, and the two data sets made of them.

A scene is eight sentences: an anchor and seven others, each with a score from 0 (unrelated) to 5 (same meaning) given
by its writer against the anchor. Scenes 01-06 of a domain are for training, 07 for validation, 08-10 for the test, so
that no scene is in two parts. ``resources/corpus/DATA_CARD.md`` says how the scores are given.
"""

import json
import re
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Any

ROLES = ("anchor", "paraphrase", "rewording", "entailed", "detail", "contradiction", "topic", "decoy")
POSITIVES = ("paraphrase", "rewording", "entailed")
NEGATIVES = ("detail", "contradiction", "topic", "decoy")
SPLITS = {"train": range(1, 7), "validation": range(7, 8), "test": range(8, 11)}
SAME_DOMAIN, OTHER_DOMAIN = 0.4, 0.0  # scores of sentences from two scenes


def corpus_files() -> list[str]:
    """The names of the corpus files, one a domain, sorted."""
    folder = files("twodmse") / "resources" / "corpus"
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".jsonl"))


@cache
def scenes(split: str) -> tuple[dict[str, Any], ...]:
    """The scenes of a split: ``scene`` (its id), ``domain``, ``texts`` and ``scores``, both by role.

    Raises:
        ValueError: for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    found = []
    for name in corpus_files():
        for row in read_jsonl(f"corpus/{name}"):
            domain, _, number = row["scene"].rpartition("-")
            if int(number) in SPLITS[split]:
                texts = {s["role"]: s["text"] for s in row["sentences"]}
                scores = {s["role"]: s["score"] for s in row["sentences"] if "score" in s}
                found.append({"scene": row["scene"], "domain": domain, "texts": texts, "scores": scores})
    return tuple(found)


def read_jsonl(resource: str) -> list[dict[str, Any]]:
    """The rows of a JSON lines file bundled under ``resources``."""
    text = (files("twodmse") / "resources" / resource).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def mini_nli() -> list[dict[str, str]]:
    """Triplets from the training scenes: every positive of a scene against every negative of it.

    The anchor with each of its positives, and the paraphrase with the rewording, meet each of the four negatives.
    """
    pairs = [*(("anchor", positive) for positive in POSITIVES), ("paraphrase", "rewording")]
    return [
        {"anchor": scene["texts"][first], "positive": scene["texts"][second], "negative": scene["texts"][negative]}
        for scene in scenes("train")
        for first, second in pairs
        for negative in NEGATIVES
    ]


def mini_sts(split: str) -> list[dict[str, Any]]:
    """Scored pairs of a split's scenes.

    From each scene: the anchor with each other sentence, at the writer's score; the rewording with the paraphrase,
    entailed, detail and contradiction sentences, at that sentence's score scaled by the rewording's own (for the
    paraphrase: by both). Between scenes: each anchor with the anchor of another scene of its domain, and with the
    sentence of another domain that shares most of its words.
    """
    rows = []
    found = scenes(split)
    for scene in found:
        texts, scores = scene["texts"], scene["scores"]
        rows += [_pair(texts["anchor"], texts[role], scores[role]) for role in ROLES[1:]]
        for role in ("paraphrase", "entailed", "detail", "contradiction"):
            rows.append(_pair(texts["rewording"], texts[role], scores[role] * scores["rewording"] / 5))
        rows.append(_pair(texts["anchor"], _most_alike(scene, found), OTHER_DOMAIN))
    for a, b in combinations(found, 2):  # the scenes of a domain stand together
        if a["domain"] == b["domain"]:
            rows.append(_pair(a["texts"]["anchor"], b["texts"]["anchor"], SAME_DOMAIN))
    return rows


def word_overlap(a: str, b: str) -> float:
    """Jaccard overlap of the word sets of two sentences, 0..1: the baseline a model must beat."""
    x, y = words(a), words(b)
    return len(x & y) / len(x | y)


def words(text: str) -> set[str]:
    """The lower-cased words and numbers of a sentence."""
    return set(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower()))


def _pair(first: str, second: str, score: float) -> dict[str, Any]:
    return {"sentence1": first, "sentence2": second, "score": round(score, 2)}


def _most_alike(scene: dict[str, Any], others: tuple[dict[str, Any], ...]) -> str:
    anchor = scene["texts"]["anchor"]
    foreign = [o["texts"][role] for o in others if o["domain"] != scene["domain"] for role in ("anchor", "decoy")]
    return max(foreign, key=lambda text: (word_overlap(anchor, text), text))
