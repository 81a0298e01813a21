"""`python -m twodmse` is the command line."""

from twodmse.cli import main

if __name__ == "__main__":
    main()
