"""The command line: one file per command."""

from __future__ import annotations


def main() -> None:
    """Entry point of `surefoot`: a SurefootError becomes one sentence and exit status 2."""
    from surefoot.cli.app import run

    run()
