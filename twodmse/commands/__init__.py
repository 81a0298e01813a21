"""What the commands share: how a model is named, files that must not be lost, errors of one line."""

import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from twodmse.stopping import check_not_stopped, stopped

Model = Annotated[str, typer.Argument(help="A model: 'bundled' (all-MiniLM-L6-v2), a hub id, or a folder.")]
Plugin = Annotated[
    list[str] | None,
    typer.Option(help="Module or .py file that registers recipes; repeatable. [default: none]"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".tsv", ".parquet", ".jsonl")  # kinds that no command writes a table as
HELD: ContextVar[ExitStack] = ContextVar("held")  # the locks of the command that runs


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Show an error that the user can correct as one line, with exit code 1; a bug keeps its traceback."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        quiet_libraries()
        try:
            with ExitStack() as held:
                HELD.set(held)
                command(*args, **kwargs)
                sys.stdout.flush()
                check_not_stopped()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again as it ends
            fail("the output was closed before all of it was written")
        except KeyboardInterrupt:
            fail(interrupted(command.__name__, kwargs))
        except Exception as error:
            if stopped:  # a library may turn the interrupt into an error of its own
                fail(interrupted(command.__name__, kwargs))
            if not isinstance(error, (ValueError, OSError)):
                raise
            fail(str(error))

    return guarded


def fail(message: str) -> None:
    """Say one line and end with exit code 1."""
    typer.echo(f"twodmse: {' '.join(message.split())}", err=True)
    raise typer.Exit(1) from None


def interrupted(command: str, options: dict[str, Any]) -> str:
    """What is true of a command that was stopped."""
    how = "terminated" if signal.SIGTERM in stopped else "interrupted"
    if command == "encode":
        return f"{how}; the same command goes on from what is done, kept in hidden files beside {options.get('out')}"
    if command != "train":
        return f"{how}; nothing half-written is left"
    sets = [text.partition("=")[2] for text in options.get("set_") or [] if text.startswith("out=")]
    folder = Path(options.get("out") or [*sets, "runs/train"][0])
    if any(folder.glob("checkpoint-*/complete.json")):
        return f"{how}; finished checkpoints are kept in {folder}, go on with --resume"
    return f"{how} before the first checkpoint; no step is kept"


def quiet_libraries() -> None:
    """Show our own log lines and none of the libraries'."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    logging.getLogger("twodmse").setLevel(logging.WARNING)


def refuse_existing(
    paths: Sequence[Path | None], overwrite: bool, pictures: Sequence[Path | None] = (), read: Sequence[str | Path] = ()
) -> None:
    """Refuse, before any work is done, what could not be written, and keep other processes from writing it meanwhile.

    Args:
        paths: of the files to write; None stands for one that is not wanted.
        overwrite: whether regular files there may be replaced.
        pictures: those of ``paths`` whose names must say the format of a picture.
        read: what the command reads, as `refuse_read`.

    Raises:
        FileExistsError: naming the first that may not be written (see `check_file`, `locked`).
        ValueError: if two are one file, one is read by the command, a picture's format is unknown, or a table's name
            says a format that is not written.
    """
    from twodmse.files import PICTURES, check_file, check_picture, locked

    wanted = [path for path in paths if path is not None]
    refuse_read(wanted, read)
    targets = [check_file(path, overwrite) for path in wanted]
    if len(set(targets)) < len(targets):
        raise ValueError(f"{wanted[0]} is to hold two things: give --out and --picture names of their own")
    for path in wanted:
        if path in pictures:
            check_picture(path)
        elif path.suffix.lower() in (*OTHER_TABLES, *PICTURES):
            raise ValueError(f"{path} would be written as CSV: give a name that ends in .csv")
    for target in targets:
        HELD.get().enter_context(locked(target))


def refuse_read(paths: Sequence[Path], read: Sequence[str | Path]) -> None:
    """Refuse to write over a file that the command reads, whatever may be overwritten.

    Args:
        paths: of the files to write.
        read: names and paths of what is read; a name that is no file is passed over.

    Raises:
        ValueError: naming the first.
    """
    for path in paths:
        if path.exists() and any(Path(r).exists() and path.samefile(r) for r in read):
            raise ValueError(f"{path} is read by this command: give what it writes a name of its own")


def load_plugins(names: list[str] | None) -> None:
    """Import modules by name, from here too, or by the path of a .py file; they call `register_recipe`.

    Raises:
        ValueError: for one that is not there.
    """
    for name in names or []:
        path = Path(name)
        is_code = path.suffix == ".py"
        if not is_code and path.is_file():
            raise ValueError(f"the plugin {name!r} is a file of another kind: give a module, or the path of a .py file")
        missing = f"there is no plugin {name!r}: give a module, or the path of a .py file"
        if is_code and not path.is_file():
            raise ValueError(missing)
        sys.path.insert(0, str((path.parent if is_code else Path()).resolve()))
        try:
            import_file(path) if is_code else importlib.import_module(name)
        except ModuleNotFoundError as error:
            if is_code or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ValueError(missing) from error
        finally:
            sys.path.pop(0)


def import_file(path: Path) -> None:
    """Import a .py file by its path, once, whatever other modules have its name."""
    place = str(path.resolve())
    if any(getattr(module, "__file__", None) == place for module in list(sys.modules.values())):
        return
    loader = SourceFileLoader(place, place)
    spec = cast(ModuleSpec, spec_from_file_location(place, place, loader=loader))
    sys.modules[place] = module_from_spec(spec)
    try:
        loader.exec_module(sys.modules[place])
    except BaseException:
        del sys.modules[place]
        raise
