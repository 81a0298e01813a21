import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import WORDS, sentences, tiny_encoder
from datasets import Dataset, DatasetDict

from twodmse.data.sets import TextSet, as_texts, distinct, load_pairs, load_texts
from twodmse.training.batches import Collator, DistinctBatches, noised, vocabulary_words

TRIPLETS = pd.DataFrame({"anchor": ["a man", "a dog"], "positive": ["the man", "the dog"], "negative": ["red", "blue"]})
SCORED = pd.DataFrame({"sentence1": ["a man", "a dog"], "sentence2": ["the man", "the cat"], "score": [5.0, 1.5]})


def write(table: pd.DataFrame, path) -> str:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_files_of_every_kind(tmp_path, suffix):
    raw = ("  Two  spaces , “quotes”, and a\ttab  ", '"ÉTÉ", n\'est pas été?')  # texts stay as they were written
    triplets = load_texts(write(TRIPLETS.assign(anchor=raw), tmp_path / f"t{suffix}"))
    assert triplets.columns == (raw, ("the man", "the dog"), ("red", "blue"))
    assert triplets.gold is None
    scored = load_pairs(write(SCORED, tmp_path / f"s{suffix}"))
    np.testing.assert_array_equal(scored.gold, [5.0, 1.5])
    assert scored[1] == {"texts": ["a dog", "the cat"], "gold": 1.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="score"), r"columns sentence1, sentence2: it needs"),
        (lambda t: t.assign(score=[1.0, None]), r"row 2, column score is '': it must be a finite number"),
        (lambda t: t.assign(score=["high", "low"]), r"row 1, column score is 'high'"),
        (lambda t: t.assign(sentence2=["x", " "]), r"row 2, column sentence2 is ' '"),
        (lambda t: t.assign(sentence1=["\u00e9", ""]), r"row 2, column sentence1 is '': it must be a text"),
        (
            lambda t: t.assign(sentence1=["\u00e9", "\u200b"]),
            r"row 2, column sentence1 is '\\u200b': it must be a text",
        ),
        (lambda t: t.iloc[:0], r"no rows"),
    ],
)
def test_bad_rows_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_texts(write(change(SCORED), tmp_path / "bad.csv"))


@pytest.mark.parametrize("names", [["negative", "negative_2"], ["negative_1", "negative_2"], ["Negative"]])
def test_negatives_beyond_the_one_that_is_read_are_not_dropped_without_a_word(names, tmp_path):
    table = TRIPLETS[["anchor", "positive"]].assign(**dict.fromkeys(names, "red"))
    with pytest.raises(
        ValueError, match=f"has the column {names[-1] if 'negative' in names else names[0]}: one negative"
    ):
        load_texts(write(table, tmp_path / "t.csv"))


def test_unknown_sets_and_sets_without_scores(tmp_path):
    with pytest.raises(ValueError, match=r"unknown data set 'nli': choose one of mini-nli"):
        load_texts("nli")
    with pytest.raises(ValueError, match="has no scores"):
        load_pairs(write(TRIPLETS, tmp_path / "t.csv"))
    (tmp_path / "t.csv").rename(tmp_path / "t.csv.gz")
    with pytest.raises(ValueError, match=r"t\.csv\.gz is a file of another kind: unpack or save it as one"):
        load_pairs(tmp_path / "t.csv.gz")
    (tmp_path / "s.csv").write_text("sentence1, sentence2, score\na, b, 1\n")
    with pytest.raises(ValueError, match="has the columns sentence1, ' sentence2', ' score': it needs"):
        load_pairs(tmp_path / "s.csv")


