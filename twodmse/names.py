"""Names that a user types: lists of them, and what to say to one that is not known."""

import csv
import difflib
import os
from collections.abc import Iterable

OWN = "own:"  # begins the name of a part that was handed to a run in memory: own:my_plan


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """What to say to an unknown name: all that are known, and the nearest one where one is near."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    choice = f"choose one of {', '.join(known)}" if known else "there are none"
    return f"unknown {what} {name!r}: {choice}" + (f"; did you mean {near[0]!r}?" if near else "")


def parse_names(text: str) -> list[str]:
    """``mini-sts, stsb`` as a list of names, each once; one that has a comma itself stands in double quotes."""
    if os.path.isfile(text):
        return [text]
    parts = (part for line in csv.reader(text.splitlines(), skipinitialspace=True) for part in line)
    return list(dict.fromkeys(name.strip() for name in parts if name.strip()))


def parse_columns(text: str | None) -> dict[str, str]:
    """``premise=anchor,hypothesis=positive`` as a dictionary: a column's own name -> what it is.

    Raises:
        ValueError: for a part that is not two names with one ``=`` between them.
    """
    pairs = [part.split("=") for part in parse_names(text or "")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError(f"columns are {text!r}: write NAME=WHAT with commas between, for example premise=anchor")
    return {own.strip(): what.strip() for own, what in pairs}
