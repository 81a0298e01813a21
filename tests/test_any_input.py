"""Whatever is typed or stored: one line and exit code 1 or 2, or it works; never a traceback, never a file lost.

The quick profile tries a few hundred inputs; HYPOTHESIS_PROFILE=thorough tries thousands.
"""

# ruff: noqa: PT017
import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from twodmse.cli import app
from twodmse.config import TrainConfig
from twodmse.data.sets import TextSet, load_texts
from twodmse.evaluation.records import read_grid_table
from twodmse.training.checkpoints import fault
from twodmse.training.folders import check_run_folder, stored_order

calm = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", max_examples=60, derandomize=True, **calm)
settings.register_profile("thorough", max_examples=1000, **calm)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**32, 10**400, 1e300])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(['"', ",", "\t", "\n", "\r\n", "a b", "é", "NA", "1.5", "", "{", "}", "[", ":", "\\ud800"])
contents = st.binary(max_size=60) | st.lists(words, max_size=30).map(lambda found: "".join(found).encode())
damaged = contents | values.map(lambda value: json.dumps(value).encode())
HEADS = [
    b"",
    b"anchor,positive\n",
    b"sentence1,sentence2,score\n",
    b"anchor\tpositive\n",
    b'{"anchor": "a", "positive": ',
]


@given(key=st.sampled_from([*FIELDS, "zzz", ""]), value=values.map(json.dumps) | st.text(max_size=20))
def test_any_setting_is_one_line(key, value):
    command = ["train", "--backbone", "/nowhere", "--set", f"{key}={value}"]
    result = CliRunner().invoke(app, [part.replace("\0", "") for part in command])
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("twodmse: ")
    assert result.stderr.count("\n") == 1


@given(values=st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
def test_any_settings_make_a_config_or_are_refused(values):
    try:
        config = TrainConfig.from_dict(values)
    except ValueError as error:
        assert str(error)
    else:
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
@given(head=st.sampled_from(HEADS), content=contents)
def test_any_file_is_read_or_refused_by_name(tmp_path_factory, ending, head, content):
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(head + content)
    try:
        texts = load_texts(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(text, str) and text.strip() for column in texts.columns for text in column)
    assert path.read_bytes() == head + content


@given(name=st.sampled_from(["train_config.json", "run.json", "dims_order.json"]), content=damaged)
def test_any_file_of_a_run_is_taken_or_refused_by_name(tmp_path_factory, name, content):
    folder = tmp_path_factory.mktemp("run")
    config, texts = TrainConfig(), TextSet("t", (("a",), ("b",)))
    (folder / "train_config.json").write_text(json.dumps(config.to_dict()))
    (folder / name).write_bytes(content)
    try:
        check_run_folder(folder, config, resume=True, texts=texts)
        stored_order(folder, 2)
    except (ValueError, FileExistsError) as error:
        assert str(folder) in str(error)
    assert (folder / name).read_bytes() == content


@given(content=damaged)
def test_any_list_of_files_is_a_fault(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "complete.json").write_bytes(content)
    assert "list of files" in fault(folder)


@given(content=damaged)
def test_any_table_of_scores_is_read_or_refused_by_name(tmp_path_factory, content):
    path = Path(tmp_path_factory.getbasetemp()) / "g.csv"
    path.write_bytes(b"task,layer,dim,spearman\n" + content)
    try:
        read_grid_table(path)
    except ValueError as error:
        assert str(path) in str(error)
