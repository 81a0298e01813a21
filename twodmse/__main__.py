"""`python -m twodmse`, and the command `twodmse`: the command line, quiet from its first import on."""

import signal


def main() -> None:
    """Entry point of the command. Until the commands are there to clean up, Ctrl-C ends the process as it is."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from twodmse.cli import main as run

    run()


if __name__ == "__main__":
    main()
