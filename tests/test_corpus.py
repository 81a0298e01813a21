"""The bundled corpus keeps its promises: size, variety, separate splits, and words alone do not solve it."""

import re
from importlib.resources import files

import numpy as np
import pytest
from scipy.stats import spearmanr

from twodmse.data import corpus
from twodmse.data.sets import load_pairs, load_texts

ALL = [scene for split in corpus.SPLITS for scene in corpus.scenes(split)]
SENTENCES = [text for scene in ALL for text in scene["texts"].values()]


def test_size():
    assert len(ALL) >= 160
    assert len({scene["domain"] for scene in ALL}) >= 16
    assert len(load_texts("mini-nli")) >= 1500
    assert len(load_pairs("mini-sts")) + len(load_pairs("mini-sts-validation")) >= 600


def test_every_scene_has_its_eight_sentences_scored_in_range():
    for scene in ALL:
        assert tuple(scene["texts"]) == corpus.ROLES
        assert tuple(scene["scores"]) == corpus.ROLES[1:]
        assert all(0 <= score <= 5 for score in scene["scores"].values())


def test_scores_keep_to_the_rules_of_the_data_card():
    card = (files("twodmse") / "resources" / "corpus" / "DATA_CARD.md").read_text(encoding="utf-8")
    ranges = re.findall(r"^\| (\w+) \|.*\| ([\d.]+) to ([\d.]+) \|$", card, re.MULTILINE)
    assert [role for role, *_ in ranges] == list(corpus.ROLES[1:])
    for role, low, high in ranges:
        scores = np.array([scene["scores"][role] for scene in ALL])
        assert float(low) <= scores.min() <= scores.max() <= float(high), role
        np.testing.assert_allclose(scores, 0.2 * np.round(scores / 0.2), atol=1e-9)  # steps of 0.2
    assert f"domain: {corpus.SAME_DOMAIN:g}." in card
    assert f"words with it: {corpus.OTHER_DOMAIN:g}." in card


def test_no_sentence_is_written_twice():
    assert len(set(SENTENCES)) == len(SENTENCES)


def test_lengths_and_forms_vary():
    lengths = np.array([len(text.split()) for text in SENTENCES])
    assert lengths.min() == 4
    assert lengths.max() <= 35
    assert (lengths <= 6).mean() > 0.1
    assert (lengths >= 22).mean() > 0.1
    shares = {
        "questions": np.mean([t.endswith("?") for t in SENTENCES]),
        "numbers": np.mean([bool(re.search(r"\d", t)) for t in SENTENCES]),
        "negations": np.mean([bool(re.search(r"\b(not|no|never|nobody|without|none)\b|n't", t)) for t in SENTENCES]),
        "headlines": np.mean([t[-1].isalnum() for t in SENTENCES]),
        "passives": np.mean([bool(re.search(r"\b(was|were|is|are|been|being) \w+(ed|en)\b", t)) for t in SENTENCES]),
    }
    assert all(share > 0.04 for share in shares.values()), shares


def test_sentences_are_no_templates():
    openings = [" ".join(text.split()[:3]).lower() for scene in ALL for text in [scene["texts"]["anchor"]]]
    assert max(openings.count(opening) for opening in set(openings)) <= 4


def test_no_scene_is_in_two_splits():
    train = {text for scene in corpus.scenes("train") for text in scene["texts"].values()}
    for name in ("mini-sts", "mini-sts-validation"):
        assert not train & {text for column in load_pairs(name).columns for text in column}
    test, validation = (set(sum(load_pairs(n).columns, ())) for n in ("mini-sts", "mini-sts-validation"))
    assert not test & validation
    assert {text for column in load_texts("mini-nli").columns for text in column} == train


def test_paraphrases_share_few_words_and_decoys_many():
    overlap = {
        role: np.mean([corpus.word_overlap(s["texts"]["anchor"], s["texts"][role]) for s in ALL])
        for role in corpus.ROLES[1:]
    }
    assert overlap["rewording"] < overlap["paraphrase"] < 0.25
    assert overlap["decoy"] > 0.4


def test_counting_shared_words_does_badly():
    pairs = load_pairs("mini-sts")
    overlap = [corpus.word_overlap(a, b) for a, b in zip(*pairs.columns, strict=True)]
    assert spearmanr(overlap, pairs.gold).statistic < 0.25


def test_scores_of_derived_pairs_by_hand():
    rows = corpus.mini_sts("test")
    scene = corpus.scenes("test")[0]
    texts, scores = scene["texts"], scene["scores"]
    by_pair = {(row["sentence1"], row["sentence2"]): row["score"] for row in rows}
    assert by_pair[texts["anchor"], texts["topic"]] == scores["topic"]
    expected = round(scores["entailed"] * scores["rewording"] / 5, 2)
    assert by_pair[texts["rewording"], texts["entailed"]] == expected
    per_scene = 12 + 1  # 7 with the anchor, 4 with the rewording, 1 foreign; 3 pairs of anchors a domain of 3 scenes
    assert len(rows) == per_scene * len(corpus.scenes("test"))


def test_overlap_by_hand():
    assert corpus.word_overlap("The cat sat.", "the CAT ran") == pytest.approx(2 / 4)


def test_unknown_split():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        corpus.scenes("dev")
