"""The design, read from the syntax trees: import arrows, module sizes, no patched forward, one list of packages."""

import ast
import dataclasses
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from twodmse import TrainConfig

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "twodmse").rglob("*.py"))
ARROWS = {  # room -> the rooms it may import; those in OPEN are open to all
    "config": {"objectives", "presets"},
    "presets": {"objectives"},
    "averaging": {"encoder"},
    "encoder": set(),
    "objectives": set(),
    "plots": set(),
    "data": {"encoder"},
    "training": {"config", "data", "encoder", "evaluation", "objectives"},
    "evaluation": {"data", "encoder", "objectives"},
    "probes": {"data", "encoder", "evaluation", "objectives", "training"},
    "efficiency": {"config", "data", "encoder", "evaluation", "objectives", "training"},
    "export": {"data", "encoder"},
    "widgets": {"data", "efficiency", "encoder", "evaluation", "plots", "probes"},
    "explorer": {"encoder", "evaluation", "export", "plots", "probes"},
    "sentence_transformers": {"data", "encoder", "evaluation", "objectives", "training"},
    "study": {
        "averaging",
        "config",
        "data",
        "efficiency",
        "encoder",
        "evaluation",
        "objectives",
        "plots",
        "probes",
        "training",
    },
    "checked": set(),
    "files": set(),
    "names": set(),
    "stopping": set(),
    "version": set(),
}
OPEN = {"checked", "files", "names", "stopping", "version"}
FREE = {"cli", "commands", "quickstart", "__init__", "__main__"}


def part(path: Path) -> str:
    """The module's name, or that of the package inside twodmse it belongs to."""
    return path.relative_to(ROOT / "twodmse").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "twodmse":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_point_one_way(path):
    if part(path) not in FREE:
        extra = imports(path) - ARROWS[part(path)] - OPEN - {part(path)}
        assert not extra, f"{part(path)} imports {extra}"


def test_rooms_are_small():
    for room in {path.parent for path in MODULES}:
        assert len(list(room.glob("*.py"))) <= 12, f"{room} has more than 12 modules"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_modules_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_nobody_assigns_a_forward(path):
    for node in ast.walk(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else []
        assert not any(isinstance(t, ast.Attribute) and t.attr == "forward" for t in targets)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node)
            lines = node.end_lineno - node.lineno - (len(doc.splitlines()) if doc else 0)
            assert lines <= 55, f"{path.stem}.{node.name} has {lines} lines"


def name_of(requirement: str) -> str:
    return re.split(r"[<>=\[ ;]", requirement)[0]


def test_environment_lists_the_packages_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {name_of(r) for r in project["dependencies"] + project["optional-dependencies"]["notebooks"]}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert {name_of(r) for r in listed if not r.startswith("--")} == wanted


def test_every_requirement_is_pinned_by_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line).lower().replace("_", "-") for line in lines if "==" in line}
    extras = [r for group in project["optional-dependencies"].values() for r in group]
    assert {name_of(r) for r in project["dependencies"] + extras} <= pinned
    assert "torch==2.13.0" in lines


def test_public_names_exist():
    import twodmse

    assert all(hasattr(twodmse, name) for name in twodmse.__all__)


def documented_arguments(doc: str) -> list[str]:
    """The names that start the entries of an ``Args:`` block, as tools that read docstrings see them."""
    block = re.search(r"^Args:\n((?:[ ]{4}.*\n?)+)", doc + "\n", re.MULTILINE)
    return re.findall(r"^ {4}\*{0,2}([a-z_0-9]+): ", block[1], re.MULTILINE) if block else []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_arguments_are_documented_one_a_line(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and "Args:" in (doc := ast.get_docstring(node) or ""):
            args = node.args
            names = [a.arg for a in [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg] if a]
            names = [name for name in names if name not in ("self", "cls")]
            assert documented_arguments(doc) == names, f"{path.stem}.{node.name}"


def test_help_says_what_each_setting_is():
    assert documented_arguments(inspect.getdoc(TrainConfig)) == [f.name for f in dataclasses.fields(TrainConfig)]


def test_the_map_names_every_room():
    drawn = (ROOT / "CONTRIBUTING.md").read_text().partition("```\n")[2].partition("```")[0]
    rooms = {path.parent.name for path in MODULES if path.parent != ROOT / "twodmse"}
    assert rooms <= set(drawn.split())