def test_batches_hold_each_text_once_and_follow_the_seed():
    column = sentences(20)
    texts = TextSet("t", (tuple(column) * 3, tuple(column[1:] + column[:1]) * 3, tuple(column[2:] + column[:2]) * 3))
    batches = list(DistinctBatches(texts, 4, 40, seed=1))
    assert len(batches) == 40
    for batch in batches:
        inside = [text for i in batch for text in texts[i]["texts"]]
        assert len(set(inside)) == len(inside) == 12
    assert batches == list(DistinctBatches(texts, 4, 40, seed=1))
    assert batches != list(DistinctBatches(texts, 4, 40, seed=2))
    used = set(itertools.chain.from_iterable(batches))
    assert len(used) > 50  # of 60: a later pass shuffles anew and takes what an earlier one left


def test_rows_that_wait_come_first_and_in_their_order():
    """Taken one by one: a row joins the batch unless it repeats a text of it, else it heads the next one."""
    anchors = [f"a{i % 3}" for i in range(24)]
    texts = TextSet("t", (tuple(anchors), tuple(f"b{i}" for i in range(24))))
    waiting = np.random.default_rng((1, 0)).permutation(24).tolist()
    expected = []
    while len({anchors[i] for i in waiting}) == 3:
        batch = sorted({anchors[i]: i for i in reversed(waiting)}.values(), key=waiting.index)  # the first of each
        expected.append(batch)
        waiting = [i for i in waiting if i not in batch]
    assert len(expected) > 3
    assert list(DistinctBatches(texts, 3, len(expected), seed=1)) == expected


def test_a_pass_uses_every_row_once_where_texts_differ(triplets):
    batches = list(DistinctBatches(triplets, 8, 8, seed=0))
    assert sorted(itertools.chain.from_iterable(batches[:4])) == list(range(32))
    assert sorted(itertools.chain.from_iterable(batches[4:])) == list(range(32))
    assert batches[:4] != batches[4:]


def test_too_few_rows_are_refused(triplets):
    with pytest.raises(ValueError, match="32 rows, fewer than the batch size 64"):
        DistinctBatches(triplets, 64, 1, 0)
    same = TextSet("same", (("a",) * 8, ("b",) * 8))
    with pytest.raises(ValueError, match="repeats its texts"):
        DistinctBatches(same, 4, 1, 0)


@pytest.mark.parametrize("chunks", [1, 3, 4])
def test_collated_states_come_back_column_after_column(triplets, chunks):
    encoder = tiny_encoder()
    rows = [triplets[i] for i in range(5)]
    batch = Collator(encoder, chunks)(rows)
    assert len(batch["chunks"]) == chunks
    lengths = [chunk["attention_mask"].sum(1).tolist() for chunk in batch["chunks"]]
    assert lengths == [sorted(part, reverse=True) for part in lengths]
    with torch.inference_mode():
        states = encoder.backbone(batch["chunks"])[:, batch["order"]]
    stacked = [text for column in triplets.columns for text in column[:5]]
    np.testing.assert_allclose(states.numpy(), encoder.states(stacked), atol=1e-5)


def test_collated_scores(pairs):
    batch = Collator(tiny_encoder(), 2)([pairs[0], pairs[39]])
    assert (batch["columns"], batch["gold"].tolist()) == (2, [0.0, 5.0])


def test_noised_copies_are_a_column_of_their_own_the_same_for_the_same_seed(triplets):
    encoder, rows = tiny_encoder(), [triplets[i] for i in range(32)]
    batch, same = (Collator(encoder, 2, noise=0.5, seed=3)(rows) for _ in range(2))
    plain, other = Collator(encoder, 2)(rows), Collator(encoder, 2, noise=0.5, seed=4)(rows)
    assert (batch["columns"], batch["own_columns"]) == (4, 3)
    assert (plain["columns"], plain["own_columns"]) == (3, 3)
    assert batch["texts"] == same["texts"] != other["texts"]
    assert batch["texts"][:96] == plain["texts"]
    negatives, copies = ([text.split() for text in b["texts"][start:]] for b, start in ((plain, 64), (batch, 96)))
    assert [len(copy) for copy in copies] == [min(len(text), 8) for text in negatives]
    changed = [a != b for old, new in zip(negatives, copies, strict=True) for a, b in zip(old, new, strict=False)]
    assert 0.35 < np.mean(changed) < 0.6
    expected = encoder.tokenise(batch["texts"])["input_ids"]
    chunks = [ids for chunk in batch["chunks"] for ids in chunk["input_ids"].tolist()]
    assert [[i for i in chunks[place] if i] for place in batch["order"]] == expected  # 0 is padding


