"""Values that come from outside, settings and JSON files, checked against types: what does not fit is refused by name.

A type is written as an annotation, with its range beside it (pydantic's ``Field``), and checked in one place.
"""

import json
import math
import os
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

T = TypeVar("T")
Text = Annotated[str, Field(min_length=1)]
Place = Annotated[Text, AfterValidator(os.path.expanduser)]  # a file, a folder, or a name that is neither
Count = Annotated[int, Field(ge=1, lt=2**31)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
SHOWN = 120  # characters of a value in a message

# pydantic's kinds of error in our words; the names in braces are of its contexts.
WANTED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "tuple_type": "a list, in square brackets",
    "list_type": "a list, in square brackets",
    "dict_type": "an object",
    "dataclass_type": "an object",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "one of {expected}",
    "too_short": "longer: it has {actual_length} items, {min_length} are needed",
    "string_pattern_mismatch": "a text that fits {pattern}",
    "too_long": "shorter: it has {actual_length} items, at most {max_length} are allowed",
}


def checked(kind: type[T] | Any, value: Any, name: str, strict: bool = True) -> T:
    """``value`` as what ``kind`` says.

    Args:
        kind: a type, or an annotation with a range.
        value: what came from outside; paths, NumPy's numbers and lists are taken for texts, numbers and tuples.
        name: what the message calls it.
        strict: take no text for a number and no number for a truth value.

    Raises:
        ValueError: with the name, the value, and what it must be.
    """
    try:
        return adapter(kind).validate_python(plain(value), strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        if first["type"] == "missing" and isinstance(first["loc"][-1], str):
            inside, _, key = place.rpartition(".")
            raise ValueError(f"{name}{inside} lacks {key!r}") from None
        if first["type"] == "missing":  # an item of a tuple
            inside, length = place.rpartition("[")[0], first["loc"][-1] + 1
            raise ValueError(
                f"{name}{inside} is {shown(first['input'])}: it must be a list of at least {length}"
            ) from None
        wanted = WANTED.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
        raise ValueError(f"{name}{place} is {shown(first['input'])}: it must be {wanted}") from None


@cache
def adapter(kind: Any) -> TypeAdapter:
    """The checker of a type, built once."""
    return TypeAdapter(kind)


def is_whole(value: Any, least: float, most: float = math.inf) -> bool:
    """Whether it is an integer in a range, one of NumPy's included; a truth value is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def is_finite(value: Any) -> bool:
    """Whether it is a finite real number, one of NumPy's included; a truth value is none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def as_path(value: Any) -> Path:
    """A name of a file or folder as a path; a leading ``~`` is the user's home.

    Raises:
        ValueError: for what is no text or path, or names nothing.
    """
    name = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError(f"{shown(value)} is no name of a file or folder: give a path")
    return Path(name).expanduser()


def other_metrics(table: Any) -> str:
    """The metrics besides Spearman that the column ``metric`` of a table of scores names, if it has one."""
    return ", ".join(sorted(map(str, set(table.get("metric", ())) - {"spearman"})))


def plain(value: Any) -> Any:
    """A path as text, NumPy's numbers and arrays as Python's, a list as a tuple; anything else as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, list | range) else value


def shown(value: Any) -> str:
    """A value as a message shows it: not longer than a line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def parse_json(text: str, name: str, constants: bool = False) -> Any:
    """What a JSON text holds.

    Args:
        text: the JSON.
        name: what a message calls it.
        constants: take NaN and the infinities too, as Python writes them.

    Raises:
        ValueError: with the name, for what is no JSON, is nested too deep, or holds NaN or an infinity.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{name} holds {constant}, which is no number of JSON")

    try:
        return json.loads(text, parse_constant=None if constants else refuse)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{name} is no valid JSON ({error.msg} at line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deep") from None


def read_json(path: Path, kind: type[T] | Any, strict: bool = True, constants: bool = False) -> T:
    """What a JSON file holds, read as `parse_json` does and checked as `checked` does.

    Raises:
        ValueError: with the file's name, if it is damaged or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no valid JSON: it is not UTF-8") from None
    value = parse_json(text, str(path), constants)
    return checked(kind, value, str(path), strict)
