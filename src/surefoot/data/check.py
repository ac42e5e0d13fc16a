"""Column by column: what a value must be, and the sentence for each one that is not."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from surefoot.data.examples import Examples
from surefoot.data.table import Table
from surefoot.errors import DataError

#: A longer text is a document by mistake: an encoder reads a few hundred words.
MOST_CHARACTERS = 1_000_000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)


def is_missing(value: Any) -> bool:
    """None, NaN, pandas' NA and NaT, and text that is empty, blank or "nan"."""
    if isinstance(value, str):
        return not value.strip() or value.strip().lower() == "nan"
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA is neither true nor false; arrays have no single truth
        return type(value).__name__ == "NAType"


def check_texts(table: Table, column: str) -> list[str]:
    """Strings that hold something, can be encoded, and are at most 1 MB."""
    texts = list(table.columns[column])
    empty = [row for row, text in enumerate(texts) if (not text.strip() if isinstance(text, str) else is_missing(text))]
    if empty:
        more = f" (and {len(empty) - 1} more such rows)" if len(empty) > 1 else ""
        raise table.error(empty[0], column, f"the text is empty{more}; fill or remove it")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise table.error(
                row, column, f"{_shown(text)} is not text (but {type(text).__name__}); write it as a string"
            )
        if len(text) > MOST_CHARACTERS:
            raise table.error(row, column, f"a text of {len(text):,} characters; the most is 1 MB, so split or cut it")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise table.error(row, column, "half of a surrogate pair, which UTF-8 cannot hold; remove it") from None
    return texts


def check_features(table: Table, column: str) -> np.ndarray:
    """(N, F) float32: every cell a list of F finite numbers."""
    rows: list[np.ndarray] = []
    for row, cell in enumerate(table.columns[column]):
        try:
            vector = np.asarray(_listed(cell), dtype=np.float32)
        except (TypeError, ValueError):
            raise table.error(row, column, f"{_shown(cell)} is not a list of numbers") from None
        if vector.ndim != 1 or not len(vector):
            raise table.error(row, column, f"{_shown(cell)} is not a flat list of numbers; write it as [0.1, 0.2]")
        if rows and len(vector) != len(rows[0]):
            raise table.error(row, column, f"{len(vector)} numbers where row 1 has {len(rows[0])}; make them equal")
        if not np.isfinite(vector).all():
            raise table.error(
                row, column, f"NaN or infinity at position {int(np.argmin(np.isfinite(vector))) + 1}; fill it"
            )
        rows.append(vector)
    return np.stack(rows)


def _listed(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    return [float(part) for part in cell.strip().strip("[]").replace(",", " ").split()]


def check_labels(table: Table, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N,) int64 and the class names: in numeric order if all are integers, else sorted.

    Numbers and text are the same to us: 1, "1" and 1.0 are the class "1". A column of numbers that are not all whole
    is refused: it looks like a score.
    """
    values = table.columns[column]
    empty = [row for row, value in enumerate(values) if is_missing(value)]
    if empty:
        more = f" (and {len(empty) - 1} more such rows)" if len(empty) > 1 else ""
        raise table.error(empty[0], column, f"the label is missing{more}; fill or remove the row")
    written = [value.strip() if isinstance(value, str) else value for value in values]
    # One column, one meaning: only if every text is a number are the texts read as numbers.
    numeric = all(_NUMBER.fullmatch(value) for value in {value for value in written if isinstance(value, str)})
    names = [_class_name(table, row, column, value, numeric) for row, value in enumerate(written)]
    classes = tuple(order_classes(set(names)))
    place = {name: index for index, name in enumerate(classes)}
    return np.array([place[name] for name in names], dtype=np.int64), classes


def _class_name(table: Table, row: int, column: str, value: Any, numeric: bool) -> str:
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, str) and (not numeric or _INTEGER.fullmatch(value)):
        return value
    if not isinstance(value, str | numbers.Real):
        raise table.error(
            row, column, f"{_shown(value)} is not a class (but {type(value).__name__}); write text or a whole number"
        )
    number = float(value)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if not math.isfinite(number) or number != round(number):
        raise table.error(
            row, column, f"{value} looks like a score, not a class; bin it into classes or name another column"
        )
    return str(round(number))


def order_classes(names: Sequence[str] | set[str]) -> list[str]:
    """Numeric order if all are integers, else alphabetical.

    >>> order_classes({"10", "9"}), order_classes({"b", "10", "a"})
    (['9', '10'], ['10', 'a', 'b'])
    """
    if all(_INTEGER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def check_names_column(table: Table, column: str, *, unique: bool = False) -> np.ndarray:
    """(N,) strings, none missing; `unique` for ids."""
    names: list[str] = []
    rows: dict[str, int] = {}
    for row, value in enumerate(table.columns[column]):
        if is_missing(value):
            raise table.error(row, column, f"the {column} is missing; fill it or drop the column")
        if isinstance(value, float | np.floating) and value == round(float(value)):
            value = int(value)  # pandas turns a column of integers with one gap into floats
        name = str(value).strip()
        if unique and name in rows:
            raise table.error(
                row, column, f"the id `{_shown(name)}` was already used in row {rows[name] + 1}; ids must differ"
            )
        rows[name] = row
        names.append(name)
    return np.array(names, dtype=np.str_)


def check_weights(table: Table, column: str) -> np.ndarray:
    """(N,) float64, finite, none negative, not all zero."""
    weights = []
    for row, value in enumerate(table.columns[column]):
        try:
            weight = float("nan") if is_missing(value) else float(value)
        except (TypeError, ValueError):
            raise table.error(row, column, f"{_shown(value)} is not a number") from None
        if not math.isfinite(weight) or weight < 0:
            what = "missing" if is_missing(value) else str(weight)
            raise table.error(row, column, f"the weight is {what}; a weight is a finite number, zero or more")
        weights.append(weight)
    if not any(weights):
        raise DataError(f"{table.source}, column `{column}`: every weight is zero; at least one must be positive")
    return np.array(weights)


def check_training(examples: Examples) -> None:
    """Raise DataError unless these examples can train a classifier: labelled, of at least two classes."""
    if examples.labels is None:
        hint = "add a column `label`, or name it with columns={'NAME': 'label'}"
        raise DataError(f"{examples.source}: training needs labels; {hint}")
    present = np.unique(examples.labels)
    if len(present) < 2:
        name = examples.classes[present[0]] if len(present) else "none"
        raise DataError(
            f"{examples.source}, column `label`: every row has the class `{name}`; training needs at least two"
        )
    if examples.weight is not None:
        for index in present:
            if not examples.weight[examples.labels == index].any():
                raise DataError(
                    f"{examples.source}, column `weight`: the class `{examples.classes[index]}` has no weight at all"
                )


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split()) if not isinstance(value, str) else value
    return text if len(text) <= 40 else text[:37] + "..."
