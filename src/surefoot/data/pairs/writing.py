"""Pairs into a file, as they are made."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.records import Record
from surefoot.errors import DataError
from surefoot.files import atomic_write

#: Pairs that are in memory at once.
ROWS = 1024
ENDINGS = (".parquet", ".jsonl", ".csv")

Write = Callable[[list[dict[str, Any]]], object]


def write_pairs(
    maker: PairMaker, records: Iterable[Record], path: Path, *, seed: int = 0, most: int | None = None
) -> tuple[int, list[Pair]]:
    """Write the pairs that `maker` makes of `records`, at most `most` of them; gives how many, and the first three.

    path: .parquet, .jsonl or .csv, with the columns that the maker gives. Written whole or not at all. Raises DataError
    for another ending, and what the maker raises; RunError where the file cannot be written.
    """
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path}: the ending `{path.suffix}` is not known; write to {', '.join(ENDINGS)}")
    made = islice(maker(records, seed=seed), most)
    rows = list(islice(made, ROWS))  # the first ones before anything is written: most mistakes show by then
    count, shown = 0, rows[:3]
    with atomic_write(path) as partial, _writer(partial, path.suffix.lower(), maker.gives) as write:
        while rows:
            write([{name: getattr(pair, name) for name in maker.gives} for pair in rows])
            count += len(rows)
            rows = list(islice(made, ROWS))
    return count, shown


@contextmanager
def _writer(path: Path, ending: str, columns: tuple[str, ...]) -> Iterator[Write]:
    if ending == ".parquet":
        with _parquet(path, columns) as write:
            yield write
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if ending == ".jsonl":
            yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            yield table.writerows


@contextmanager
def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: Mapping[str, Any] = {"score": pa.float64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    with pq.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))
