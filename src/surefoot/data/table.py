"""A table in memory: named columns of Python values, and where each row came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.errors import DataError, nearest

#: What a column can be to surefoot.
ROLES = (
    *("text", "image", "features", "label", "domain", "group", "document", "weight", "id", "answer", "entities"),
    *("anchor", "positive", "negative", "score"),
)
INPUTS = ("text", "image", "features", "anchor")
#: The columns of a file of rated pairs, and what they are to surefoot.
RATED = {"sentence1": "anchor", "sentence2": "positive"}


@dataclass(frozen=True)
class Table:
    """`columns`: name -> N values. `lines`: the file's line on which each row starts, for formats made of lines."""

    columns: dict[str, Sequence[Any]]
    source: str
    folder: Path = Path()
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def where(self, row: int, column: str | None = None) -> str:
        """The beginning of a message about row `row` (counted from 0 here, from 1 in the message)."""
        line = f" (line {self.lines[row]})" if self.lines is not None else ""
        return f"{self.source}, row {row + 1}{line}" + (f", column `{column}`" if column else "")

    def error(self, row: int, column: str, problem: str) -> DataError:
        """The error for one cell, to be raised."""
        return DataError(f"{self.where(row, column)}: {problem}")


def check_names(names: Sequence[str], *, source: str) -> None:
    """Every column needs a name of its own."""
    seen = set()
    for name in names:
        if name in seen:
            raise DataError(f"{source}: two columns are named `{name}`; rename or drop one of them")
        seen.add(name)


def rename(table: Table, columns: Mapping[str, str]) -> Table:
    """Give columns their roles: `{"intent": "label"}`. A column that already had the role's name gives way."""
    for name, role in columns.items():
        if role not in ROLES:
            raise DataError(
                f"`{role}` (for the column `{name}`) is not something a column can be; {nearest(role, ROLES)}"
            )
        if name not in table.columns:
            raise DataError(f"{table.source}: no column `{name}`; {nearest(name, table.columns)}")
    check_names(list(columns.values()), source=f"{table.source}, columns {dict(columns)}")
    kept = {name: values for name, values in table.columns.items() if name not in columns}
    given = {role: table.columns[name] for name, role in columns.items()}
    return Table({**kept, **given}, table.source, table.folder, table.lines)


def rated(table: Table) -> Table:
    """`sentence1` and `sentence2` as anchor and positive, where the table has them and nothing else to read."""
    own = table.columns
    if not set(RATED) <= set(own) or set(INPUTS) & set(own):
        return table
    return rename(table, RATED)


def input_column(table: Table, columns: Mapping[str, str]) -> str:
    """Which of `text`, `image`, `features` this table has; exactly one, unless `columns` names it. Else `anchor`."""
    chosen = [role for role in columns.values() if role in INPUTS]
    present = chosen or [role for role in INPUTS if role in table.columns]
    if len(present) > 1 and not chosen:
        present = [role for role in present if role != "anchor"]
    if len(present) == 1:
        return present[0]
    if present:
        both = " and ".join(f"`{name}`" for name in present)
        raise DataError(
            f"{table.source}: columns {both} are both there; say which is the input, such as columns={{'text': 'text'}}"
        )
    raise DataError(
        missing_column(
            table, "text", "one of `text`, `image` or `features` must hold the input, or `anchor` and `positive` pairs"
        )
    )


def missing_column(table: Table, role: str, why: str) -> str:
    """The sentence for a column that is not there: what is, and what comes nearest."""
    names = list(table.columns)
    shown = ", ".join(f"`{name}`" for name in names[:12]) + (", ..." if len(names) > 12 else "")
    hint = nearest(role, names)
    guess = f"; {hint}" if hint.startswith("did") else ""
    separators = {";": "semicolons", "\t": "tabs", "|": "bars"}
    found = [word for mark, word in separators.items() if len(names) == 1 and mark in names[0]]
    if found:
        guess = f"; it seems to be separated by {found[0]}: save it with commas"
    rename_hint = f"rename one, or pass columns={{'NAME': '{role}'}} (--column NAME={role})"
    return f"{table.source}: no column `{role}` ({why}) among {shown}{guess}; {rename_hint}"
