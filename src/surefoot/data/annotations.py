"""Columns that say more of a text than its class: what should follow it, which of its characters are entities, what
belongs to it."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from surefoot.data.check import check_texts, is_missing
from surefoot.data.table import Table, missing_column
from surefoot.errors import DataError

#: What a cell of entities looks like, for messages.
SUCH_AS = "write pairs of characters such as [[0, 4], [9, 12]], or [] for none"


def check_answers(table: Table, column: str) -> np.ndarray:
    """(N,) strings: what should follow each text. Raises DataError for a cell that is empty or no text."""
    return np.array(check_texts(table, column), dtype=object)


def check_entities(table: Table, column: str, texts: Sequence[str]) -> np.ndarray:
    """(N,) tuples of (start, end): entities are the characters from start up to end, end excluded, in order.

    A cell is a list of pairs, or the same as JSON (CSV has no lists); nothing is no entity. Raises DataError for what
    is neither, for a pair outside of its text or without a character in it.
    """
    found = np.empty(len(texts), dtype=object)
    for row, text in enumerate(texts):
        found[row] = tuple(sorted(_span(table, row, column, each, text) for each in _listed(table, row, column)))
    return found


def _listed(table: Table, row: int, column: str) -> list[Any]:
    cell = table.columns[column][row]
    if isinstance(cell, str) and cell.strip():
        try:
            cell = json.loads(cell)
        except ValueError:
            raise table.error(row, column, f"{cell[:40]!r} is not a list of entities; {SUCH_AS}") from None
    if isinstance(cell, list | tuple | np.ndarray):
        return list(cell)
    if is_missing(cell):
        return []
    raise table.error(row, column, f"{type(cell).__name__} is not a list of entities; {SUCH_AS}")


def _span(table: Table, row: int, column: str, pair: Any, text: str) -> tuple[int, int]:
    pair = list(pair) if isinstance(pair, list | tuple | np.ndarray) else [pair]
    if len(pair) != 2 or not all(isinstance(each, numbers.Integral) and not isinstance(each, bool) for each in pair):
        raise table.error(row, column, f"{pair!r} is not a pair of whole numbers; {SUCH_AS}")
    start, end = (int(each) for each in pair)
    if not 0 <= start < end <= len(text):
        raise table.error(
            row, column, f"[{start}, {end}] is no part of the text, which has {len(text)} characters; {SUCH_AS}"
        )
    return start, end


def check_pairs(table: Table) -> dict[str, np.ndarray]:
    """`positive`, and `negative` and `score` where the table has them, (N,) each.

    Raises DataError where there is no positive, for a text that is empty or none, for a score that is no finite number.
    """
    if "positive" not in table.columns:
        raise DataError(missing_column(table, "positive", "it holds the text that belongs to each `anchor`"))
    found: dict[str, np.ndarray] = {
        name: np.array(check_texts(table, name), dtype=object)
        for name in ("positive", "negative")
        if name in table.columns
    }
    if "score" in table.columns:
        found["score"] = np.array([_score(table, row, cell) for row, cell in enumerate(table.columns["score"])])
    return found


def _score(table: Table, row: int, cell: Any) -> float:
    try:
        score = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise table.error(row, "score", f"{cell!r} is not a finite number; write how alike the two texts are, as 3.5")
    return score
