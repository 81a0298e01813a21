"""Files written so that nothing is lost: they appear whole, or not at all."""

import itertools
import json
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from twodmse.checked import as_path
from twodmse.stopping import check_not_stopped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MARK = "twodmse.json"  # lies in every model folder that this package wrote, and lists what it wrote there
LISTED = "files"  # the list's name in it
# What a model folder of ours may hold, where its mark has no list, or none yet.
USUAL = re.compile(
    r"twodmse\.json|train_config\.json|README\.md|modules\.json|(generation_)?config\.json|chat_template\.jinja"
    r"|(config_sentence_transformers|sentence_bert_config)\.json|(1_Pooling|2_Dense)/config\.json"
    r"|(2_Dense/)?model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|onnx/model(_quantized)?\.onnx"
    r"|(tokenizer(_config)?|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt|(spiece|tokenizer)\.model"
    r"|sentencepiece\.bpe\.model"
)
log = logging.getLogger(__name__)
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".eps", ".ps")


def check_file(path: str | Path, overwrite: bool = True) -> Path:
    """Where a file is to be written: ``path``, or what a link of that name leads to.

    Raises:
        FileExistsError: if there is anything but a regular file, or one that may not be replaced.
        NotADirectoryError: if a folder of its path is a file.
    """
    target = _followed(path)
    if target.exists() and not target.is_file():
        kind = "folder" if target.is_dir() else "device, pipe or socket"
        raise FileExistsError(f"{path} is a {kind}, not a regular file: choose another name")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another, or add --overwrite")
    return target


def check_folder(path: str | Path, overwrite: bool = False) -> Path:
    """Where a model folder is to be written: ``path``, or what a link of that name leads to.

    Raises:
        FileExistsError: if there is a file, a folder that another cannot take the place of (a disk is mounted there, or
            this process works in it), or one that holds anything and may not be replaced: ``overwrite`` is false, this
            package did not write it, or somebody put a file into it; and as `check_in_place`.
        NotADirectoryError: if a folder of its path is a file.
    """
    target = _followed(path)
    if not overwrite:
        check_in_place(target)
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{path} exists and is no folder: choose another name")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise FileExistsError(f"{path} exists and is not empty: choose another folder, or ask to overwrite it")
        if not (target / MARK).is_file():
            no_model = f"{path} is not replaced: its files are no model that twodmse wrote (no {MARK})"
            raise FileExistsError(f"{no_model}: choose another folder")
        if others := strangers(target, written(target)):
            not_ours = f"{path} holds {others[0]}, which is not among what twodmse wrote there"
            raise FileExistsError(f"{not_ours}: move it, or choose another folder")
    if held := _held(target):
        raise FileExistsError(f"{path} is {held}: choose a folder inside it, for example {as_path(path) / 'model'}")
    return target


def _held(folder: Path) -> str:
    """Why no other folder can take the place of this one; empty if it can."""
    with suppress(FileNotFoundError):  # a working directory that is gone
        if folder in (Path.cwd(), *Path.cwd().parents):
            return "the working directory, or holds it"
    mounts = Path("/proc/self/mountinfo")  # of Linux, where a folder of the same disk may be mounted too
    listed = [line.split()[4] for line in mounts.read_text().splitlines()] if mounts.is_file() else []
    return "where a disk is mounted" if os.path.ismount(folder) or str(folder).replace(" ", r"\040") in listed else ""


def _mode(path: Path, new: int) -> int:
    """The permissions that what replaces ``path`` gets: those it has, its owner's right to write, or ``new`` ones."""
    return stat.S_IMODE(path.stat().st_mode) | new & stat.S_IRWXU if path.exists() else new


def left_behind(folder: Path) -> list[Path]:
    """The hidden folders beside a folder that processes left which were killed as they wrote it."""
    ours = re.compile(rf"\.{re.escape(folder.name)}-[0-9a-f]{{8}}(\.old)?")
    return sorted(path for path in folder.parent.glob(".*") if ours.fullmatch(path.name) and path.is_dir())


def check_in_place(folder: Path) -> None:
    """Refuse a folder that is gone because a process was killed as it replaced it; raises a FileExistsError."""
    before = [path for path in left_behind(folder) if path.suffix == ".old"]
    if before and not folder.exists():
        cut = f"{folder} was being replaced when that was cut short, and what it held lies in {before[-1]}"
        raise FileExistsError(f"{cut}: rename that to {folder.name}")


def written(folder: Path) -> Callable[[str], Any]:
    """Says of a name in a model folder whether this package wrote it: by the list in its mark, where it has one."""
    try:
        return {MARK, *json.loads((folder / MARK).read_text(encoding="utf-8"))[LISTED]}.__contains__
    except (OSError, ValueError, LookupError, TypeError):
        return USUAL.fullmatch


