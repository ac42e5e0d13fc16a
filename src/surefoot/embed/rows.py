"""Rows of a file, one batch at a time: parquet, CSV, JSON lines, plain lines. What is not UTF-8 is handed on as such."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.data.read import MOST_BYTES
from surefoot.errors import DataError, nearest

#: Rows that a reader holds at once.
BATCH = 8192
_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".txt")

Row = tuple[Any, Any]


@dataclass(frozen=True)
class Undecodable:
    """Bytes that are no UTF-8."""

    raw: bytes


def find_columns(path: Path, columns: Mapping[str, str]) -> tuple[str, str | None]:
    """The names of the columns of text and id in the file."""
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file in it ({', '.join(_ENDINGS)})")
    if not path.exists():
        raise DataError(f"{path}: no such file; check the name")
    if suffix not in _ENDINGS:
        raise DataError(f"{path}: the ending `{suffix}` is not known; save it as {', '.join(_ENDINGS)}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty; it must hold at least one text")
    wrong = [role for role in columns.values() if role not in ("text", "id")]
    if wrong:
        raise DataError(f"`{wrong[0]}` is no column of a corpus; {nearest(wrong[0], ('text', 'id'))}")
    if suffix == ".txt":
        if columns:
            raise DataError(f"{path}: a text file has no columns: leave --column out")
        return "text", None
    names = _names(path)
    for name in columns:
        if name not in names:
            raise DataError(f"{path}: no column `{name}`; {nearest(name, names)}")
    by_role = {role: name for name, role in columns.items()}
    column = by_role.get("text", "text")
    if column not in names:
        shown = ", ".join(f"`{name}`" for name in names[:12])
        raise DataError(
            f"{path}: no column `text` among {shown}; name the one that holds the texts: --column NAME=text"
        )
    return column, by_role.get("id", "id" if "id" in names else None)


def _names(path: Path) -> list[str]:
    if path.suffix.lower() == ".parquet":
        return list(_parquet_file(path).schema_arrow.names)
    with path.open("rb") as file:
        if path.suffix.lower() == ".jsonl":
            for number, line in enumerate(file, start=1):
                if line.strip():
                    return list(_object(line, path, number))
            raise DataError(f"{path}: no rows; add texts")
        line = file.readline(MOST_BYTES)
    decoded = line.decode("utf-8-sig", errors="replace")
    return next(csv.reader([decoded], delimiter=_delimiter(path)), [])


def read_rows(path: Path, column: str, key: str | None) -> Iterator[Row]:
    """(id, text) of every row, in order, with `Undecodable` for what is no UTF-8."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path, column, key)
    if suffix == ".jsonl":
        return _json_rows(path, column, key)
    return _line_rows(path) if suffix == ".txt" else _csv_rows(path, column, key)


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a whole parquet file ({reason}); copy or write it again") from None


def _parquet_rows(path: Path, column: str, key: str | None) -> Iterator[Row]:
    import pyarrow as pa

    names = [column] if key is None or key == column else [column, key]
    try:
        for batch in _parquet_file(path).iter_batches(batch_size=BATCH, columns=names):
            texts = _values(batch.column(names.index(column)))
            keys = _values(batch.column(names.index(key))) if key is not None else [None] * len(texts)
            yield from zip(keys, texts, strict=True)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{path}: the parquet file cannot be read to its end ({reason}); copy or write it again"
        ) from None


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        return [_decoded(each) for each in column.cast(binary).to_pylist()]


def _decoded(raw: bytes | None) -> Any:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return Undecodable(raw or b"")


def _line_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            raw = line.rstrip(b"\r\n")
            yield None, _decoded(raw.removeprefix(b"\xef\xbb\xbf") if number == 0 else raw)


def _json_rows(path: Path, column: str, key: str | None) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = _object(line, path, number)
            except UnicodeDecodeError:
                yield key and "", Undecodable(line)
                continue
            yield (row.get(key) if key is not None else None), row.get(column)


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number:,}: not JSON ({str(error)[:80]}); mend or remove it") from None
    if not isinstance(row, dict):
        raise DataError(f'{path}, line {number:,}: not an object, such as {{"id": 1, "text": "..."}}')
    return row


def _csv_rows(path: Path, column: str, key: str | None) -> Iterator[Row]:
    limit = csv.field_size_limit(MOST_BYTES)
    try:
        # Bytes that are no UTF-8 come through as lone surrogates, so that the row they stand in can be named.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=_delimiter(path), strict=True)
            names = next(reader)
            text, name = names.index(column), names.index(key) if key is not None else None
            for row, cells in enumerate(filter(None, reader), start=1):
                if len(cells) != len(names):
                    raise DataError(
                        f"{path}, row {row:,} (line {reader.line_num:,}): {len(cells)} cells where the header has {len(names)}; quote cells that hold {_delimiter(path)!r}"
                    )
                yield (_escaped(cells[name]) if name is not None else None), _escaped(cells[text])
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num:,}: {error}; is a quotation mark missing or not doubled?"
        ) from None
    finally:
        csv.field_size_limit(limit)


def _escaped(cell: str) -> Any:
    if cell.isascii():
        return cell
    return _decoded(cell.encode("utf-8", errors="surrogateescape"))


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","
