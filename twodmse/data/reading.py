"""Local data files, read as they are written: every text a string, nothing guessed, nothing cached."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Columns = dict[str, Sequence[Any]]  # name -> the values of every row


def read_columns(path: Path) -> Columns:
    """The columns of a CSV, TSV, JSON lines, JSON (a list of objects) or parquet file.

    Args:
        path: the file, taken literally; its ending says its kind, one of `READERS`.

    Returns:
        Columns of equal length by name. Values of CSV and TSV are strings; the others keep the types they hold.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of another kind, one that is not UTF-8, a line that does not fit the header, a stray
            quotation mark, a column named twice, broken JSON or parquet; file and line are named.
    """
    return _of_file(path, lambda: READERS.get(path.suffix.lower(), _refuse)(path))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, as a line feed, with or without a carriage return, ends them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is not UTF-8; file and line are named.
    """
    return _of_file(path, lambda: _read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n"))


def _of_file(path: Path, read: Callable[[], T]) -> T:
    """What is read of a file that is there; what is wrong in it is said with the file's name."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{path}{error}") from error


def _refuse(path: Path) -> Columns:
    raise ValueError(f" is a file of another kind: unpack or save it as one that ends in {', '.join(READERS)}")


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f", line {line}: not UTF-8 (byte {data[error.start]:#04x}); save the file as UTF-8") from error


def _read_delimited(path: Path, delimiter: str) -> Columns:
    lines = list(io.StringIO(_read_text(path), newline=""))
    records = _records(lines, delimiter)
    _, header = next(records, (1, []))
    if not header:
        raise ValueError(" is empty: it has no header and no rows")
    _check_names(header)
    if len(header) == 1 and any(other in header[0] for other in {";", "\t", ","} - {delimiter}):
        raise ValueError(
            f", line 1: its columns are not delimited by {delimiter!r}; a .csv file has commas, a .tsv file tabs: "
            "save it as one of them"
        )
    rows = []
    for line, row in records:
        if len(row) != len(header):
            raise ValueError(
                f", line {line}: it has {len(row)} fields, the header has {len(header)}; "
                "a field that holds the delimiter must stand in quotation marks"
            )
        rows.append(row)
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return dict(zip(header, columns, strict=True))


def _records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not empty, with the number of the line it starts in.

    Raises:
        ValueError: for a quotation mark that opens or closes nothing, with the line that the record starts in.
    """
    limit = csv.field_size_limit(sys.maxsize)
    reader, start, width = csv.reader(lines, delimiter=delimiter, strict=True), 0, 0
    try:
        for row in reader:
            width = width or len(row)
            record = lines[start : reader.line_num]
            if len(record) > 1 and _were_rows(record, delimiter, width):
                raise csv.Error(
                    f"lines {start + 1} to {reader.line_num} were read as one row: if its text does have line breaks, "
                    "save the file as .jsonl or .parquet"
                )
            if row:
                yield start + 1, row
            start = reader.line_num
    except csv.Error as error:
        raise ValueError(
            f", line {start + 1}: a stray quotation mark ({error}); a field that holds one must stand in quotation "
            "marks, with each inside it doubled"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _were_rows(record: list[str], delimiter: str, width: int) -> bool:
    """Whether a record of several lines may be as many rows that a pair of stray quotation marks swallowed.

    Quoted fields may hold line breaks, so the question is asked of the lines without those two marks: the last one of
    the first line and the first one of the last.
    """
    lines = ["".join(record[0].rsplit('"', 1)), *record[1:-1], record[-1].replace('"', "", 1)]
    return all(len(next(csv.reader([line], delimiter=delimiter))) == width for line in lines)


def _read_jsonl(path: Path) -> Columns:
    lines = (line for line in enumerate(_read_text(path).split("\n"), 1) if line[1].strip())
    return _from_objects([(f"line {number}", _parse(line, f"line {number}")) for number, line in lines])


def _read_json(path: Path) -> Columns:
    text = _read_text(path)
    if not text.lstrip().startswith("["):
        return _read_jsonl(path)  # an object a line is what most tools write under this ending too
    return _from_objects([(f"item {number}", item) for number, item in enumerate(_parse(text, "the list"), 1)])


def _parse(text: str, place: str) -> Any:
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise ValueError(f", {place}: no valid JSON ({error.msg} at {at})") from error
    except ValueError as error:
        raise ValueError(f", {place}: {error}") from error
    except RecursionError as error:
        raise ValueError(f", {place}: its lists or objects are nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in found if names.count(n) > 1)!r} occurs twice in one object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _from_objects(rows: list[tuple[str, Any]]) -> Columns:
    for place, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f', {place}: it must be an object such as {{"anchor": ..., "positive": ...}}')
        missing = [name for name in rows[0][1] if name not in row]
        if missing:
            raise ValueError(f", {place}: it lacks {missing[0]!r}, which {rows[0][0]} has")
    if not rows:
        raise ValueError(" has no rows")
    names = dict.fromkeys(name for _, row in rows for name in row)  # also those that come later: a use refuses the gaps
    return {name: [row.get(name) for _, row in rows] for name in names}


def _read_parquet(path: Path) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with open(path, "rb") as file:  # opened here: a path would be searched for partitions
            table = parquet.ParquetFile(file).read()
        _check_names(table.column_names)
        return {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise ValueError(f" is no parquet file that can be read: {error}") from error


def _check_names(names: Sequence[str]) -> None:
    """Refuse a column named twice, and one without a name but for the first (row numbers, as pandas writes them)."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f" has two columns named {name!r}: rename one of them")
        if i and not name.strip():
            raise ValueError(f": column {i + 1} has no name; name it, or take its delimiter out of the first line")


READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": lambda path: _read_delimited(path, ","),
    ".tsv": lambda path: _read_delimited(path, "\t"),
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
