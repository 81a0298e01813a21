"""`twodmse encode`."""

from pathlib import Path
from typing import Annotated

import typer

from twodmse.commands import Model, Overwrite, one_line_errors, refuse_read


@one_line_errors
def encode(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Texts: a .txt file, one a line, or a CSV, TSV, JSON (lines), parquet.")],
    out: Annotated[Path, typer.Option(help="The .npy or .parquet file to write.")],
    layer: Annotated[int | None, typer.Option(help="Layers to run. [default: all]")] = None,
    dim: Annotated[int | None, typer.Option(help="Coordinates to keep. [default: all]")] = None,
    column: Annotated[
        str | None, typer.Option(help="Which column holds the texts. [default: text, or the one]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 64,
    overwrite: Overwrite = False,
) -> None:
    """Encode the texts of a file with one cell of a model, as many as there are; a run that was stopped goes on.

    Example: twodmse encode bundled texts.txt --layer 3 --dim 64 --out vectors.npy
    """
    from twodmse.encoder.encoder import Encoder
    from twodmse.encoder.stored import encode_to
    from twodmse.files import check_file

    check_file(out, overwrite)
    refuse_read([out], [file])
    texts = texts_of(file, column)
    encode_to(Encoder.load(model), texts, out, layer, dim, overwrite, batch_size=batch_size)
    typer.echo(f"wrote {out}: {len(texts)} vectors")


def texts_of(file: Path, column: str | None, cure: str = "give --column one of") -> list[str]:
    """The texts of a file: the lines of a .txt file, else a column; where it is missing, ``cure`` says what to do.

    Raises:
        ValueError: if it has no such column, or several and none is named, or a text is empty or no text.
    """
    from twodmse.data.reading import READERS, read_columns, read_lines

    if file.suffix.lower() == ".txt":
        if column is not None:
            raise ValueError(f"{file} has lines and no columns: leave --column out")
        return with_words(read_lines(file), f"{file}, line")
    if file.suffix.lower() not in READERS:
        raise ValueError(f"{file} is of no kind that can be read: end its name in .txt or one of {', '.join(READERS)}")
    columns = read_columns(file)
    name = column or ("text" if "text" in columns or len(columns) != 1 else next(iter(columns)))
    if name not in columns:
        raise ValueError(f"{file} has no column {name!r}: {cure} {', '.join(columns)}")
    return with_words(list(columns[name]), f"{file}, column {name!r}, row")


def with_words(texts: list[str], place: str) -> list[str]:
    """The texts, each of which holds something: a vector has the place of its text."""
    from twodmse.encoder.reading import is_visible

    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not is_visible(text):
            raise ValueError(f"{place} {number}: {text!r} is no text to encode: take it out, or write something there")
    return texts
