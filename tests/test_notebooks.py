"""The notebooks are thin, clean and in order; cleaning drops what changes by itself; and every notebook runs."""

import ast
import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import typer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

from twodmse.study import notebooks
from twodmse.study.address import COLAB, address, badge, move, owner
from twodmse.study.notebooks import WIDGET, clean, execute, keep_timings, picture, write
from twodmse.study.report import loose_numbers

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
FILES = sorted(FOLDER.glob("*.ipynb"))
ONE_STEP = FOLDER / "02_one_step_by_hand.ipynb"
MAGIC = re.compile(r"^(\s*)[%!].*", re.MULTILINE)  # lines that Jupyter reads, not Python
ABSOLUTE = re.compile(r"(?<![\w.:/<~%-])/[\w.-]+/[\w./-]+|\b[A-Za-z]:\\\w")
LONGEST = 14  # lines of a code cell
LARGEST = 2_100_000  # bytes of a file
every_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def printed(notebook):
    """The outputs that are text."""
    texts = []
    for output in outputs(notebook):
        texts.append(output.get("text", ""))
        texts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return texts


def definitions(source):
    """The functions and classes that a code cell defines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in ast.walk(ast.parse(MAGIC.sub(r"\1pass", source))) if isinstance(node, kinds)]


def absolute_paths(notebook):
    """Absolute paths in sources and in outputs that are text; pictures and links are passed over."""
    texts = [cell.source for cell in notebook.cells] + printed(notebook)
    return [match.group() for text in texts for match in ABSOLUTE.finditer(text)]


def test_there_are_notebooks_and_their_numbers_differ():
    numbers = [path.name[:3] for path in FILES]
    assert numbers
    assert all(re.fullmatch(r"\d\d_", number) for number in numbers)
    assert len(set(numbers)) == len(numbers)


@every_notebook
def test_code_is_thin(path):
    for cell in code_cells(read(path)):
        assert definitions(cell.source) == []
        assert len(cell.source.splitlines()) <= LONGEST


@every_notebook
def test_it_was_run_from_top_to_bottom_without_errors_or_warnings(path):
    notebook = read(path)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []
    assert any("image/png" in o.get("data", {}) or "<svg" in o.get("data", {}).get("text/html", "")
               for o in outputs(notebook)), "a page without a kernel shows no picture"  # fmt: skip


@every_notebook
def test_it_is_clean_and_small(path, tmp_path):
    write(clean(read(path)), tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert "widgets" not in read(path).metadata
    assert WIDGET not in path.read_text()
    assert path.stat().st_size < LARGEST
    assert absolute_paths(read(path)) == []


@every_notebook
def test_it_says_what_is_learned_installs_itself_and_ends_with_answered_exercises(path):
    notebook = read(path)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.source.startswith(f"# {path.name[:2]} ")
    assert "**What you will learn**" in first.source
    code = [cell.source for cell in code_cells(notebook)]
    assert 'find_spec("twodmse") is None' in code[0]
    assert f'"git+{address(ROOT)}"' in code[0]
    assert re.findall(r"%pip install .*", code[0]) == re.findall(
        r'%pip install --quiet "twodmse\S* @ {source}"', code[0]
    )
    assert badge(address(ROOT), path.name) in first.source
    assert "**Needs:**" in first.source
    assert "two CPU cores" in first.source
    assert any("__version__" in source and "print(" in source for source in code[1:3])
    assert last.cell_type == "markdown"
    exercises = last.source.partition("## Exercises")[2]
    assert len(re.findall(r"^\*\*\d+\.\*\*", exercises, re.MULTILINE)) >= 2
    assert answers(exercises) == len(re.findall(r"^\*\*\d+\.\*\*", exercises, re.MULTILINE))


def answers(text):
    """How many folded answers a text holds: opened, named, not empty and closed."""
    return len(re.findall(r"<details><summary>Answer</summary>\n\n.+?\n\n</details>", text, re.DOTALL))


@every_notebook
def test_code_in_answers_can_be_parsed(path):
    for block in re.findall(r"```python\n(.*?)```", read(path).cells[-1].source, re.DOTALL):
        ast.parse(MAGIC.sub(r"\1pass", block))


def test_the_checks_see_what_they_look_for():
    source = "if True:\n    %pip install x\nasync def f(): ...\nclass A:\n    def g(self): ..."
    assert sorted(definitions(source)) == ["A", "f", "g"]
    text = new_markdown_cell("see https://a.org/b/c, and/or docs/b/c.md, <details></details>")
    made = new_notebook(cells=[text, new_code_cell("1 / 2 / 3")])
    assert absolute_paths(made) == []
    stream = new_output("stream", text="wrote /home/me/x.csv")
    result = new_output("execute_result", data={"text/plain": r"'C:\Users'", "image/png": "/a/b/c"})
    made.cells[1].outputs = [stream, result]
    assert absolute_paths(made) == ["/home/me/x.csv", "C:\\U"]
    assert answers("<details><summary>Answer</summary>\n\nYes.\n\n</details>") == 1
    assert answers("<details><summary>Answer</summary>\n\nYes.") == 0


# ---------------------------------------------------------------- cleaning


@pytest.fixture
def noisy():
    """A notebook with everything that an editor, a kernel and widgets leave behind."""
    code = new_code_cell("1 + 1", execution_count=1, id="random-1")
    code.metadata = {"execution": {"iopub.execute_input": "2024-01-01"}, "tags": ["keep"], "collapsed": True}
    code.outputs = [
        new_output("display_data", data={WIDGET: {"model_id": "a1"}, "text/plain": "IntSlider(value=3)"}),
        new_output("stream", name="stdout", text="one "),
        new_output("stream", name="stdout", text="two\n"),
        new_output("stream", name="stderr", text="careful\n"),
        new_output("stream", name="stdout", text="three <f at 0x7f3a>\n"),
        new_output("execute_result", execution_count=1, metadata={"needs_background": "light"},
                   data={"text/plain": "<A object at 0x7F00dead> at 0 x", "image/png": "aGk="}),
    ]  # fmt: skip
    made = new_notebook(cells=[new_markdown_cell("# 01 Title"), code, copy.deepcopy(code)])
    made.metadata = {
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"a1": {}}}},
        "kernelspec": {"name": "mine", "display_name": "mine", "language": "python"},
        "language_info": {"name": "python", "version": "3.11.7"},
        "toc": {},
    }
    return made


def test_clean_drops_what_changes_by_itself_and_keeps_the_rest(noisy):
    before = copy.deepcopy(noisy)
    cleaned = clean(noisy)
    assert noisy == before, "the argument was changed"
    assert cleaned.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    title, cell, _ = cleaned.cells
    assert (title.cell_type, title.source, title.metadata) == ("markdown", "# 01 Title", {})
    assert (cell.source, cell.execution_count, cell.metadata) == ("1 + 1", 1, {"tags": ["keep"]})
    assert cell.outputs == [
        {"output_type": "stream", "name": "stdout", "text": "one two\n"},
        {"output_type": "stream", "name": "stderr", "text": "careful\n"},
        {"output_type": "stream", "name": "stdout", "text": "three <f>\n"},
        {"output_type": "execute_result", "execution_count": 1, "metadata": {},
         "data": {"text/plain": "<A object> at 0 x", "image/png": "aGk="}},
    ]  # fmt: skip
    nbformat.validate(cleaned)


def test_cell_ids_come_from_the_source_and_differ(noisy):
    ids = [cell.id for cell in clean(noisy).cells]
    for cell in noisy.cells:
        cell.id = f"other-{cell.id}"[:60]
    assert [cell.id for cell in clean(noisy).cells] == ids
    assert len(set(ids)) == 3
    noisy.cells[0].source = "# 02 Title"
    assert [cell.id for cell in clean(noisy).cells][1:] == ids[1:]
    assert clean(noisy).cells[0].id != ids[0]


def test_cleaning_twice_changes_nothing(noisy, tmp_path):
    write(clean(noisy), tmp_path / "once.ipynb")
    write(clean(read(tmp_path / "once.ipynb")), tmp_path / "twice.ipynb")
    assert (tmp_path / "once.ipynb").read_bytes() == (tmp_path / "twice.ipynb").read_bytes()


def timed(text, source="t", tags=("timing",), count=1):
    """A cleaned notebook of one code cell that printed a text."""
    cell = new_code_cell(source, execution_count=count, metadata={"tags": list(tags)})
    cell.outputs = [new_output("stream", text=text)] if text else []
    return clean(new_notebook(cells=[cell]))


def test_cells_with_measured_times_keep_what_they_printed_while_their_source_is_the_same():
    def kept(new, old):
        return [output.text for output in keep_timings(new, old).cells[0].outputs]

    assert kept(timed("5 ms"), timed("4 ms")) == ["4 ms"]
    assert kept(timed("5 ms", tags=()), timed("4 ms", tags=())) == ["5 ms"]
    assert kept(timed("5 ms", source="u"), timed("4 ms")) == ["5 ms"]
    assert kept(timed("5 ms"), timed("")) == ["5 ms"]
    assert kept(timed("5 ms", count=2), timed("4 ms")) == ["5 ms"]  # the cells above it are others now


def test_the_picture_is_that_of_the_tagged_cell_or_the_first():
    cells = [new_code_cell("a"), new_code_cell("b"), new_code_cell("c", metadata={"tags": ["tour"]})]
    for cell, text in zip(cells, (None, "Yg==", "Yw=="), strict=True):
        cell.outputs = [new_output("display_data", data={"image/png": text})] if text else []
    made = new_notebook(cells=cells)
    assert picture(made) == b"c"
    cells[2].metadata = {}
    assert picture(made) == b"b"
    with pytest.raises(ValueError, match="shows no picture"):
        picture(new_notebook(cells=[new_code_cell("a")]))


@every_notebook
def test_its_picture_is_the_one_that_the_readme_shows(path):
    stored = FOLDER / "pictures" / f"{path.stem}.png"
    assert stored.read_bytes() == picture(read(path)), "run `make notebooks`"
    readme = (FOLDER.parent / "README.md").read_text()
    assert f"notebooks/pictures/{path.stem}.png" in readme
    assert f"(notebooks/{path.name})" in readme


# ---------------------------------------------------------------- running


def command(*paths):
    app = typer.Typer()
    app.command()(notebooks.main)
    return CliRunner().invoke(app, [str(path) for path in paths])


def test_files_that_are_no_notebooks_are_refused_in_one_line(tmp_path):
    (tmp_path / "a.ipynb").write_text("not a notebook")
    with pytest.raises(ValueError, match=r"a\.ipynb is not a notebook"):
        execute(tmp_path / "a.ipynb")
    with pytest.raises(FileNotFoundError, match=r"there is no notebook .*b\.ipynb"):
        execute(tmp_path / "b.ipynb")
    result = command(tmp_path / "b.ipynb")
    assert result.exit_code == 1
    assert result.stderr.startswith("notebooks: there is no notebook")
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "a.ipynb").read_text() == "not a notebook"


@pytest.mark.slow
def test_the_command_runs_cleans_and_writes_back_unless_a_cell_fails(tmp_path):
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    write(new_notebook(cells=[new_code_cell("import os"), new_code_cell("print(os.getcwd())")]), good)
    write(new_notebook(cells=[new_code_cell("1 / 0"), new_code_cell("2")]), bad)
    before = bad.read_bytes()
    result = command(good, bad, good)
    assert result.exit_code == 1
    assert result.stdout == f"executed {good}\n"
    assert result.stderr == f"notebooks: {bad}: a cell failed with ZeroDivisionError: division by zero\n"
    assert bad.read_bytes() == before
    cells = read(good).cells
    assert [cell.execution_count for cell in cells] == [1, 2]
    assert cells[1].outputs[0].text == f"{tmp_path}\n"  # it ran in its own folder
    assert cells[1].metadata == {}


@pytest.mark.slow
def test_the_command_renews_measured_times_only_if_asked(tmp_path):
    path = tmp_path / "timed.ipynb"
    clock = new_code_cell("import time; print(time.perf_counter_ns())", metadata={"tags": ["timing"]})
    write(new_notebook(cells=[clock]), path)
    seen = []
    for options in ([], [], ["--timings"]):
        assert command(*options, path).exit_code == 0
        seen.append(read(path).cells[0].outputs[0].text)
    assert seen[0] == seen[1] != seen[2]


STEPS = re.compile(r"^steps = \d+  # @param", re.MULTILINE)  # the form field of the notebooks that train


def copied(path, folder):
    """A copy of a notebook without its outputs, so that what it holds afterwards was made now, with short trainings."""
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
        cell.source = STEPS.sub("steps = 4  # @param", cell.source)
    write(notebook, folder / path.name)
    return folder / path.name


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder that holds the package as its wheel installs it, and nothing of the checkout."""
    copy, built, site = (tmp_path_factory.mktemp(name) for name in ("checkout", "wheel", "site"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("twodmse", "figures/data"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", built, copy], check=True)
    shutil.rmtree(copy)
    (wheel,) = built.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    return site


@pytest.mark.slow
@every_notebook
def test_it_runs_alone_from_a_clean_kernel_in_an_empty_folder_from_the_wheel(path, site, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(site))  # kernels started here inherit it
    alone = copied(path, tmp_path)
    notebook = read(alone)
    notebook.cells.insert(0, new_code_cell("import twodmse; print(twodmse.__file__)"))
    write(notebook, alone)
    done = execute(alone)
    assert done.cells[0].outputs[0].text.startswith(str(site))
    assert not [output for output in outputs(done) if output.output_type == "error"]
    first, *cells = code_cells(clean(done))
    assert [cell.execution_count for cell in (first, *cells)] == list(range(1, len(cells) + 2))
    committed = code_cells(read(path))
    assert [bool(cell.outputs) for cell in cells] == [bool(cell.outputs) for cell in committed]


def test_the_address_stands_in_one_place_and_one_command_moves_it(tmp_path):
    texts = [path.read_text() for path in (*FILES, ROOT / "README.md")]
    assert {found for text in texts for found in re.findall(r"git\+(https?://[^\s\"\\]+)", text)} == {address(ROOT)}
    assert {found for text in texts for found in re.findall(COLAB + r"/([^/]+/[^/]+)/", text)} == {owner(address(ROOT))}
    (tmp_path / "notebooks").mkdir()
    for name in ("pyproject.toml", "README.md", f"notebooks/{ONE_STEP.name}"):
        shutil.copy(ROOT / name, tmp_path / name)
    with pytest.raises(ValueError, match="it must be https"):
        move(tmp_path, "https://example.org/a/b")
    move(tmp_path, "https://github.com/someone/else")
    made = read(tmp_path / "notebooks" / ONE_STEP.name)
    assert address(tmp_path) == "https://github.com/someone/else"
    assert badge(address(tmp_path), ONE_STEP.name) in made.cells[0].source
    assert owner(address(ROOT)) not in (tmp_path / "notebooks" / ONE_STEP.name).read_text()
    assert made == clean(made)  # the ids of cells are those of their sources


@pytest.mark.slow
def test_running_twice_gives_the_same_bytes(tmp_path):
    path = copied(ONE_STEP, tmp_path)
    write(clean(execute(path)), tmp_path / "first.ipynb")
    write(clean(execute(path)), tmp_path / "second.ipynb")
    assert (tmp_path / "first.ipynb").read_bytes() == (tmp_path / "second.ipynb").read_bytes()


# What the prose sets rather than measures: thresholds to think with, settings, percentiles.
SET = {
    "01_quickstart.ipynb": {"0.6", "0.5", "0.9"},
    "02_one_step_by_hand.ipynb": {"2.08", "1.61"},  # log 8 and log 5
    "03_training_runs.ipynb": {"0.3"},
    "04_layer_by_dim_grid.ipynb": {"2.5", "0.05"},
    "05_alignment.ipynb": {"0.3"},
    "06_explorer.ipynb": {"0.8", "0.05", "0.6", "0.1", "0.7"},
}


@every_notebook
def test_numbers_in_the_prose_are_those_of_the_outputs(path):
    notebook = read(path)
    prose = loose_numbers("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"))
    known = [float(number) for text in printed(notebook) for number in re.findall(r"\d+\.\d+", text)]
    for number in set(prose) - SET.get(path.name, set()):
        decimals = len(number.partition(".")[2])
        assert any(f"{value:.{decimals}f}" == number for value in known), f"{number} is in no output of this notebook"
