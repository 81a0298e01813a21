"""Files of data: what is written is what is read, or the file and the line are named."""

import json

import pandas as pd
import pytest
from conftest import tiny_encoder

from twodmse import Encoder, TrainConfig
from twodmse.data.sets import TextSet, load_pairs, load_texts
from twodmse.evaluation.grid import sts_grid

HEAD = "sentence1,sentence2,score\n"


def saved(path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_texts_stay_as_they_are_written(tmp_path):
    words = ["NULL", "n/a", "1e5", "0012", "false", " two  spaces ", "2020-01-01", "-"]
    rows = "".join(f"{word},{word[::-1]},{i}\n" for i, word in enumerate(words))
    pairs = load_pairs(saved(tmp_path / "p.csv", HEAD + rows))
    assert pairs.columns == (tuple(words), tuple(word[::-1] for word in words))
    assert pairs.gold.tolist() == list(range(8))


def test_quotes_line_ends_marks_and_long_fields_are_read(tmp_path):
    long = "word " * 40_000
    content = f'\ufeffsentence1,sentence2,score\r\n"a ""b"", c","two\r\nlines, here",1.5\r\n\r\n5" disk,{long},2\r\n'
    pairs = load_pairs(saved(tmp_path / "p.csv", content))
    assert pairs.columns == (('a "b", c', '5" disk'), ("two\r\nlines, here", long))


def test_a_name_is_no_pattern(tmp_path):
    saved(tmp_path / "a1.csv", HEAD + "wrong,file,1\nin,here,2\n")
    assert load_pairs(saved(tmp_path / "a[1].csv", HEAD + "right,file,1\nin,here,2\n")).columns[0][0] == "right"
    with pytest.raises(FileNotFoundError, match=r"no file .*a\*\.csv"):
        load_texts(tmp_path / "a*.csv")


def test_a_file_is_read_anew_each_time(tmp_path):
    path = tmp_path / "p.csv"
    assert load_pairs(saved(path, HEAD + "a,b,1\n")).columns[0] == ("a",)
    assert load_pairs(saved(path, HEAD + "z,b,1\n")).columns[0] == ("z",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "sentence1;sentence2;score\na;b;0,5\n", r"p\.csv, line 1: its columns are not delimited by ','"),
        ("p.tsv", HEAD + "a,b,1\n", r"p\.tsv, line 1: its columns are not delimited by '\\t'"),
        ("p.csv", HEAD + "a,b,1\nc,d,2,x\n", r"p\.csv, line 3: it has 4 fields, the header has 3"),
        ("p.csv", HEAD + '"a\nb",c,1\nc,2\n', r"p\.csv, line 4: it has 2 fields"),
        ("p.csv", HEAD + 'a,b,1\n"c" d,e,2\n', r"p\.csv, line 3: a stray quotation mark"),
        ("p.csv", HEAD + 'a,b,1\n"c,d,2\ne,f,3\n', r"p\.csv, line 3: a stray quotation mark .*end of data"),
        ("p.csv", HEAD + '"a,b,1\nc,d,2\ne",f,3\n', r"p\.csv, line 2: a stray .*lines 2 to 4 were read as one row: if"),
        ("p.tsv", "anchor\tpositive\n\"a\tb\nc\td\ne\"\tf\n", r"p\.tsv, line 2: a stray quotation mark"),
        ("p.csv", b"sentence1,sentence2,score\na,b,1\ncaf\xe9,d,2\n", r"p\.csv, line 3: not UTF-8 \(byte 0xe9\)"),
        ("p.csv", "sentence1,sentence2,score,score\na,b,1,2\n", "two columns named 'score'"),
        ("p.csv", "anchor,positive,\na,b,c\n", "column 3 has no name"),
        ("p.csv", HEAD, "no rows"),
        ("p.csv", "", "no rows"),
        ("p.csv", HEAD + "a,b,1_0\n", "score is '1_0'"),
        ("p.csv", HEAD + f"a,b,{'9' * 400}\n", "it must be a finite number"),
        ("p.csv", "anchor,positive,Score\na,b,0\n", "every pair of anchor and positive is taken as a paraphrase"),
        ("p.csv", "anchor,positive,negative,score\na,b,c,0\n", "positive, negative and score: every pair of"),
        ("p.csv", "anchor,positive,label\na,b,0\n", "drop label"),
        ("p.jsonl", b'{"anchor": "a", "positive": "b"}\n{"anchor": "\xff"}\n', r"p\.jsonl, line 2: not UTF-8"),
        ("p.jsonl", '{"anchor": "a", "positive": "b"}\n\n{"anchor": "a"}\n', "line 3: it lacks 'positive'"),
        ("p.jsonl", '{"anchor": "a", "anchor": "b"}\n', "line 1: the name 'anchor' occurs twice"),
        ("p.jsonl", '{"anchor": "a"\n', r"line 1: no valid JSON \(.* at column \d+\)"),
        ("p.jsonl", "[1]\n", "line 1: it must be an object"),
        ("p.jsonl", "[" * 100_000, "line 1: its lists or objects are nested too deep"),
        ("p.jsonl", '{"anchor": "\\ud800", "positive": "b"}\n', "row 1, column anchor"),
        ("p.jsonl", '{"anchor": 7, "positive": "b"}\n', "row 1, column anchor is 7: it must be a text"),
        ("p.jsonl", "\n", "no rows"),
        ("p.json", '[{"anchor": "a", "positive": "b"}, 3]', "item 2: it must be an object"),
        ("p.parquet", b"junk", "is no parquet file that can be read"),
        ("p.parquet", b"", "is no parquet file that can be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_file_and_line(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_texts(saved(tmp_path / name, content))
    assert str(tmp_path / name) in str(caught.value)


def test_json_in_both_its_forms_and_parquet_without_rows(tmp_path):
    rows = [{"anchor": "a\u2028b", "positive": "c", "other": [1]}, {"positive": "e", "anchor": "d", "other": None}]
    for content in (json.dumps(rows, ensure_ascii=False), "".join(json.dumps(row) + "\n" for row in rows)):
        assert load_texts(saved(tmp_path / "p.json", content)).columns == (("a\u2028b", "d"), ("c", "e"))
    pd.DataFrame({"anchor": [], "positive": []}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(ValueError, match="has no rows"):
        load_texts(tmp_path / "p.parquet")


def test_row_numbers_as_pandas_writes_them_are_left_alone(tmp_path):
    pd.DataFrame({"anchor": ["a"], "positive": ["b"]}).to_csv(tmp_path / "p.csv")
    assert load_texts(tmp_path / "p.csv").columns == (("a",), ("b",))


def test_a_set_hashes_its_rows():
    one, other = TextSet("x", (("a", "b"), ("c", "d"))), TextSet("y", (("a", "b"), ("c", "d")))
    assert one.sha256() == other.sha256()
    changed = [(("b", "a"), ("d", "c")), (("a", "bc"), ("", "d")), (("c", "d"), ("a", "b"))]
    assert len({one.sha256(), *(TextSet("x", columns).sha256() for columns in changed)}) == 4
    assert TextSet("x", one.columns, [1.0, 2.0]).sha256() != TextSet("x", one.columns, [2.0, 1.0]).sha256()


def test_columns_of_unlike_length_and_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="2, 1 rows"):
        TextSet("x", (("a", "b"), ("c",)))
    with pytest.raises(ValueError, match="row 2: the score is nan"):
        TextSet("x", (("a", "b"), ("c", "d")), [1.0, float("nan")])


def test_a_leading_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert tiny_encoder(layers=1).save("~/model") == tmp_path / "home" / "model"
    (tmp_path / "home" / "pairs.csv").write_text("sentence1,sentence2,score\na,b,1\nc,d,2\n")
    encoder = Encoder.load("~/model")
    encoder.encode(["a"], out="~/vectors.npy")
    assert set(sts_grid(encoder, ["~/pairs.csv"], dims=[4])["task"]) == {str(tmp_path / "home" / "pairs.csv")}
    config = TrainConfig(data="~/pairs.csv", backbone="~/model", teacher="~/model", out="~/run", recipe="grid")
    assert {config.data, config.backbone, config.teacher, config.out} == {
        str(tmp_path / "home" / name) for name in ("pairs.csv", "model", "run")
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
