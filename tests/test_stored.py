"""Vectors of many texts into a file, and on with it after a stop."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_app, sentences, tiny_encoder
from tokenizers import normalizers
from transformers import BertweetTokenizer

from twodmse import Encoder
from twodmse.commands.encode import texts_of
from twodmse.encoder import stored
from twodmse.encoder.stored import encode_to, identity


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(stored, "PART", 4)


@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
def test_a_file_holds_what_encode_gives(name, tmp_path):
    encoder, texts = tiny_encoder(), sentences(10)
    path = encode_to(encoder, texts, tmp_path / name, 2, 8, progress=False)
    found = np.load(path) if name.endswith("npy") else np.stack(pd.read_parquet(path)["vector"])
    np.testing.assert_allclose(found, encoder.encode(texts, 2, 8), atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    with pytest.raises(FileExistsError, match="exists"):
        encode_to(encoder, texts, tmp_path / name, 2, 8)
    with pytest.raises(ValueError, match=r"one of \.npy, \.parquet"):
        encode_to(encoder, texts, tmp_path / "v.csv")


def test_encode_writes_a_file_and_never_holds_more_than_a_part(tmp_path, monkeypatch):
    encoder, texts, parts = tiny_encoder(), sentences(10), []
    real = encoder.encode

    def counted(some, *cell, **options):
        parts.append(1 if isinstance(some, str) else len(some))
        return real(some, *cell, **options)

    monkeypatch.setattr(encoder, "encode", counted)
    path = real(texts, 2, 8, out=tmp_path / "v.npy", prompt="a ", progress=False)
    assert path == tmp_path / "v.npy"
    assert parts == [1, 4, 4, 2]
    np.testing.assert_allclose(np.load(path), real(texts, 2, 8, prompt="a "), atol=1e-6)
    with pytest.raises(FileExistsError, match="exists"):
        real(texts, 2, 8, out=path)
    with pytest.raises(ValueError, match="must be a list of texts"):
        real("a dog", out=tmp_path / "w.npy")


@pytest.mark.parametrize("same", [True, False])
def test_a_stopped_job_goes_on_and_another_one_starts_anew(same, tmp_path, monkeypatch):
    encoder, texts, out = tiny_encoder(), sentences(10), tmp_path / "v.npy"
    real, calls = encoder.encode, []

    def counted(some, *cell, **options):
        if isinstance(some, list):
            calls.append(len(some))
            if len(calls) == 3:
                raise KeyboardInterrupt
        return real(some, *cell, **options)

    monkeypatch.setattr(encoder, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        encode_to(encoder, texts, out, progress=False)
    assert not out.exists()
    texts = texts if same else [*texts[:-1], "a dog"]
    calls[:] = [0] * 9
    encode_to(encoder, texts, out, progress=False)
    assert calls[9:] == ([2] if same else [4, 4, 2])
    np.testing.assert_allclose(np.load(out), real(texts), atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["v.npy"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"one\n\nthree\n", "t.txt, line 2: '' is no text to encode"),
        ("t.txt", "one\n\u200b\n".encode(), "t.txt, line 2: '\\u200b' is no text to encode"),
        ("t.csv", b"text\none\n  \n", "t.csv, column 'text', row 2: '  ' is no text to encode"),
        ("t.jsonl", b'{"text": "one"}\n{"text": 2}\n', "t.jsonl, column 'text', row 2: 2 is no text to encode"),
        ("t.txt", b"one\n\xff\n", "t.txt, line 2: not UTF-8"),
    ],
)
def test_a_line_that_holds_no_text_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        texts_of(tmp_path / name, None)


def test_only_line_feeds_end_a_line(tmp_path):
    (tmp_path / "t.txt").write_bytes("one\u2028still one\r\ntwo\x0cstill two".encode())
    assert texts_of(tmp_path / "t.txt", None) == ["one\u2028still one", "two\x0cstill two"]
    with pytest.raises(ValueError, match=r"t.txt has lines and no columns: leave --column out"):
        texts_of(tmp_path / "t.txt", "text")


def test_the_command_reads_lines_and_columns(tmp_path):
    texts = sentences(5)
    encoder = tiny_encoder()
    encoder.save(tmp_path / "m")
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "t.csv").write_text("id,body\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    for file, more in (("t.txt", []), ("t.csv", ["--column", "body"])):
        out = tmp_path / f"{file}.npy"
        run = run_app("encode", tmp_path / "m", tmp_path / file, "--layer", 2, "--dim", 8, "--out", out, *more)
        assert run.exit_code == 0, run.output
        np.testing.assert_allclose(np.load(out), encoder.encode(texts, 2, 8), atol=1e-6)
    run = run_app("encode", tmp_path / "m", tmp_path / "t.csv", "--out", tmp_path / "x.npy")
    assert run.exit_code == 1
    assert "--column one of id, body" in run.output


def test_a_job_stopped_for_its_memory_goes_on_in_smaller_batches(tmp_path, monkeypatch):
    encoder, texts, out = tiny_encoder(), sentences(20), tmp_path / "vectors.npy"
    monkeypatch.setattr(stored, "PART", 8)
    real, sizes = Encoder.encode, []

    def fails_late(self, some, *args, **options):
        if isinstance(some, list) and len(sizes) == 1:
            raise MemoryError
        found = real(self, some, *args, **options)
        sizes.extend([len(some)] if isinstance(some, list) else [])
        return found

    monkeypatch.setattr(Encoder, "encode", fails_late)
    with pytest.raises(MemoryError):
        stored.encode_to(encoder, texts, out, batch_size=8)
    sizes.append(0)
    stored.encode_to(encoder, texts, out, batch_size=4)
    assert sizes == [8, 0, 8, 4]  # 8 of the 20 were done
    np.testing.assert_allclose(np.load(out), real(encoder, texts), atol=1e-6)


def test_a_text_that_cannot_be_encoded_is_named_by_its_place_in_all(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "PART", 8)
    texts = [*sentences(12), " ", "a dog"]
    with pytest.raises(ValueError, match=r"texts\[12\]"):
        tiny_encoder().encode(texts)
    real = Encoder.encode

    def overflows(self, some, *args, **options):
        if isinstance(some, list) and "a dog" in some:
            raise ValueError(f"the vector of texts[{some.index('a dog')}] is not finite")
        return real(self, some, *args, **options)

    monkeypatch.setattr(Encoder, "encode", overflows)
    with pytest.raises(ValueError, match=r"texts\[12\] is not finite"):
        stored.encode_to(tiny_encoder(), [*texts[:12], "a dog"], tmp_path / "vectors.npy")


def stop_after(encoder, monkeypatch, parts):
    """Interrupt the encoder at the part after so many; returns the sizes of the parts it is asked for."""
    real, sizes = encoder.encode, []

    def counted(some, *cell, **options):
        if isinstance(some, list):
            sizes.append(len(some))
            if len(sizes) == parts + 1:
                raise KeyboardInterrupt
        return real(some, *cell, **options)

    monkeypatch.setattr(encoder, "encode", counted)
    return sizes


def test_a_job_goes_on_neither_with_other_tokens_nor_anew_for_options_left_out(tmp_path, monkeypatch):
    encoder, texts, out = tiny_encoder(), ["a dog", *(text.upper() for text in sentences(11))], tmp_path / "v.npy"
    encoder.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    sizes = stop_after(encoder, monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        encode_to(encoder, texts, out, progress=False, batch_size=64)  # as the command does
    other = tiny_encoder()  # whose first text has the same tokens
    np.testing.assert_array_equal(other.encode(texts[0]), encoder.encode(texts[0]))
    again = tmp_path / ".v.npy.part.json", tmp_path / ".v.npy.part.npy"
    kept = [path.read_bytes() for path in again]
    Encoder.encode(other, texts, out=out, progress=False)
    np.testing.assert_allclose(np.load(out), other.encode(texts), atol=1e-6)
    out.unlink()
    for path, content in zip(again, kept, strict=True):
        path.write_bytes(content)
    sizes[:] = [0] * 9
    Encoder.encode(encoder, texts, out=out, progress=False)
    assert sizes[9:] == [4]
    np.testing.assert_allclose(np.load(out), encoder.encode(texts), atol=1e-6)


def test_an_encoder_is_told_by_all_that_its_vectors_come_from_and_by_nothing_else(architecture, tmp_path):
    encoder = tiny_encoder(architecture)
    mark = identity(encoder)
    encoder.encode(sentences(9))  # which leaves the tokenizer cutting at a length
    encoder.tokenizer(["a dog", "a"], padding=True)
    assert identity(encoder) == mark
    assert identity(Encoder.load(encoder.save(tmp_path / "model"))) == mark
    assert identity(encoder.submodel()) == mark

    def changed(change):
        other = Encoder.load(tmp_path / "model")
        change(other)
        return identity(other)

    def shake(other):
        next(other.backbone.parameters()).data[-1, -1] += 1e-3

    def relayout(other):
        other.layout = other.layout._replace(max_length=9)

    marks = [
        changed(shake),
        changed(relayout),
        changed(lambda other: setattr(other.tokenizer.backend_tokenizer, "normalizer", normalizers.Lowercase())),
        changed(lambda other: setattr(other.tokenizer, "truncation_side", "left")),
        changed(lambda other: other.tokenizer.add_tokens(["dogs"])),
        changed(lambda other: setattr(other.backbone.model.config, "pad_token_id", 1)),
        changed(lambda other: other.to(dtype=torch.float16)),
    ]
    assert len({mark, *marks}) == 8


def test_a_tokenizer_without_a_backend_is_told_by_its_files(tmp_path):
    encoder, marks = tiny_encoder(), []
    for merges in ("d o 1\n", "d o 1\no g 1\n"):
        (tmp_path / "vocab.txt").write_text("a 1\ndog 1\n")
        (tmp_path / "bpe.codes").write_text(merges)
        encoder.tokenizer = BertweetTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))
        marks.append(identity(encoder))
        encoder.tokenizer(["a dog", "a"], padding=True, truncation=True, max_length=3)
        assert identity(encoder) == marks[-1]
    assert marks[0] != marks[1]
