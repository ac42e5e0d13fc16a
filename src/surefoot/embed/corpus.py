"""Corpora larger than memory: read once to be sure of every row, then again window by window."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.data.rows import Undecodable, check_file, column_names, read_rows
from surefoot.errors import DataError, nearest

#: How many row numbers an error names.
_SHOWN = 8


@dataclass(frozen=True)
class Corpus:
    """A file of texts with their ids. column, key: of the text and of the id; key None: the row's place, from 0."""

    path: Path
    column: str
    key: str | None
    #: Rows that cannot be embedded, counted from 0: left out, where the caller asked for that.
    skipped: frozenset[int] = frozenset()
    rows: int = 0
    fingerprint: str = ""

    def windows(self, size: int, *, wanted: Callable[[int], bool] = lambda number: True) -> Iterator[Window]:
        """Windows of `size` rows, in order; those whose number is not `wanted` are passed over."""
        ids: list[Any] = []
        texts: list[str] = []
        number, first = 0, 0
        for place, (key, text) in enumerate(_texts(self.path, self.column, self.key)):
            if place in self.skipped:
                continue
            if wanted(number):
                ids.append(place if self.key is None else key)
                texts.append(text)
            first += 1
            if first == size:
                if ids:
                    yield Window(number, ids, texts)
                ids, texts, number, first = [], [], number + 1, 0
        if ids:
            yield Window(number, ids, texts)


@dataclass(frozen=True)
class Window:
    """Rows that are embedded together and become one shard."""

    number: int
    ids: list[Any]
    texts: list[str]


@dataclass
class Problems:
    """Rows with one thing wrong, by what is wrong."""

    rows: dict[str, list[int]] = field(default_factory=dict)

    def add(self, what: str, row: int) -> None:
        self.rows.setdefault(what, []).append(row)

    def sentence(self, path: Path) -> str:
        """The first kind of problem, with row numbers from 1, and how many rows have others."""
        what, rows = next(iter(self.rows.items()))
        shown = ", ".join(f"{row + 1:,}" for row in rows[:_SHOWN])
        more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
        others = [f"{len(each):,} {name}" for name, each in list(self.rows.items())[1:]]
        also = f" (also {', '.join(others)})" if others else ""
        return f"{path}, row{'s' * (len(rows) > 1)} {shown}{more}: {what}{also}; mend or remove them, or leave them out with --skip-invalid"


def open_corpus(path: str | Path, *, columns: Mapping[str, str] | None = None, skip_invalid: bool = False) -> Corpus:
    """Look at every row, then give the corpus.

    path: .parquet, .csv, .tsv or .jsonl with a column `text` and, if there, `id`; .txt with one text a line.
    columns: {"body": "text", "key": "id"} renames. skip_invalid: leave out what cannot be embedded instead of refusing it.
    Memory does not grow with the texts: 8 bytes a row are kept, to find ids that stand twice.

    Raises DataError with row numbers for texts that are empty, no strings or not UTF-8; with both rows for an id that
    stands twice (never skipped: nobody could say which row it names); and for a file that is no such table.
    """
    path = Path(path).expanduser()
    column, key = _find_columns(path, columns or {})
    problems, seen, digest = Problems(), array("q"), hashlib.blake2b(digest_size=16)
    count = 0
    for place, (name, text) in enumerate(_texts(path, column, key)):
        count += 1
        wrong = _wrong(text)
        if wrong is None and key is not None and (name is None or name == "" or isinstance(name, Undecodable)):
            wrong = "the id is missing or not UTF-8"
        if wrong is not None:
            problems.add(wrong, place)
            continue
        digest.update(f"{name!r}\0{len(text)}\0".encode())
        digest.update(text.encode())
        if key is not None:
            seen.append(hash(str(name)))
    if not count:
        raise DataError(f"{path}: no rows; add texts")
    if problems.rows and not skip_invalid:
        raise DataError(problems.sentence(path))
    skipped = frozenset(row for rows in problems.rows.values() for row in rows)
    if len(skipped) == count:
        raise DataError(f"{path}: none of its {count:,} rows holds a text that can be embedded")
    if key is not None:
        _refuse_duplicates(path, column, key, np.frombuffer(seen, dtype=np.int64), skipped)
    return Corpus(path, column, key, skipped, count - len(skipped), digest.hexdigest())


def _texts(path: Path, column: str, key: str | None) -> Iterator[tuple[Any, Any]]:
    """(id, text) of every row, in order, with `Undecodable` for what is no UTF-8."""
    for row in read_rows(path, [column] if key is None else [column, key]):
        if isinstance(row, Undecodable):  # a whole line: there is no telling its id
            yield None, row
        else:
            yield (row.get(key) if key is not None else None), row.get(column)


def _find_columns(path: Path, columns: Mapping[str, str]) -> tuple[str, str | None]:
    """The names of the columns of text and id in the file."""
    check_file(path)
    wrong = [role for role in columns.values() if role not in ("text", "id")]
    if wrong:
        raise DataError(f"`{wrong[0]}` is no column of a corpus; {nearest(wrong[0], ('text', 'id'))}")
    if path.suffix.lower() == ".txt":
        if columns:
            raise DataError(f"{path}: a text file has no columns: leave --column out")
        return "text", None
    names = column_names(path)
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


def _wrong(text: Any) -> str | None:
    if isinstance(text, Undecodable):
        return "not UTF-8"
    if text is None:
        return "the text is missing"
    if not isinstance(text, str):
        return "the text is no string"
    if not text.strip():
        return "the text is empty"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "not UTF-8 (half of a surrogate pair)"
    return None


def _refuse_duplicates(path: Path, column: str, key: str, hashes: np.ndarray, skipped: frozenset[int]) -> None:
    ordered = np.sort(hashes)
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not twice:
        return
    first: dict[str, int] = {}
    for place, (name, _) in enumerate(_texts(path, column, key)):
        if place in skipped or hash(str(name)) not in twice:
            continue
        if str(name) in first:
            raise DataError(
                f"{path}, rows {first[str(name)] + 1:,} and {place + 1:,}, column `{key}`: both have the id `{str(name)[:80]}`; give each row an id of its own, or drop the column"
            )
        first[str(name)] = place
