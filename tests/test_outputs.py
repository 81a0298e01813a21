"""What is written: never over what somebody else made, never by two at once, and nothing half-written is left."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from conftest import run_app as run
from conftest import tiny_encoder

from twodmse import Encoder, TrainConfig
from twodmse.commands import interrupted
from twodmse.encoder.stored import encode_to
from twodmse.evaluation.records import read_grid_json, read_grid_table
from twodmse.export.exporting import export
from twodmse.files import atomic_file, atomic_folder, check_folder, locked, no_formula, write_table
from twodmse.stopping import stop, stopped
from twodmse.training.replay import replay_grid

HOLD = """
import sys, time
from twodmse.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "target.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("target.csv")
    with atomic_file(tmp_path / "link.csv") as work:
        work.write_text("new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text() == "new"
    (tmp_path / "nowhere.csv").symlink_to("missing.csv")
    with (
        pytest.raises(FileExistsError, match=r"is a link to .*missing\.csv, which does not exist"),
        atomic_file(tmp_path / "nowhere.csv"),
    ):
        pass
    assert names(tmp_path) == ["link.csv", "nowhere.csv", "target.csv"]


@pytest.mark.parametrize("name", [3, None, b"folder", ["folder"], "", " ", "a\0b", {}])
def test_what_is_no_path_is_refused_by_whatever_reads_or_writes(tmp_path, monkeypatch, encoder, name):
    monkeypatch.chdir(tmp_path)
    for use in (
        Encoder.load, encoder.save, partial(export, encoder), partial(encode_to, encoder, ["a"]), read_grid_json,
        read_grid_table, replay_grid, TrainConfig.read, partial(write_table, pd.DataFrame()),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="is no name of a file or folder: give a path"):
            use(name)
    assert not list(tmp_path.iterdir())


def test_a_linked_model_folder_is_followed(tmp_path, model):
    (tmp_path / "link").symlink_to("model")
    tiny_encoder(layers=2).save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert '"num_hidden_layers": 2' in (model / "config.json").read_text()
    assert names(tmp_path) == ["link", "model"]


@pytest.mark.parametrize("option", ["--out", "--picture"])
def test_pipes_and_devices_are_refused_even_to_overwrite(tmp_path, model, scored, option):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null.png").symlink_to(os.devnull)
    for name in ("pipe.png", "null.png"):
        result = run("grid", model, "--tasks", scored, "--dims", 8, option, tmp_path / name, "--overwrite")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "device, pipe or socket" in result.stderr
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert run("export", model, "--out", tmp_path / "pipe.png", "--overwrite").exit_code == 1


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path, model):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    (tmp_path / "own" / "model.safetensors").write_text("of another tool")
    with pytest.raises(FileExistsError, match="no model that twodmse wrote"):
        tiny_encoder().save(tmp_path / "own", overwrite=True)
    assert run("export", model, "--out", tmp_path / "own", "--overwrite").exit_code == 1
    assert names(tmp_path / "own") == ["model.safetensors", "thesis.txt"]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("name", ["notes.txt", ".git/HEAD", "1_Pooling/config.json.bak", "link"])
def test_what_a_user_added_to_a_model_of_ours_is_never_removed(tmp_path, model, name, listed):
    mark = json.loads((model / "twodmse.json").read_text())
    assert {"model.safetensors", "1_Pooling/config.json", "tokenizer.json"} <= set(mark["files"])
    if not listed:  # as written before there were lists
        (model / "twodmse.json").write_text(json.dumps({k: v for k, v in mark.items() if k != "files"}))
    tiny_encoder().save(model, overwrite=True)
    if not listed:
        (model / "twodmse.json").write_text("[]")
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).symlink_to("..") if name == "link" else (model / name).write_text("mine")
    before = sorted(model.rglob("*"))
    with pytest.raises(FileExistsError, match=f"holds {re.escape(name)}, .*move it, or choose another folder"):
        tiny_encoder(layers=2).save(model, overwrite=True)
    result = run("export", "bundled", "--layer", 1, "--out", model, "--overwrite")
    assert (result.exit_code, result.stdout) == (1, "")
    assert sorted(model.rglob("*")) == before


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_an_export_lists_all_of_its_files_and_can_be_replaced(tmp_path, model, form):
    for _ in range(2):
        assert run("export", model, "--out", tmp_path / "e", "--format", form, "--overwrite").exit_code == 0
    files = [p.relative_to(tmp_path / "e").as_posix() for p in (tmp_path / "e").rglob("*") if p.is_file()]
    assert sorted(files) == sorted(
        ["twodmse.json", *json.loads((tmp_path / "e" / "twodmse.json").read_text())["files"]]
    )


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(FileExistsError, match=r"t\.csv exists"))
        stack.enter_context(atomic_file(tmp_path / "t.csv", overwrite=False)).write_text("ours")
        (tmp_path / "t.csv").write_text("theirs")
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(FileExistsError, match="not empty"))
        stack.enter_context(atomic_folder(tmp_path / "f"))
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "theirs").write_text("")
    assert (tmp_path / "t.csv").read_text() == "theirs"
    assert names(tmp_path) == ["f", "t.csv"]
    assert names(tmp_path / "f") == ["theirs"]


