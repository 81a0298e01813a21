"""Where the project is published: it stands in pyproject.toml, and badges and install cells are written from there.

Use: python -m twodmse.study.address https://github.com/OWNER/NAME
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from twodmse.files import atomic_file
from twodmse.study.notebooks import clean, write

GITHUB = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+?")
COLAB = "https://colab.research.google.com/github"


def address(root: Path) -> str:
    """The project's address, as pyproject.toml has it."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def owner(url: str) -> str:
    """OWNER/NAME of an address."""
    return "/".join(url.rstrip("/").split("/")[-2:])


def badge(url: str, notebook: str) -> str:
    """The line at the head of a notebook that opens it in Colab."""
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({image})]({COLAB}/{owner(url)}/blob/main/notebooks/{notebook})"


def move(root: Path, url: str) -> None:
    """Write a new address into pyproject.toml, README.md and every notebook of a checkout.

    Raises:
        ValueError: if Colab could not open notebooks from there.
    """
    import nbformat

    if not GITHUB.fullmatch(url):
        raise ValueError(f"{url!r} is no address that Colab opens: it must be https://github.com/OWNER/NAME")
    before = address(root)
    swaps = ((before, url), (f"{COLAB}/{owner(before)}/", f"{COLAB}/{owner(url)}/"))
    for path in (root / "pyproject.toml", root / "README.md", *sorted((root / "notebooks").glob("*.ipynb"))):
        text = path.read_text(encoding="utf-8")
        for old, new in swaps:
            text = text.replace(old, new)
        with atomic_file(path) as work:
            work.write_text(text, encoding="utf-8")
        if path.suffix == ".ipynb":  # the ids of its cells belong to their sources
            write(clean(nbformat.read(path, as_version=4)), path)


def main(url: Annotated[str, typer.Argument(help="https://github.com/OWNER/NAME")]) -> None:
    """Write the project's address into pyproject.toml, README.md and the notebooks."""
    try:
        move(Path(), url)
    except ValueError as error:
        typer.echo(f"address: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"the project's address is {url}")


if __name__ == "__main__":
    typer.run(main)
