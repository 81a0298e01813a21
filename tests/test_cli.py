import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from conftest import run_app as run

from twodmse.cli import app
from twodmse.commands import load_plugins
from twodmse.config import TrainConfig
from twodmse.names import parse_names
from twodmse.objectives import recipes
from twodmse.version import __version__

COMMANDS = typer.main.get_command(app).commands
UNSAID = {"out", "picture", "grid", "sentences", "compare", "published", "max_ms", "max_bytes", "min_spearman"}  # none
UNSAID |= {"results", "layer", "dim", "set_"}  # their help says what happens without them


def shown(name):
    """The help of a command, its white space made one."""
    return " ".join(run(name, "--help").output.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    assert run(name, "--help").exit_code == 0
    assert len(shown(name).split()) > 30
    assert name == "quickstart" or f"Example: twodmse {name}" in shown(name)
    assert name in run("--help").output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_default_is_shown(name):
    text = shown(name).replace("- ", "-")  # names are broken at their hyphens
    for option in COMMANDS[name].params:
        if option.param_type_name == "argument" or option.is_flag or option.required or option.name == "help":
            continue
        own = text.partition(" Options: ")[2].partition(f"{option.opts[0]} ")[2]  # from this option on
        own = re.split(r" --[a-z-]+ [A-Z<]", own)[0]
        if option.default is not None:
            assert f"[default: {option.default}" in own, option.name
        elif name == "train" and option.name in TrainConfig.__dataclass_fields__:
            default = TrainConfig.__dataclass_fields__[option.name].default
            assert f"[default: {'none' if default is None else default}]" in own, option.name
        elif option.name not in UNSAID:
            assert "[default: " in own, option.name


def test_the_version_and_the_help_need_no_torch():
    for argument in ("--help", "--version"):
        loaded = [sys.executable, "-X", "importtime", "-m", "twodmse", argument]
        result = subprocess.run(loaded, capture_output=True, text=True, check=True)
        heavy = {"torch", "transformers", "datasets", "pandas", "matplotlib", "scipy"}
        assert not heavy & {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
        assert __version__ in result.stdout or argument == "--help"


def test_grid_prints_and_writes_what_it_scored(model, scored, tmp_path):
    result = run(
        "grid", model, "--tasks", scored, "--dims", "4,32", "--out", tmp_path / "g.csv", "--picture", tmp_path / "g.png"
    )
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "g.csv")
    assert table.groupby(["layer", "dim"]).size().shape == (8,)
    cell = table.query("layer == 4 and dim == 32")["spearman"].item()
    assert re.search(rf"^4 .*{cell:.2f}$", result.output, re.MULTILINE)
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    again = run("grid", model, "--tasks", scored, "--out", tmp_path / "g.csv")
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    everything = run("grid", model, "--tasks", scored, "--dims", "all", "--out", tmp_path / "g.csv", "--overwrite")
    assert everything.exit_code == 0
    assert len(pd.read_csv(tmp_path / "g.csv")) == 4 * 32


def test_grid_says_what_a_score_of_few_pairs_is_worth(model, scored, tmp_path):
    rows = pd.read_csv(scored)
    for number in (5, 120):
        rows.iloc[[i % len(rows) for i in range(number)]].to_csv(tmp_path / "p.csv", index=False)
        result = run("grid", model, "--tasks", tmp_path / "p.csv", "--dims", "32", "--out", tmp_path / f"{number}.csv")
        assert result.exit_code == 0, result.output
        table = pd.read_csv(tmp_path / f"{number}.csv")
        widest = (table["high"] - table["low"]).max()
        said = f"has 5 pairs: a cell's 95 % interval is up to {widest:.0f} points wide"
        assert (said in result.stderr) is (number == 5), result.stderr


def test_grid_says_what_has_no_score_and_gives_no_mean_for_it(model, scored, tmp_path):
    rows = pd.read_csv(scored)
    rows.assign(sentence2=rows["sentence1"]).to_csv(tmp_path / "same.csv", index=False)
    for tasks in (tmp_path / "same.csv", f"{tmp_path / 'same.csv'},{scored}"):
        result = run("grid", model, "--tasks", tasks, "--dims", "8,32")
        assert result.exit_code == 0, result.output
        assert "has no score in 8 of 8 cells" in result.stderr
        assert re.findall(r"^(\d)\s+NaN\s+NaN$", result.stdout, re.MULTILINE) == ["1", "2", "3", "4"]


def test_a_task_may_have_commas_in_its_name(model, scored, tmp_path):
    own, other = tmp_path / "jan, feb,2026.csv", tmp_path / "other.csv"
    for path in (own, other):
        path.write_bytes(Path(scored).read_bytes())
    for tasks, names in ((own, {str(own)}), (f'"{own}", {other}', {str(own), str(other)})):
        result = run("grid", model, "--tasks", tasks, "--dims", "8", "--out", tmp_path / "grid.csv", "--overwrite")
        assert result.exit_code == 0, result.output
        assert set(pd.read_csv(tmp_path / "grid.csv")["task"]) == names


def test_what_a_command_reads_is_not_written_over(model, scored, tmp_path):
    own, texts = tmp_path / "own.csv", tmp_path / "own.parquet"
    pd.read_csv(scored).to_csv(own, index=False)
    pd.read_csv(scored).to_parquet(texts)
    before = own.read_bytes(), texts.read_bytes()
    for out, *arguments in (
        (own, "grid", model, "--tasks", own),
        (own, "compare", model, model, "--tasks", own),
        (own, "bench", "grid", model, "--tasks", own),
        (texts, "encode", model, texts, "--column", "sentence1"),
    ):
        result = run(*arguments, "--out", out, "--overwrite")
        assert result.exit_code == 1, arguments
        assert f"{out.name} is read by this command" in result.output, result.output
        assert (own.read_bytes(), texts.read_bytes()) == before


def test_grid_reads_a_file_by_its_own_columns(model, scored, tmp_path):
    pd.read_csv(scored).set_axis(["a", "b", "label"], axis=1).to_csv(tmp_path / "own.csv", index=False)
    columns = ["--columns", "a=sentence1,b=sentence2,label=score"]
    named, own = (
        run("grid", model, *more, "--dims", "8")
        for more in (["--tasks", scored], ["--tasks", tmp_path / "own.csv", *columns])
    )
    assert own.exit_code == 0, own.output
    assert own.stdout == named.stdout
    refused = run("grid", model, "--tasks", "mini-sts", *columns)
    assert "columns given, and none of mini-sts is hub:owner/name or a file" in refused.output


def test_train_writes_a_model_that_grid_reads(model, rows, scored, tmp_path):
    settings = ["--steps", 2, "--batch-size", 8, "--precision", "fp32", "--set", "dims=[4, 16]", "--set", "dropout=0"]
    result = run("train", "--data", rows, "--backbone", model, "--out", tmp_path / "run", *settings)
    assert result.exit_code == 0, result.output
    assert "2 steps, last loss" in result.output
    assert run("grid", tmp_path / "run" / "model", "--tasks", scored).exit_code == 0
    again = run("train", "--data", rows, "--backbone", model, "--out", tmp_path / "run", *settings)
    assert again.exit_code == 1
    assert "--resume" in again.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--recipe", "3dmse"], ["unknown recipe '3dmse'", "2dmse"]),
        (["train", "--data", "nope"], ["unknown data set 'nope'", "mini-nli"]),
        (["train", "--lr", "-1"], ["lr is -1.0", "above 0"]),
        (["train", "--set", "lrr=1"], ["unknown config key 'lrr'", "'lr'"]),
        (["train", "--set", "lr"], ["no '='"]),
        (["train", "--steps", "2", "--set", "steps=3"], ["steps is set twice, by its option and by --set"]),
        (["train", "--set", "scale=2", "--set", "scale=3"], ["--set scale is given twice"]),
        (["grid", "MODEL", "--results", "there"], ["--results takes mteb's own result files", "mini-sts"]),
        (["train", "--preset", "best"], ["unknown preset 'best'", "paper"]),
        (["train", "--backbone", "/nowhere"], ["no model '/nowhere'", "bundled"]),
        (["grid", "/nowhere"], ["no model '/nowhere'", "bundled"]),
        (["grid", "MODEL", "--dims", "x"], ["--dims is 'x'", "'all'"]),
        (["grid", "MODEL", "--dims", "99"], ["dim 99 is out of range", "1..32"]),
        (["grid", "MODEL", "--tasks", "sts99"], ["unknown data set 'sts99'", "sickr"]),
        (["grid", "MODEL", "--tasks", ","], ["no tasks"]),
        (["grid", "owner/name"], ["owner/name", "does not answer"]),
        (["grid", "MODEL", "--tasks", "stsb"], ["stsb could not be read from the hub"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(args, words, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = ["--backbone", model] if args[0] == "train" and "--backbone" not in args else []
    result = run(*[model if a == "MODEL" else a for a in args], *backbone)
    assert result.exit_code == 1
    message = result.stderr.strip()
    assert message.startswith("twodmse: ")
    assert "\n" not in message
    assert all(word in message for word in words)
    assert not (tmp_path / "runs").exists(), "a run that could not start left files behind"


def test_wrong_usage_is_exit_code_2():
    assert run("grid").exit_code == 2
    assert run("train", "--steps", "many").exit_code == 2
    assert run("fly").exit_code == 2


def test_a_list_given_in_two_options_is_refused():
    result = run("grid", "bundled", "--dims", "64", "--dims", "384")
    assert result.exit_code == 2
    assert "--dims is given twice" in result.output
    result = run("recipes", "--plugin", "absent_a", "--plugin", "absent_b")  # an option that takes several
    assert "there is no plugin 'absent_a'" in result.output
    assert run("recipes", "--layers", "3", "--layers", "4").exit_code == 0  # the last one counts


def test_a_command_leaves_the_drawing_of_this_process_alone(monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    assert run("recipes").exit_code == 0
    assert "MPLBACKEND" not in os.environ  # a kernel started from here would draw nothing


def test_what_is_no_plugin_is_named(tmp_path):
    (tmp_path / "s.txt").write_text("no code")
    for name in ("absent.part", "absent_package.deep.part"):
        assert f"there is no plugin '{name}'" in run("recipes", "--plugin", name).output
    assert "is a file of another kind" in run("recipes", "--plugin", str(tmp_path / "s.txt")).output


def test_plugins_are_found_by_their_path_whatever_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", dict(recipes.RECIPES))
    monkeypatch.chdir(tmp_path)
    code = "from twodmse import register_recipe\nregister_recipe({!r}, lambda draw: None)\nLOADED = []\n"
    for path in ("platform.py", "a/mine.py", "b/mine.py"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(code.format(path))
    load_plugins(["platform.py", "a/mine.py", "b/mine.py", "a/mine.py", "./b/mine.py"])
    assert {"platform.py", "a/mine.py", "b/mine.py"} <= set(recipes.RECIPES)
    Path("broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        load_plugins(["broken.py"])


def test_tasks_may_stand_on_lines_of_their_own():
    assert parse_names('mini-sts,\nstsb\n"a, b.csv" , ') == ["mini-sts", "stsb", "a, b.csv"]
