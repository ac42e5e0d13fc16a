"""Co-occurrence: two columns of one record, such as the title of an advert and the skills that it asks for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.records import Record
from surefoot.errors import RecipeError
from surefoot.registry import Paper, register

BOCHAROVA = Paper(
    "VacancySBERT: the approach for representation of titles and skills for semantic similarity search in the recruitment domain",
    "Bocharova et al.",
    2023,
    arxiv="2307.16638",
)


@register("co_occurrence", kind="pairs", family="records", papers=[BOCHAROVA])
class CoOccurrence(PairMaker):
    """anchor, positive = what two columns of one record hold; lists are joined by commas.

    A title and the skills (or the description) of the same advert, so that titles that ask for alike skills come together.
    One pair a record; where `positive` holds a list of which `each` is true, one for each of its entries. Rows where one
    of the two is empty give nothing.

    anchor, positive: names of columns, "title" and "skills", the paper's. each: false. The paper's abstract names a Siamese
    network that links the two and gives no more of its loss: in-batch negatives are this library's choice for training on
    them. Raises RecipeError for columns that are one, DataError where one is missing. Reference: Bocharova et al. 2023.

    >>> from surefoot.data.records import Records
    >>> [pair] = CoOccurrence()(Records([{"title": "Welder", "skills": ["MIG", "TIG"]}]))
    >>> pair.anchor, pair.positive
    ('Welder', 'MIG, TIG')
    """

    def __init__(self, *, anchor: str = "title", positive: str = "skills", each: bool = False) -> None:
        if anchor == positive:
            raise RecipeError(f"`anchor` and `positive` are both `{anchor}`: name two columns")
        self.anchor, self.positive, self.each = anchor, positive, each
        self.reads = {anchor: "the first text", positive: "the second text, or a list"}  # type: ignore[misc]

    def from_record(self, record: Record, draws: np.random.Generator) -> Iterator[Pair]:
        anchor = record.text(self.anchor)
        value = record.values.get(self.positive)
        parts = record.names(self.positive) if self.each or isinstance(value, list | tuple) else []
        found = parts or [record.text(self.positive)]
        for positive in found if self.each else [", ".join(found)]:
            if anchor and positive:
                yield Pair(anchor, positive)

    def why_none(self) -> str:
        return f"no row has both `{self.anchor}` and `{self.positive}`"
