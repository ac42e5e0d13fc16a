"""`surefoot methods`: everything registered, with its paper."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Json
from surefoot.registry import HOMES


@command("methods")
def methods(
    kind: Annotated[
        str | None,
        typer.Option(help=f"Only one kind: {', '.join(HOMES)}."),
    ] = None,
    json: Json = False,
) -> None:
    """List the methods: name, kind, what it does, paper, and what its evidence says (`surefoot bench`)."""
    from rich.table import Table

    from surefoot.cli.show import out, print_json
    from surefoot.errors import SurefootError, nearest
    from surefoot.registry import methods as registered

    if kind is not None and kind not in HOMES:
        raise SurefootError(f"unknown kind `{kind}`: {nearest(kind, HOMES)}")
    found = registered(kind)
    if json:
        print_json([method.as_json() for method in found])
        return
    table = Table()
    for column in ("kind", "name", "what it does", "paper", "mechanism; effect"):
        table.add_column(column, no_wrap=column in ("kind", "name"))
    for method in found:
        paper = "; ".join(f"{each.authors} {each.year}" for each in method.papers)
        table.add_row(method.kind, method.name, method.summary, paper, _evidence(method.as_json()["evidence"]))
    out(table)


def _evidence(found: dict[str, Any] | None) -> str:
    """`as it should; no effect seen (reviews)`, or nothing where nothing has been measured."""
    if found is None:
        return ""
    return f"{found['mechanism']}; {found['effect']}" + (f" ({found['track']})" if found["track"] else "")
