"""Stored tables: reading them, adding a run's rows, and writing them in Markdown."""

import gzip
from pathlib import Path

import pandas as pd
from filelock import FileLock

from twodmse.files import atomic_file


def markdown(table: pd.DataFrame, digits: int = 2) -> str:
    """A table with its index as a Markdown table, numbers to ``digits`` decimals."""

    def cell(value: object) -> str:
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    rows = [[str(table.index.name or ""), *map(str, table.columns)], ["---", *["---:"] * table.shape[1]]]
    rows += [[str(index), *map(cell, row)] for index, row in zip(table.index, table.to_numpy(object), strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


PACKED = ("study_cells", "study_draws")  # the large ones


def table_path(data: Path, name: str) -> Path:
    """Where a table is stored: CSV, packed where it is large."""
    return data / f"{name}.csv{'.gz' if Path(name).name in PACKED else ''}"


def read(data: Path, name: str) -> pd.DataFrame:
    """A stored table.

    Raises:
        FileNotFoundError: naming the file.
    """
    path = table_path(data, name)
    if not path.is_file():
        raise FileNotFoundError(f"there is no stored table {path}")
    return pd.read_csv(path)


def stored_tables() -> Path:
    """The folder of this project's stored tables: figures/data of the checkout, or its copy in the installed package.

    Raises:
        FileNotFoundError: if neither is there.
    """
    checkout, installed = Path(__file__).parents[2] / "figures" / "data", Path(__file__).parents[1] / "resources/study"
    for folder in (checkout, installed):
        if (folder / "study_runs.csv").is_file():
            return folder
    raise FileNotFoundError(f"the stored tables are missing from {installed}: install the package again")


def add_rows(path: Path, rows: pd.DataFrame, work: Path) -> None:
    """Add a run's rows to a table, in place of any it had: the whole table is written, or nothing."""
    with FileLock(work / "tables.lock"):
        if path.is_file():
            old = pd.read_csv(path)
            rows = pd.concat([old[~old["run"].isin(set(rows["run"]))], rows], ignore_index=True)
        with atomic_file(path) as whole:
            text = rows.to_csv(index=False, float_format="%.6g").encode()
            whole.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
