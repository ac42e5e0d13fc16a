"""Files and in-memory tables become a `Table`; what is malformed is named by row and line."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.data.table import Table, check_names
from surefoot.errors import DataError, nearest

#: A line or cell above this many bytes is a mistake (a missing line end, a file inside a cell), not an example.
MOST_BYTES = 10_000_000


def read_file(path: Path) -> Table:
    """Read .parquet, .csv, .tsv, .jsonl or .json (a list of objects)."""
    try:
        table = _read(path)
    except PermissionError:
        raise DataError(f"{path}: no permission to read it; run `chmod +r` on it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{str(path)[:200]!r}: cannot be read ({reason}); check the name") from None
    if not len(table):
        header = ", ".join(f"`{name}`" for name in table.columns)
        raise DataError(f"{path}: no rows" + (f", only the header {header}" if header else "") + "; add examples")
    return table


def _read(path: Path) -> Table:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file in it (.parquet, .csv, .tsv, .jsonl or .json)")
    if not path.exists():
        raise DataError(f"{path}: no such file{_sibling(path)}")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        kind = f"the ending `{suffix}`" if suffix else "a name without an ending"
        raise DataError(f"{path}: {kind} is not known; save it as {', '.join(_READERS)}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty; it must hold at least one row")
    return _READERS[suffix](path)


def _sibling(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    hint = nearest(path.name, [each.name for each in path.parent.iterdir()][:1000])
    return f"; {hint}" if hint.startswith("did") else f" in {path.parent.resolve()}"


def _text_of(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        guess = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
        mend = f"convert it, for example `iconv -f {guess} -t UTF-8 {path.name}`"
        raise DataError(f"{path}, line {line}: not UTF-8 at byte {error.start}; {mend}") from None


def _separated(path: Path) -> Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    records = _records(path, _text_of(path), delimiter)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path}: the file holds only blank lines; it must have a header and at least one row")
    names = first[1]
    check_names(names, source=str(path))
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, cells in records:
        if len(cells) != len(names):
            problem = f"{len(cells)} cells where the header has {len(names)}; quote cells that hold {delimiter!r}"
            raise DataError(f"{path}, row {len(rows) + 1} (line {line}): {problem}")
        rows.append(cells)
        lines.append(line)
    columns: dict[str, Sequence[Any]] = dict.fromkeys(names, ())
    if rows:
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return Table(columns, str(path), path.parent, lines)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every record that is not blank; `line` is where it starts, since cells may hold line ends."""
    limit = csv.field_size_limit(MOST_BYTES)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        row = 0
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                what = "a cell over 10 MB" if "field limit" in str(error) else str(error)
                raise DataError(
                    f"{path}, row {max(row, 1)} (line {line}): {what}; is a quotation mark missing or not doubled?"
                ) from None
            if cells:
                yield line, cells
                row += 1
    finally:
        csv.field_size_limit(limit)


def _json_lines(path: Path) -> Table:
    rows, lines = [], []
    # Only "\n" ends a line of JSONL: str.splitlines would also split at U+2028 inside a string.
    for line, text in enumerate(_text_of(path).split("\n"), start=1):
        if not text.strip():
            continue
        if len(text) > MOST_BYTES:
            raise DataError(f"{path}, line {line}: over 10 MB; put one example on each line")
        rows.append(_json(text, f"{path}, line {line}", first_line=line))
        lines.append(line)
    return _from_rows(rows, source=str(path), folder=path.parent, lines=lines)


def _json(text: str, where: str, *, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        at = f"column {error.colno}" if where.endswith(f"line {line}") else f"line {line}, column {error.colno}"
        raise DataError(f"{where}: not JSON at {at} ({error.msg}); mend or remove it") from None
    except (RecursionError, ValueError):
        raise DataError(
            f"{where}: JSON that is nested too deep or holds a number too long; mend or remove it"
        ) from None


def _json_list(path: Path) -> Table:
    rows = _json(_text_of(path), str(path))
    if not isinstance(rows, list):
        kind = "object" if isinstance(rows, dict) else "value"
        raise DataError(f"{path}: holds a JSON {kind}, not a list of objects; use .jsonl for one object a line")
    return _from_rows(rows, source=str(path), folder=path.parent)


def _from_rows(rows: Sequence[Any], *, source: str, folder: Path = Path(), lines: Sequence[int] | None = None) -> Table:
    names: dict[str, None] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            at = f" (line {lines[index]})" if lines else ""
            shape = 'such as {"text": ..., "label": ...}'
            raise DataError(f"{source}, row {index + 1}{at}: not an object (but {type(row).__name__}) {shape}")
        names.update(dict.fromkeys(row))
    return Table({str(name): [row.get(name) for row in rows] for name in names}, source, folder, lines)


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        check_names(names, source=str(path))
        return _from_arrow(pq.ParquetFile(path).read(), source=str(path), folder=path.parent)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a whole parquet file ({reason}); copy or write it again") from None


def _from_arrow(table: Any, *, source: str, folder: Path = Path()) -> Table:
    check_names(table.column_names, source=source)
    return Table({name: table[name].to_pylist() for name in table.column_names}, source, folder)


_READERS = {
    ".parquet": _parquet,
    ".csv": _separated,
    ".tsv": _separated,
    ".jsonl": _json_lines,
    ".json": _json_list,
}


def read_memory(source: Any) -> Table:
    """A pandas DataFrame, a pyarrow Table, a `datasets.Dataset` or a list of dicts."""
    # Nobody can hold an object of a library that was never imported: look it up, do not import it.
    if (pandas := sys.modules.get("pandas")) and isinstance(source, pandas.DataFrame):
        names = [str(name) for name in source.columns]
        check_names(names, source="DataFrame")
        columns = {name: source.iloc[:, index].tolist() for index, name in enumerate(names)}
        table = Table(columns, "DataFrame")
    elif (arrow := sys.modules.get("pyarrow")) and isinstance(source, arrow.Table):
        table = _from_arrow(source, source="Table")
    elif (hub := sys.modules.get("datasets")) and isinstance(source, hub.Dataset):
        table = _from_dataset(source, hub)
    elif isinstance(source, Sequence) and not isinstance(source, str | bytes):
        table = _from_rows(source, source="list")
    else:
        mend = "give a file, a DataFrame, a pyarrow Table, a datasets.Dataset or a list of dicts"
        if isinstance(source, Mapping):
            mend = f"choose one of its splits: {', '.join(map(str, source))}"
        raise DataError(f"data cannot be read from {type(source).__name__}; {mend}")
    if not len(table):
        raise DataError(f"{table.source}: no rows; add examples")
    return table


def _from_dataset(dataset: Any, hub: Any) -> Table:
    # The arrow format follows shuffles and selections and leaves images encoded.
    table = _from_arrow(dataset.with_format("arrow")[:], source="Dataset")
    columns = dict(table.columns)
    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, hub.ClassLabel):
            # -1 is the hub's mark for "label withheld".
            columns[name] = [
                feature.names[value] if value is not None and value >= 0 else None for value in columns[name]
            ]
    return Table(columns, "Dataset")
