"""Records of a file, one after another, as often as asked: a corpus that no memory has to hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.data.check import is_missing
from surefoot.data.rows import Row, Undecodable, check_file, count_rows, read_rows
from surefoot.errors import DataError, nearest


@dataclass(frozen=True)
class Record:
    """One row: `values` by column. `number`: which row it is, from 0. `source`: where it comes from, for messages."""

    values: Mapping[str, Any]
    number: int
    source: str = "records"

    def text(self, column: str) -> str:
        """The text of a column, without space around it; "" where it is empty. Raises DataError where there is no such
        column, or what it holds is no text."""
        if column not in self.values:
            known = ", ".join(f"`{name}`" for name in self.values)
            problem = f"it is not among {known}; rename one: --column NAME={column}"
            raise DataError(f"{self.source}: no column `{column}`: {problem}")
        return self.optional(column) or ""

    def optional(self, column: str) -> str | None:
        """The text of a column; None where it is absent or empty. Raises DataError for what is no text."""
        value = self.values.get(column)
        if isinstance(value, str):
            return value.strip() or None
        if value is None or is_missing(value):
            return None
        raise self.error(column, f"a {type(value).__name__} where a text belongs; write it as a string")

    def name(self, column: str) -> str | None:
        """A text or a number as a text, such as an id or a label; None where there is none."""
        value = self.values.get(column)
        if value is None or is_missing(value) or isinstance(value, list | tuple | dict):
            return None
        if isinstance(value, float) and value == round(value):
            value = int(value)
        return str(value).strip()

    def names(self, column: str) -> list[str]:
        """A list of names: a list, or a text that holds a JSON list or names parted by semicolons; [] where absent."""
        value = self.values.get(column)
        if isinstance(value, str):
            value = _listed(value)
        if value is None or (not isinstance(value, Sequence) and is_missing(value)):
            return []
        if not isinstance(value, Sequence):
            raise self.error(column, f'a {type(value).__name__} where a list belongs; write it as ["a", "b"] or a;b')
        return [str(each).strip() for each in value if str(each).strip()]

    def error(self, column: str, problem: str) -> DataError:
        """The error about a column of this row, to be raised."""
        return DataError(f"{self.source}, row {self.number + 1}, column `{column}`: {problem}")


def _listed(value: str) -> Any:
    text = value.strip()
    if text.startswith("["):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return [text]
    return text.split(";")


class Records:
    """The records of a parquet, CSV, TSV, JSONL or text file, or of mappings in memory. Going through it reads the file
    anew.

    columns: renames, {"abstract": "text"}. Raises DataError for a file that is missing, empty, of another kind or
    malformed, with its row.
    """

    def __init__(
        self, source: str | os.PathLike[str] | Sequence[Mapping[str, Any]], *, columns: Mapping[str, str] | None = None
    ) -> None:
        self.columns = dict(columns or {})
        self.rows: Sequence[Mapping[str, Any]] | None = None
        if isinstance(source, str | os.PathLike):
            self.path = Path(source).expanduser()
            self.source = str(self.path)
            check_file(self.path)
        else:
            self.rows, self.source = source, "records"

    def __iter__(self) -> Iterator[Record]:
        number = -1
        for number, row in enumerate(self.rows if self.rows is not None else read_rows(self.path)):
            yield Record(self._renamed(self._decoded(row, number)), number, self.source)
        if number < 0:
            raise DataError(f"{self.source}: no rows; add some")

    def __len__(self) -> int:
        """How many there are, for progress: 0 where that would take a reading of its own."""
        return len(self.rows) if self.rows is not None else count_rows(self.path)

    def _decoded(self, row: Row | Undecodable, number: int) -> Row:
        if isinstance(row, Undecodable) or any(isinstance(value, Undecodable) for value in row.values()):
            mend = f"convert it, for example `iconv -f LATIN1 -t UTF-8 {self.path.name}`"
            raise DataError(f"{self.source}, row {number + 1:,}: not UTF-8; {mend}")
        return row

    def _renamed(self, values: Row) -> Row:
        if not self.columns:
            return values
        for name in self.columns:
            if name not in values:
                raise DataError(f"{self.source}: no column `{name}`; {nearest(name, [str(each) for each in values])}")
        kept = {name: value for name, value in values.items() if name not in self.columns}
        return {**kept, **{role: values[name] for name, role in self.columns.items()}}
