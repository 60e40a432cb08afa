"""Runs one step of this package; experiment/cli.py has the list."""

from .experiment.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
