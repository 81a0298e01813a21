"""The scored sets that are asked for: by name, as files, or in memory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twodmse.data.memory import is_rows
from twodmse.data.sets import TASK_GROUPS, TextSet, as_texts, load_pairs, scored

TWICE = "two tasks have the same name, {}: rename one of them"
MEAN = "mean"  # what tables call the mean over tasks
NONE_GIVEN = "no tasks given: name at least one, for example mini-sts"


def load_tasks(tasks: Sequence[Any]) -> list[TextSet]:
    """The scored sets of a list of tasks: names and paths, each once, as `expand`; sets in memory as they are.

    Raises:
        ValueError: for an unknown task, one without scores, or two of one name.
    """
    tasks = [tasks] if isinstance(tasks, str) or not isinstance(tasks, Sequence) or is_rows(tasks) else tasks
    known: dict[str, str | TextSet] = {}
    for number, task in enumerate(tasks, 1):
        if isinstance(task, str | Path):
            for name in expand([str(task)]):
                if isinstance(known.setdefault(place(name), name), TextSet):
                    raise ValueError(TWICE.format(name))
        else:
            texts = scored(as_texts(task, f"task {number}"))
            if texts.name == MEAN:
                raise ValueError(f"task {number} is called {MEAN!r}, as the mean over tasks is: rename it")
            if place(texts.name) in known:
                raise ValueError(TWICE.format(texts.name))
            known[place(texts.name)] = texts
    if not known:
        raise ValueError(NONE_GIVEN)
    return [task if isinstance(task, TextSet) else load_pairs(task) for task in known.values()]


def expand(tasks: Sequence[str]) -> list[str]:
    """Task names, each once, with ``"paper"`` and ``"senteval"`` replaced by the seven sets that they stand for.

    A file is one task whatever ways to it are given; it goes by the first.

    Raises:
        ValueError: if there are none.
    """
    named = [os.path.expanduser(name) for task in tasks for name in TASK_GROUPS.get(task, [task])]
    if not named:
        raise ValueError(NONE_GIVEN)
    first: dict[str, str] = {}
    for name in named:
        first.setdefault(place(name), name)
    return list(first.values())


def place(name: str) -> str:
    """Where a file lies, whatever way to it is given; of what is no file its name."""
    return os.path.realpath(name) if os.path.isfile(name) else name
