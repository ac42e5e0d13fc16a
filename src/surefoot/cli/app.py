"""The `surefoot` command: what is common to its commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="surefoot",
    help="Adapt pretrained models so that they keep their footing when the data shifts.\n\nStart with `surefoot demo`: four ways to fine-tune, on real reviews, tested on four domains.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        from surefoot import __version__

        typer.echo(f"surefoot {__version__}")
        raise typer.Exit


@app.callback()
def common(
    offline: Annotated[
        bool, typer.Option("--offline", help="Make no network connection at all: use what is cached or local.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if offline:
        os.environ["SUREFOOT_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def command(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command whose errors are one sentence on standard error, with exit status 2."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @app.command(name)
        @wraps(function)
        def guarded(*args: Any, **options: Any) -> Any:
            from surefoot.errors import SurefootError

            try:
                return function(*args, **options)
            except SurefootError as error:
                print(f"surefoot: {error}", file=sys.stderr)
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                print(
                    "surefoot: stopped; what `tune` had done is kept, and the same command goes on from there",
                    file=sys.stderr,
                )
                raise typer.Exit(130) from None

        return guarded

    return register


def load_commands() -> None:
    """Import every command, which registers it."""
    from surefoot.cli import (  # noqa: F401
        adapt,
        bench,
        calibrate,
        certify,
        compare,
        compass,
        compress,
        conformal,
        demo,
        doctor,
        embed,
        ensemble,
        estimate,
        evaluate,
        lr_range,
        merge,
        methods,
        novelty,
        pairs,
        reject,
        report,
        tune,
        words,
    )


def run() -> None:
    """Load the commands and run the one that was asked for."""
    load_commands()
    try:
        app()
    except BrokenPipeError:
        # `surefoot methods | head` closes the pipe early; that is not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
