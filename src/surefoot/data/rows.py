"""Rows of a file, one after another and never all at once: parquet, CSV, JSON lines, plain lines.

What is not UTF-8 is handed on as such, since who reads a corpus of millions wants every bad row named, not the first.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.data.read import MOST_BYTES
from surefoot.data.table import check_names
from surefoot.errors import DataError

#: Rows of parquet that are in memory at once.
BATCH = 8192


@dataclass(frozen=True)
class Undecodable:
    """Bytes that are no UTF-8: a cell's, or a whole line's."""

    raw: bytes


#: A row's values by column.
Row = Mapping[str, Any]


def check_file(path: Path) -> None:
    """Raises DataError for a file that is missing, empty, or of an ending that is not read."""
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file in it ({', '.join(_READERS)})")
    if not path.exists():
        raise DataError(f"{path}: no such file; check the name")
    if suffix not in _READERS:
        raise DataError(f"{path}: the ending `{suffix}` is not known; save it as {', '.join(_READERS)}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty; it must hold at least one row")


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row | Undecodable]:
    """Every row, in order: values by column, with `Undecodable` for a cell that is no UTF-8, or for a whole line of JSON.

    columns: those that are read; None, the default, for all. A line of text is {"text": line}.
    Raises DataError, with the line, for what is malformed otherwise.
    """
    return _READERS[path.suffix.lower()](path, columns)


def column_names(path: Path) -> list[str]:
    """The columns of a file; those of its first row where each row names its own."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _checked(list(_parquet_file(path).schema_arrow.names), path)
    if suffix in _DELIMITERS:
        with _csv_reader(path) as reader:
            return _checked(next(reader, []), path)
    first = next((row for row in read_rows(path) if not isinstance(row, Undecodable)), None)
    if first is None:
        raise DataError(f"{path}: no row that is UTF-8; add some, or convert it")
    return list(first)


def count_rows(path: Path) -> int:
    """How many there are, for progress: 0 where that would take a reading of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        return 0
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return 0  # the reading says what is wrong with it


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from None


def _not_whole(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:160]
    return DataError(f"{path}: not a whole parquet file ({reason}); copy or write it again")


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    import pyarrow as pa

    file = _parquet_file(path)
    every = _checked(list(file.schema_arrow.names), path)
    names = every if columns is None else list(dict.fromkeys(columns))
    try:
        for batch in file.iter_batches(batch_size=BATCH, columns=names):
            for values in zip(*(_values(batch.column(name)) for name in names), strict=True):
                yield dict(zip(names, values, strict=True))
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from None


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        return [_decoded(each) for each in column.cast(binary).to_pylist()]


def _text_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            raw = line.rstrip(b"\r\n")
            yield {"text": _decoded(raw.removeprefix(b"\xef\xbb\xbf") if number == 0 else raw)}


def _json_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row | Undecodable]:
    # Only "\n" ends a line of JSONL, which is how bytes are split: text would also split at U+2028 inside a string.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield Undecodable(line)
                continue
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number:,}: not JSON ({str(error)[:80]}); mend or remove it") from None
            if not isinstance(row, dict):
                raise DataError(f'{path}, line {number:,}: not an object, such as {{"id": 1, "text": "..."}}')
            yield row


@contextmanager
def _csv_reader(path: Path) -> Iterator[Any]:
    """Bytes that are no UTF-8 come through as lone surrogates, so that the row they stand in can be named."""
    limit = csv.field_size_limit(MOST_BYTES)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=_DELIMITERS[path.suffix.lower()], strict=True)
        try:
            yield reader
        except csv.Error as error:
            what = f"{error}; is a quotation mark missing or not doubled?"
            raise DataError(f"{path}, line {reader.line_num:,}: {what}") from None
        finally:
            csv.field_size_limit(limit)


def _separated_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    with _csv_reader(path) as reader:
        names = _checked(next(reader, []), path)
        wanted = [(name, place) for place, name in enumerate(names) if columns is None or name in columns]
        for row, cells in enumerate(filter(None, reader), start=1):
            if len(cells) != len(names):
                mend = f"quote cells that hold {_DELIMITERS[path.suffix.lower()]!r}"
                problem = f"{len(cells)} cells where the header has {len(names)}; {mend}"
                raise DataError(f"{path}, row {row:,} (line {reader.line_num:,}): {problem}")
            yield {name: _escaped(cells[place]) for name, place in wanted}


def _checked(names: list[str], path: Path) -> list[str]:
    """The columns; DataError for a name that is no UTF-8, or stands twice."""
    if any(isinstance(_escaped(name), Undecodable) for name in names):
        mend = f"convert it, for example `iconv -f LATIN1 -t UTF-8 {path.name}`"
        raise DataError(f"{path}: a column's name is not UTF-8; {mend}")
    check_names(names, source=str(path))
    return names


def _decoded(raw: bytes | None) -> Any:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return Undecodable(raw or b"")


def _escaped(cell: str) -> Any:
    return cell if cell.isascii() else _decoded(cell.encode("utf-8", errors="surrogateescape"))


_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_READERS = {
    ".parquet": _parquet_rows,
    ".csv": _separated_rows,
    ".tsv": _separated_rows,
    ".jsonl": _json_rows,
    ".txt": _text_rows,
}
