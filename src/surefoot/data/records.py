"""Records of a file, one after another, as often as asked: a corpus that no memory has to hold."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.data.check import is_missing
from surefoot.data.read import MOST_BYTES
from surefoot.errors import DataError, nearest

#: Rows of parquet that are in memory at once.
ROWS = 1024


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
    """The records of a parquet, CSV, TSV or JSONL file, or of mappings in memory. Going through it reads the file anew.

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
            self._check()
        else:
            self.rows, self.source = source, "records"

    def __iter__(self) -> Iterator[Record]:
        number = -1
        rows = self.rows if self.rows is not None else _READERS[self.path.suffix.lower()](self.path)
        for number, values in enumerate(rows):
            yield Record(self._renamed(values), number, self.source)
        if number < 0:
            raise DataError(f"{self.source}: no rows; add some")

    def __len__(self) -> int:
        """How many there are, for progress: 0 where that would take a reading of its own."""
        if self.rows is not None:
            return len(self.rows)
        if self.path.suffix.lower() != ".parquet":
            return 0
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(self.path).num_rows)
        except (pa.ArrowException, OSError):
            return 0  # the reading says what is wrong with it

    def _check(self) -> None:
        path = self.path
        if not path.is_file():
            what = "is a folder; name one file in it" if path.is_dir() else "no such file; check the name"
            raise DataError(f"{path}: {what}")
        if path.suffix.lower() not in _READERS:
            raise DataError(f"{path}: the ending `{path.suffix}` is not known; save it as {', '.join(_READERS)}")
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty; it must hold at least one row")

    def _renamed(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.columns:
            return values
        for name in self.columns:
            if name not in values:
                raise DataError(f"{self.source}: no column `{name}`; {nearest(name, [str(each) for each in values])}")
        kept = {name: value for name, value in values.items() if name not in self.columns}
        return {**kept, **{role: values[name] for name, role in self.columns.items()}}


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=ROWS):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a whole parquet file ({reason}); copy or write it again") from None


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for line, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not JSON ({error}); mend or remove it") from None
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {line}: not an object such as {{"text": ...}}')
        yield row


def _separated(path: Path) -> Iterator[Mapping[str, Any]]:
    limit = csv.field_size_limit(MOST_BYTES)
    try:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        reader = csv.reader((text for _, text in _lines(path)), delimiter=delimiter, strict=True)
        names = next(reader, None)
        for cells in reader:
            if not cells:
                continue
            if names is None or len(cells) != len(names):
                problem = (
                    f"{len(cells)} cells where the header has {len(names or ())}; quote cells that hold {delimiter!r}"
                )
                raise DataError(f"{path}, line {reader.line_num}: {problem}")
            yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: {error}; is a quotation mark missing or not doubled?") from None
    finally:
        csv.field_size_limit(limit)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines by "\\n" alone, numbered from 1. Raises DataError for bytes that are not UTF-8, with the line."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                mend = f"convert it, for example `iconv -f LATIN1 -t UTF-8 {path.name}`"
                raise DataError(f"{path}, line {number}: not UTF-8; {mend}") from None


_READERS = {".parquet": _parquet, ".csv": _separated, ".tsv": _separated, ".jsonl": _json_lines}