def test_of_two_processes_the_second_is_refused_and_a_dead_one_holds_nothing(tmp_path, model, scored):
    held = [tmp_path / "new" / "g.csv", tmp_path / "small"]
    holders = [subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) for path in held]
    assert [holder.stdout.readline() for holder in holders] == ["held\n"] * 2
    commands = [
        ["grid", model, "--tasks", scored, "--dims", 8, "--out", held[0]],
        ["export", model, "--layer", 1, "--out", held[1]],
    ]
    for command in commands:
        result = run(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is being written by another process" in result.stderr
    for holder in holders:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    for command in commands:
        assert run(*command).exit_code == 0
    assert names(tmp_path) == ["model", "new", "pairs.csv", "small"]
    assert names(tmp_path / "new") == ["g.csv"]


def test_a_lock_leaves_no_folder_behind(tmp_path):
    with locked(tmp_path / "a" / "b" / "c"):
        assert names(tmp_path / "a" / "b") == [".c.lock"]
    assert names(tmp_path) == []


def test_what_cannot_be_written_is_not_said_to_be_held_by_another(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", ".x.csv.lock")

    monkeypatch.setattr("twodmse.files.os.open", refuse)
    with (
        pytest.raises(PermissionError, match=r"csv cannot be written: Permission denied$"),
        locked(tmp_path / "x.csv"),
    ):
        pass


@pytest.mark.parametrize("name", ["pic", ".png", "a.xyz", "a.pgf", "sub/"])
def test_a_picture_says_its_format_before_the_work(tmp_path, model, scored, name):
    result = run("grid", model, "--tasks", scored, "--dims", 8, "--picture", f"{tmp_path}/{name}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "it must end in one of .png" in result.stderr
    assert names(tmp_path) == ["model", "pairs.csv"]


def test_one_file_cannot_hold_table_and_picture(tmp_path, model, scored):
    (tmp_path / "x.png").write_text("")
    (tmp_path / "y.png").symlink_to("x.png")
    result = run(
        "grid", model, "--tasks", scored, "--out", tmp_path / "x.png", "--picture", tmp_path / "y.png", "--overwrite"
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--out and --picture" in result.stderr


def test_spreadsheets_run_no_text_of_a_table(tmp_path):
    write_table(pd.DataFrame({"task": ["=1+2", "@x", "stsb"], "low": [-1.5, 2.0, 3.0]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "task,low\n'=1+2,-1.5\n'@x,2.0\nstsb,3.0\n"
    grid = pd.DataFrame({"task": ["=1+2", "'a", "-"], "layer": 1, "dim": [1, 2, 3], "spearman": 4.0})
    write_table(grid, tmp_path / "g.csv")
    pd.testing.assert_frame_equal(read_grid_table(tmp_path / "g.csv"), grid)
    assert [no_formula(value) for value in ("-a", "a-", -1)] == ["'-a", "a-", -1]


def start(*args, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "no such backend"}
    command = [sys.executable, "-m", "twodmse", *map(str, args)]
    pipes = {"stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **pipes, **({"stdout": subprocess.PIPE} | options))


def test_a_closed_output_is_exit_code_1():
    read, write = os.pipe()
    process = start("recipes", stdout=write)
    os.close(write)
    os.close(read)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (1, "twodmse: the output was closed before all of it was written\n")


def test_a_picture_needs_no_display(tmp_path, model, scored):
    process = start("grid", model, "--tasks", scored, "--dims", 8, "--picture", tmp_path / "p.pdf")
    said = process.communicate()[1]
    assert (said.count("\n"), process.returncode) == (1, 0)  # how few pairs there are
    assert "wide" in said
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_stopped_export_leaves_nothing_and_says_so(tmp_path, model, number, word):
    process = start("export", model, "--format", "onnx", "--out", tmp_path / "o")
    while process.poll() is None and not any(path.name.startswith(".o-") for path in tmp_path.iterdir()):
        pass
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.endswith(
        f"twodmse: {word}; nothing half-written is left\n"
    )  # Python may name what swallowed it first
    assert names(tmp_path) == ["model"]


@pytest.fixture
def asked_to_stop():
    """An interrupt that a library swallows; this process forgets it after the test."""

    def swallowed():
        with pytest.raises(KeyboardInterrupt):
            stop(signal.SIGINT, None)

    yield swallowed
    stopped.clear()


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_nothing_is_put_in_place_after_an_interrupt_that_was_swallowed(tmp_path, asked_to_stop, writer):
    def write():
        with writer(tmp_path / "o"):
            asked_to_stop()

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [None, ImportError("initialization failed")])
def test_a_command_whose_interrupt_a_library_kept_says_that_it_was_interrupted(asked_to_stop, monkeypatch, error):
    def library(_):
        asked_to_stop()
        if error is not None:
            raise error

    monkeypatch.setattr("twodmse.commands.recipes.load_plugins", library)
    result = run("recipes")
    assert result.exit_code == 1
    assert "twodmse: interrupted; nothing half-written is left" in result.output


def test_a_stopped_training_is_told_by_the_folder_that_a_setting_names(tmp_path):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-2" / "complete.json").write_text("{}")
    said = interrupted("train", {"out": None, "set_": ["lr=1e-4", f"out={tmp_path / 'run'}"]})
    assert f"finished checkpoints are kept in {tmp_path / 'run'}" in said


@pytest.mark.parametrize("ending", [".xlsx", ".tsv", ".parquet", ".png"])
def test_a_table_is_not_written_as_csv_under_the_name_of_another_kind(tmp_path, model, scored, ending):
    done = run("grid", model, "--tasks", scored, "--out", tmp_path / f"grid{ending}")
    assert done.exit_code == 1
    assert "would be written as CSV: give a name that ends in .csv" in done.output


@pytest.mark.parametrize("name", [".", "../empty", "ABSOLUTE", ".."])
def test_the_working_directory_is_not_replaced(tmp_path, monkeypatch, encoder, name):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    if name == "..":
        (tmp_path / "twodmse.json").write_text("{}")
    name = name.replace("ABSOLUTE", str(tmp_path / "empty"))
    with pytest.raises(FileExistsError, match=r"is the working directory, or holds it: choose a folder inside it, for"):
        encoder.save(name, overwrite=True)
    assert os.path.samefile(".", tmp_path / "empty")
    encoder.save("model")
    monkeypatch.chdir("model")
    result = run("export", "bundled", "--layer", 1, "--out", ".", "--overwrite")
    assert result.exit_code == 1
    assert "choose a folder inside it, for example model" in result.stderr
    assert Encoder.load(".").num_layers == encoder.num_layers


def test_a_folder_where_a_disk_is_mounted_is_refused_before_the_work(tmp_path, monkeypatch, encoder):
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: os.fspath(path) == str(tmp_path / "disk"))
    monkeypatch.setattr(Encoder, "write", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(FileExistsError, match=r"disk is where a disk is mounted: .* for example .*disk/model$"):
        encoder.save(tmp_path / "disk")
    assert check_folder(tmp_path / "disk" / "model") == tmp_path / "disk" / "model"


def test_a_disk_of_the_same_kind_is_found_in_the_systems_list(tmp_path, monkeypatch, encoder):
    (tmp_path / "a disk").mkdir()
    line = f"1 2 8:1 /there {tmp_path}/a\\040disk rw - ext4 /dev/x rw\n"
    real = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *a, **k: line if str(path) == "/proc/self/mountinfo" else real(path, *a, **k)
    )
    with pytest.raises(FileExistsError, match="is where a disk is mounted"):
        encoder.save(tmp_path / "a disk")
    encoder.save(tmp_path / "there")


def test_what_is_replaced_keeps_its_permissions(tmp_path, encoder):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    (tmp_path / "own").mkdir(mode=0o700)
    for overwrite in (False, True):
        encoder.save(tmp_path / "own", overwrite)
        assert mode(tmp_path / "own") == 0o700
    encoder.save(tmp_path / "new")
    (tmp_path / "own.csv").touch(mode=0o600)
    for name, wanted in (("own.csv", 0o600), ("new.csv", 0o644)):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / name)
        assert mode(tmp_path / name) == wanted
    assert mode(tmp_path / "new") == 0o755
