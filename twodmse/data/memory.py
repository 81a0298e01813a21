"""Rows that are in memory already, as columns: tables that know their columns, dictionaries, lists of rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twodmse.data.reading import Columns


def columns_at_hand(rows: Any, name: str) -> Columns:
    """The columns of a table at hand, by name.

    Args:
        rows: a Dataset of `datasets`, a DataFrame, a dictionary of columns, or a list of dictionaries, one a row.
        name: what messages call it.

    Raises:
        ValueError: for rows of another kind, two columns of one name, or one text where a column of them is due.
    """
    if isinstance(rows, list | tuple) and rows and all(isinstance(row, dict) for row in rows):
        ragged = next((i for i, row in enumerate(rows, 1) if set(row) != set(rows[0])), None)
        if ragged is not None:
            raise ValueError(f"{name}, row {ragged} has not the names of row 1: {', '.join(map(str, rows[0]))}")
        rows = columns_of(rows)
    names = getattr(rows, "column_names", getattr(rows, "columns", rows))
    columnar = isinstance(rows, Mapping) or (names is not rows and hasattr(rows, "__getitem__"))
    if not columnar or (isinstance(names, dict) and names is not rows):
        raise ValueError(
            f"{name} is a {type(rows).__name__}: give a TextSet, one split of a Dataset, a DataFrame, or dictionaries"
        )
    names = list(names)
    for i, column in enumerate(names):
        if column in names[:i]:
            raise ValueError(f"{name} has two columns named {column!r}: rename one of them")
        if isinstance(rows[column], str | bytes):
            raise ValueError(f"{name}, column {column} is one text, {rows[column][:40]!r}: give a list of texts")
        if not isinstance(rows[column], Iterable):
            raise ValueError(f"{name}, column {column} is one value, {rows[column]!r}: give one a row")
    return {str(column): list(rows[column]) for column in names}


def is_rows(values: Any) -> bool:
    """Whether a value is a list of rows, dictionaries that hold one text a name, rather than a list of data sets."""
    return isinstance(values, list | tuple) and any(
        isinstance(row, dict) and any(isinstance(value, str) for value in row.values()) for row in values
    )


def columns_of(rows: Sequence[dict[str, Any]]) -> Columns:
    """Rows as columns; all have the names of the first."""
    return {name: [row[name] for row in rows] for name in rows[0]}
