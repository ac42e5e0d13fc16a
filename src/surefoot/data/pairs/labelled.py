"""What makers read from labelled examples: the text and the set of its labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from surefoot.data.check import order_classes
from surefoot.data.records import Record
from surefoot.errors import DataError

T = TypeVar("T")


def labels_of(record: Record) -> frozenset[str]:
    """The labels of an example: its column `label`, one, or a list of several. Raises DataError where it has none."""
    value = record.values.get("label")
    several = isinstance(value, list | tuple) or (isinstance(value, str) and value.strip().startswith("["))
    found = record.names("label") if several else [record.name("label") or ""]
    if not all(found) or not found:
        raise record.error("label", "the label is missing; fill it or remove the row")
    return frozenset(found)


def labelled(records: Iterable[Record]) -> list[tuple[str, frozenset[str]]]:
    """(text, labels) of every example that has a text. Raises DataError for fewer than two labels among all."""
    found = [(record.text("text"), labels_of(record)) for record in records]
    classes = {name for _, names in found for name in names}
    if len(classes) < 2:
        what = f"every row has the label `{next(iter(classes), '')}`"
        raise DataError(f"column `label`: {what}; pairs that differ need at least two")
    return [(text, names) for text, names in found if text]


def classes_of(examples: Iterable[tuple[Any, frozenset[str]]]) -> list[str]:
    """All labels, in their order."""
    return order_classes({name for _, names in examples for name in names})


def alternating(one: list[T], other: list[T], *, count: int) -> Iterator[T]:
    """`count` of each in turn, from the beginning again where one is shorter; an empty one is left out."""
    for place in range(count):
        for each in (one, other):
            if each:
                yield each[place % len(each)]


def shuffled(items: list[T], draws: np.random.Generator) -> list[T]:
    """The same in another order."""
    return [items[place] for place in draws.permutation(len(items))]