def strangers(folder: Path, ours: Callable[[str], Any]) -> list[str]:
    """The names of all files and links in a folder, and in those inside it, that are not ours."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(name for name in (path.relative_to(folder).as_posix() for path in found) if not ours(name))


def remove(folder: Path, ours: Callable[[str], Any]) -> list[str]:
    """Delete what is ours in a folder, and the folder unless something is left; returns the names of what is."""
    if not folder.is_dir():
        return []
    kept = strangers(folder, ours)
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder comes before the folder
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in kept:
            path.unlink()
    if not kept:
        folder.rmdir()
    return kept


def check_picture(path: str | Path) -> None:
    """Refuse a picture whose name does not say its format; raises a ValueError that names the endings there are."""
    if Path(path).suffix.lower() not in PICTURES:
        raise ValueError(f"{path} is no name of a picture: it must end in one of {', '.join(PICTURES)}")


def _followed(path: str | Path) -> Path:
    """``path`` with its links followed: asked before a write and before its result is put in place."""
    check_not_stopped()
    target = Path(os.path.realpath(as_path(path)))
    if as_path(path).is_symlink() and not target.exists():
        raise FileExistsError(f"{path} is a link to {target}, which does not exist: choose another name")
    if not (above := next(parent for parent in target.parents if parent.exists())).is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {above} is a file, not a folder")
    return target


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep every other process that uses this function from writing ``path`` meanwhile.

    The lock is the system's own on a hidden file beside it, so that it ends with the process that holds it.

    Raises:
        FileExistsError: at once, if another process holds it.
        NotADirectoryError: if a folder of its path is a file.
    """
    path = _followed(path)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        os.close(os.open(lock.lock_file, os.O_CREAT | os.O_WRONLY, 0o644))
        lock.acquire(blocking=False)
    except Timeout:
        raise FileExistsError(f"{path} is being written by another process: wait for it, or choose another") from None
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # those that hold something now stay
            for parent in made:
                parent.rmdir()


@contextmanager
def atomic_file(path: str | Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on failure nothing is left.

    Raises:
        FileExistsError: as `check_file`, before and after the work: what appears meanwhile is not replaced either.
    """
    target = check_file(path, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")  # which nothing has yet
    try:  # from before it is made: an interrupt may come at any line
        os.close(os.open(work, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        os.chmod(work, _mode(target, 0o644))
        yield work
        check_file(path, overwrite)
        (os.replace if overwrite else _publish)(work, target)
    finally:
        work.unlink(missing_ok=True)


def _publish(work: Path, target: Path) -> None:
    """Give a finished file its name unless that is taken by now."""
    try:
        os.link(work, target)
    except FileExistsError:
        raise FileExistsError(f"{target} appeared meanwhile and was left as it is: choose another name") from None
    except OSError:  # a file system without hard links
        os.replace(work, target)


@contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new empty folder beside ``path``; on success it becomes ``path``, on failure nothing is left.

    Raises:
        FileExistsError: as `check_folder` and `locked`, before any work is done.
    """
    target = check_folder(path, overwrite)
    with locked(target):
        work = target.with_name(f".{target.name}-{secrets.token_hex(4)}")  # which nothing has yet
        old = Path(f"{work}.old")
        try:  # from before it is made: an interrupt may come at any line
            work.mkdir()
            work.chmod(_mode(target, 0o755))
            yield work
            _list_files(work)
            check_folder(path, overwrite)
            if target.exists():
                os.replace(target, old)
            os.replace(work, target)
        finally:
            if old.exists() and not target.exists():
                os.replace(old, target)
            shutil.rmtree(work, ignore_errors=True)
            for remains in left_behind(target) if target.exists() else ():
                _clear(remains, target)


def _clear(remains: Path, target: Path) -> None:
    """Take away what is ours of a folder that was replaced or never finished; what is not gets a name to be seen by."""
    if remove(remains, written(remains)) and remains.suffix == ".old":
        seen = fresh_folder(target)
        os.replace(remains, seen)
        log.warning("what twodmse did not write into %s was kept: it is in %s", target, seen)


def _list_files(folder: Path) -> None:
    """Write into a folder's mark, if it has one, what else lies in the folder: all of it is ours."""
    mark = folder / MARK
    if mark.is_file():
        said = json.loads(mark.read_text(encoding="utf-8")) | {LISTED: strangers(folder, {MARK}.__contains__)}
        mark.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def fresh_folder(path: str | Path) -> Path:
    """``path`` if it is free, else the first of ``path-2``, ``path-3``, ... that is."""
    path = as_path(path)
    names = (path if k == 1 else path.with_name(f"{path.name}-{k}") for k in itertools.count(1))
    return next(name for name in names if not name.exists() or (name.is_dir() and not any(name.iterdir())))


def write_table(table: "pd.DataFrame", path: Path, overwrite: bool = True) -> None:
    """Write a table as CSV, whole or not at all; no text of it is read as a formula by a spreadsheet."""
    texts = table.select_dtypes(include=["object", "string", "category"])
    safe = table.assign(**{str(name): [no_formula(value) for value in texts[name]] for name in texts})
    with atomic_file(path, overwrite) as work:
        safe.to_csv(work, index=False)


def no_formula(value: Any) -> Any:
    """A cell's text with an apostrophe before what spreadsheets would run (OWASP, "CSV Injection")."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def write_figure(figure: "Figure", path: Path, overwrite: bool = True) -> None:
    """Write a figure, whole or not at all, and let go of it."""
    from matplotlib import pyplot as plt

    check_picture(path)
    with atomic_file(path, overwrite) as work:
        as_written(figure).savefig(work, dpi=150)
    plt.close(figure)


def as_written(figure: "Figure") -> "Figure":
    """The figure with its texts shown as they are written: a $ in somebody's name or sentence begins no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure
