"""The contract of a pair maker: records in, pairs of texts that should be embedded alike (or not) out.

What comes out is what `surefoot tune --task embedding` trains on: an `anchor` and a `positive`, and where the method has
them a `negative` (one that looks right and is wrong) or a `score` (how alike the two are, 0 to 1).

Makers stream: records are read one after another, as often as a method needs, and pairs are given as they are made. All
that is drawn comes from (seed, number of the record), so that a corpus gives the same pairs however it is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from surefoot.data.records import Record
from surefoot.errors import DataError


@dataclass(frozen=True)
class Pair:
    """`anchor` and `positive`: what a model should embed alike, or as far alike as `score`, 0 to 1, says. `negative`: what
    it should keep away from the anchor."""

    anchor: str
    positive: str
    negative: str | None = None
    score: float | None = None


class PairMaker:
    """Called with records, which can be gone through more than once; a subclass writes `from_record` or `pairs`.

    reads: the columns it looks at and what each must hold, for messages and `--help`; those of `optional` may be absent.
    gives: the columns of a pair. slow: runs a model. Constructor arguments are validated there (`RecipeError`).
    """

    reads: ClassVar[dict[str, str]] = {"text": "the document"}
    optional: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[tuple[str, ...]] = ("anchor", "positive")
    slow: ClassVar[bool] = False

    def __call__(self, records: Iterable[Record], *, seed: int = 0) -> Iterator[Pair]:
        """The pairs, one after another, as they are made.

        Raises DataError for a record that the method cannot read, and where no pair at all can be made.
        """
        made = False
        for pair in self.pairs(records, seed):
            made = True
            yield pair
        if not made:
            raise DataError(f"no pairs could be made: {self.why_none()}")

    def pairs(self, records: Iterable[Record], seed: int) -> Iterator[Pair]:
        """All pairs. This one makes those of each record by itself."""
        for record in records:
            yield from self.from_record(record, generator(seed, record))

    def from_record(self, record: Record, draws: np.random.Generator) -> Iterator[Pair]:
        """The pairs of one record; what is drawn comes from `draws`."""
        raise NotImplementedError

    def why_none(self) -> str:
        """What to do where nothing came out."""
        return "look at what the method reads, and at one of your records"


def generator(seed: int, record: Record) -> np.random.Generator:
    """The random numbers of one record."""
    return np.random.default_rng([seed, record.number])
