"""BFS: a sentence of a document's first section asks for a passage of its body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from surefoot.data.pairs.ict import CHANG
from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.pairs.passages import passages, sections, sentences
from surefoot.data.records import Record
from surefoot.registry import register
from surefoot.tune.selections import whole


@register("bfs", kind="pairs", family="documents", papers=[CHANG])
class BodyFirstSelection(PairMaker):
    """Body first selection: anchor = a sentence of the first section, positive = a passage from the rest of the document.

    The first section sums up the page, so that the sentence is about the passage without being in it. Sentence and passage
    are drawn evenly, `draws` times a document. Reads `sections`, or `text` cut at blank lines with the `title` as its first
    section; documents of one section give nothing.

    words: most words of a passage, 200, as in `ict`. draws: 1; the paper draws anew in every epoch. It draws from the
    whole page, the first section among it; here from what comes after. Raises RecipeError for values out of range,
    DataError where there is no column `text`. Reference: Chang et al. 2020, section 3.

    >>> from surefoot.data.records import Records
    >>> [pair] = BodyFirstSelection()(Records([{"title": "On wings", "text": "Wings lift. Tails steer."}]))
    >>> pair.anchor, pair.positive
    ('On wings', 'Wings lift. Tails steer.')
    """

    reads: ClassVar[dict[str, str]] = {"text": "the document", "sections": "its sections", "title": "its title"}
    optional: ClassVar[frozenset[str]] = frozenset({"title", "sections"})

    def __init__(self, *, words: int = 200, draws: int = 1) -> None:
        self.words = whole("words", words, least=2)
        self.draws = whole("draws", draws, least=1)

    def from_record(self, record: Record, draws: np.random.Generator) -> Iterator[Pair]:
        parts = sections(record)
        first = sentences(parts[0]) if parts else []
        body = [" ".join(each) for part in parts[1:] for each in passages(part, words=self.words)]
        if not first or not body:
            return
        for _ in range(self.draws):
            yield Pair(first[int(draws.integers(len(first)))], body[int(draws.integers(len(body)))])

    def why_none(self) -> str:
        return "no document has two sections; add a column `sections` (a list of texts) or `title`"
