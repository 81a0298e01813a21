"""Notebooks that can be committed: executed from top to bottom in a fresh kernel, then cleaned of what varies.

nbstripout keeps or drops outputs as a whole; here widget views, memory addresses and split streams go out of them.

Use: python -m twodmse.study.notebooks notebooks/*.ipynb
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from twodmse.files import atomic_file

TIMEOUT = 1800  # seconds a cell may take
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
TOUR = "tour"  # tag of the cell whose picture stands for the notebook
TIMING = "timing"  # tag of cells whose output depends on measured times
WIDGET = "application/vnd.jupyter.widget-view+json"
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def execute(path: str | Path) -> Any:
    """Run a notebook from its first cell to its last, in a fresh kernel and in its own folder.

    Returns:
        The notebook with its outputs (an ``nbformat`` notebook); the file is not changed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no notebook, or a cell fails; the cell's error is named.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {path}")
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds for a file that is no notebook
        raise ValueError(f"{path} is not a notebook: {str(error).splitlines()[0][:200]}") from error
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name=KERNEL["name"], resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False, record_timing=False,
    )  # fmt: skip
    try:
        return client.execute()
    except CellExecutionError as error:
        raise ValueError(f"{path}: a cell failed with {error.ename}: {error.evalue}") from error


def clean(notebook: Any) -> Any:
    """A copy of a notebook without what changes from run to run, so that an unchanged notebook gives an empty diff.

    Widget views and their state, progress bars, timings, memory addresses, the kernel's version and the editor's
    settings are dropped; a cell's id is made of its source; outputs, counts and cell tags stay.
    """
    import nbformat

    cells, seen = [], {}
    for cell in notebook.cells:
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        kept = {"id": digest if seen[digest] == 1 else f"{digest}-{seen[digest]}", "cell_type": cell.cell_type}
        kept |= {"source": cell.source, "metadata": {k: v for k, v in cell.metadata.items() if k == "tags"}}
        if cell.cell_type == "code":
            kept |= {"execution_count": cell.execution_count, "outputs": clean_outputs(cell.outputs)}
        cells.append(kept)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    cleaned = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    return nbformat.from_dict(cleaned)


def keep_timings(notebook: Any, before: Any) -> Any:
    """Put back the outputs that cells with the tag ``timing`` had before, where their source is the same.

    Measured times differ from run to run: without this an unchanged notebook would give a diff each time.

    Args:
        notebook: just executed and cleaned; changed in place and returned.
        before: what the file held.
    """
    had = {cell.id: cell for cell in clean(before).cells if cell.cell_type == "code" and cell.outputs}
    for cell in notebook.cells:
        old = had.get(cell.id)
        if old is not None and TIMING in cell.metadata.get("tags", []) and old.execution_count == cell.execution_count:
            cell.outputs = old.outputs
    return notebook


def clean_outputs(outputs: list[Any]) -> list[dict[str, Any]]:
    """The outputs of a cell that a reader without a kernel can see, with pieces of one stream joined."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        output = {k: v for k, v in output.items() if k != "transient"}
        if WIDGET in output.get("data", {}):
            continue
        if "data" in output:
            output["data"] = {kind: plain(value) for kind, value in output["data"].items()}
            output["metadata"] = {}
        if output["output_type"] == "stream":
            output["text"] = plain(output["text"])
            if kept and kept[-1].get("name") == output["name"]:
                kept[-1]["text"] += output["text"]
                continue
        kept.append(output)
    return kept


def plain(value: Any) -> Any:
    """A text without memory addresses; anything else as it is."""
    return ADDRESS.sub("", value) if isinstance(value, str) else value


def picture(notebook: Any) -> bytes:
    """The PNG that stands for a notebook: the first one of a cell with the tag ``tour``, else the first of all.

    Raises:
        ValueError: if no cell shows a PNG.
    """
    shown = [
        (TOUR not in cell.metadata.get("tags", []), output.data["image/png"])
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    if not shown:
        raise ValueError("the notebook shows no picture")
    return base64.b64decode(min(shown, key=lambda found: found[0])[1])


def write(notebook: Any, path: str | Path) -> None:
    """Write a notebook, whole or not at all."""
    import nbformat

    with atomic_file(path) as work:
        nbformat.write(notebook, work)


def write_picture(notebook: Any, path: Path) -> None:
    """Write the picture of a notebook, if it shows any, into ``pictures`` beside it."""
    try:
        data = picture(notebook)
    except ValueError:
        return
    with atomic_file(path.parent / "pictures" / f"{path.stem}.png") as work:
        work.write_bytes(data)


def main(
    paths: Annotated[list[Path], typer.Argument(help="Notebooks to execute, clean and write back.")],
    timings: Annotated[
        bool, typer.Option("--timings", help="Also renew the outputs of cells with the tag 'timing'.")
    ] = False,
) -> None:
    """Execute notebooks from top to bottom and write them back without what changes from run to run.

    Cells with the tag 'timing' keep the outputs they had, unless their source changed. The picture that stands for each
    notebook is written beside it, into the folder pictures.

    Example: python -m twodmse.study.notebooks notebooks/*.ipynb
    """
    import nbformat

    for path in paths:
        try:
            made = clean(execute(path))
            made = made if timings else keep_timings(made, nbformat.read(path, as_version=4))
            write(made, path)
            write_picture(made, path)
        except (ValueError, OSError) as error:
            typer.echo(f"notebooks: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error
        typer.echo(f"executed {path}")


if __name__ == "__main__":
    typer.run(main)