def test_words_of_the_vocabulary_are_whole_words():
    assert vocabulary_words(tiny_encoder()) == sorted(word for word in WORDS if len(word) > 2)
    assert noised(["a b c"], 1.0, ["new"], seed=0) == ["new new new"]


def test_the_test_split_of_sick_is_refused_where_it_cannot_be_told(monkeypatch):
    def served(first, rows):
        pairs = Dataset.from_list([{"sentence1": first, "sentence2": "b", "score": 1.0}] * rows)
        answers = {("mteb/sickr-sts", "test[5000:]"): pairs}  # what follows the parts for training and trial
        monkeypatch.setattr("datasets.load_dataset", lambda repo, _, split: answers[repo, split])

    first = "There is no boy playing outdoors and there is no man smiling"
    served(first, 4927)
    assert len(load_pairs("sickr-test")) == 4927
    for wrong in ((first, 4926), ("Another row", 4927)):
        served(*wrong)
        with pytest.raises(ValueError, match=r"sickr-test cannot be told from .* use sickr"):
            load_pairs("sickr-test")


@pytest.mark.parametrize(
    "kind", [pd.DataFrame, Dataset.from_pandas, lambda t: t.to_dict("list"), lambda t: t.to_dict("records")]
)
def test_rows_in_memory_are_read_like_those_of_a_file(kind, tmp_path):
    from_file = load_pairs(write(SCORED, tmp_path / "s.csv"))
    here = as_texts(kind(SCORED), "mine")
    assert (here.name, here.columns, here.gold.tolist()) == ("mine", from_file.columns, from_file.gold.tolist())
    renamed = SCORED.rename(columns={"sentence1": "a", "score": "b"}).assign(c=1)
    again = as_texts(kind(renamed), "mine", {"a": "sentence1", "b": "score"})
    assert again.columns == here.columns
    assert as_texts(here) is here


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ("mini-nli", None, "mine is a str: give a TextSet, one split of a Dataset, a DataFrame, or"),
        (DatasetDict(train=Dataset.from_pandas(SCORED)), None, "mine is a DatasetDict"),
        ([("a man", "a dog")], None, "mine is a list"),
        (
            [{"anchor": "a man", "positive": "a dog"}, {"anchor": "a cat"}],
            None,
            "mine, row 2 has not the names of row 1",
        ),
        ({"anchor": "man", "positive": "dog"}, None, "mine, column anchor is one text, 'man': give a list of texts"),
        (SCORED.to_dict("list") | {"score": 3}, None, "mine, column score is one value, 3: give one a row"),
        (pd.concat([SCORED, SCORED], axis=1), None, "mine has two columns named 'sentence1': rename one of them"),
        (SCORED.assign(score=None), None, "mine, row 1, column score is None"),
        (SCORED, {"anchor": "sentence1"}, "mine has the columns sentence1, sentence2, score: anchor=sentence1 names"),
        (SCORED.assign(own=1), {"own": "score"}, "mine: score and own would both be the column score: drop one"),
        (SCORED.assign(a="x", b="y"), {"a": "negative", "b": "negative"}, "a and b would both"),
        (SCORED, "sentence1=first", "columns is 'sentence1=first': give a dictionary"),
        (SCORED, {"sentence1": "first"}, "one of anchor, positive, negative, sentence1, sentence2, score"),
    ],
)
def test_rows_in_memory_that_cannot_be_used_are_refused(rows, columns, message):
    with pytest.raises(ValueError, match=message):
        as_texts(rows, "mine", columns)


