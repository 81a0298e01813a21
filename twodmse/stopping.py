"""Being asked to stop, by Ctrl-C or SIGTERM on the command line, and not forgetting it."""

from typing import Any

stopped: list[int] = []  # the signals that asked this process to stop


def stop(number: int, _: Any) -> None:
    """End what runs as Ctrl-C does, cleaning up: the handler of SIGINT and SIGTERM."""
    stopped.append(number)
    raise KeyboardInterrupt


def check_not_stopped() -> None:
    """Raise the KeyboardInterrupt once more if a library swallowed it: nothing is put in place after it."""
    if stopped:
        raise KeyboardInterrupt