def test_columns_of_a_file_can_be_named(tmp_path):
    path = write(TRIPLETS.rename(columns={"anchor": "premise"}), tmp_path / "t.tsv")
    assert load_texts(path, columns={"premise": "anchor"}).columns[0] == ("a man", "a dog")
    swapped = as_texts(SCORED, columns={"sentence1": "sentence2", "sentence2": "sentence1"})
    assert swapped.columns[0] == tuple(SCORED["sentence2"])
    with pytest.raises(ValueError, match="mini-nli has no configuration or split to choose"):
        load_texts("mini-nli", split="train")
    with pytest.raises(ValueError, match="the columns of mini-nli have their names already"):
        load_texts("mini-nli", columns={"anchor": "positive"})


def test_distinct_texts_and_the_rows_that_hold_them():
    texts, first, second = distinct(TextSet("twice", (("b", "a", "b"), ("c", "b", "b"))))
    assert texts == ["b", "a", "c"]
    assert (first, second) == ([0, 1, 0], [2, 0, 0])


def test_triplets_as_labelled_pairs(triplets, monkeypatch):
    anchors, positives, negatives = triplets.columns
    served = Dataset.from_dict({"anchor": anchors, "positive": positives, "negative": negatives})
    answers = {("sentence-transformers/all-nli", "triplet", "train"): served}
    monkeypatch.setattr("datasets.load_dataset", lambda repo, name, split: answers[repo, name, split])
    pairs = load_pairs("all-nli-labelled")
    assert pairs.columns == (anchors * 2, positives + negatives)
    assert pairs.gold.tolist() == [1.0] * 32 + [0.0] * 32


@pytest.mark.parametrize("columns", [1, 4])
def test_a_set_has_two_columns_or_three(columns):
    with pytest.raises(ValueError, match=f"own has {columns} columns of texts: give 2, or 3 without scores"):
        TextSet("own", (("a", "b"),) * columns)
    with pytest.raises(ValueError, match="own has 3 columns of texts: give 2, or 3 without scores"):
        TextSet("own", (("a", "b"),) * 3, np.array([1.0, 2.0]))


def test_columns_that_come_later_in_json_lines_are_not_dropped(tmp_path):
    path = tmp_path / "own.jsonl"
    first, second = {"anchor": "a man", "positive": "a woman"}, {"anchor": "a dog", "positive": "a cat"}
    path.write_text("\n".join(map(json.dumps, [first, second | {"negative": "a house"}])))
    with pytest.raises(ValueError, match="row 1, column negative is None: it must be a text with a character to see"):
        load_texts(path)
    path.write_text("\n".join(map(json.dumps, [first, second | {"source": "mine"}])))
    assert load_texts(path).columns == (("a man", "a dog"), ("a woman", "a cat"))


def test_negatives_that_are_the_anchor_or_the_positive_are_counted_once(triplets, caplog):
    anchors, positives, negatives = map(list, triplets.columns)
    negatives[4], negatives[9] = positives[4], anchors[9]
    negatives[10] = anchors[11]  # of another row: no batch has both
    texts = TextSet("mine", (tuple(anchors), tuple(positives), tuple(negatives)))
    list(DistinctBatches(texts, 4, 20, 0))
    assert [record.getMessage() for record in caplog.records] == [
        "mine: in 2 of 32 rows the negative is the anchor or the positive itself, first in row 5, and such a row "
        "trains against what it is to learn: take them out"
    ]
    caplog.clear()
    DistinctBatches(triplets, 4, 20, 0)
    DistinctBatches(TextSet("two", (tuple(anchors), tuple(anchors))), 4, 20, 0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no answer"), r"ConnectionError: no answer\): check the network, or use the bundled"),
        (KeyError("x"), r"KeyError: 'x'\): see that it is there and that you may read it, or use the bundled"),
    ],
)
def test_the_network_is_named_where_it_is_at_fault_alone(error, message, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("datasets.load_dataset", fails)
    with pytest.raises(FileNotFoundError, match=message):
        load_texts("stsb")
