"""WLP: a sentence of a document's first section asks for a passage that links to the document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from surefoot.data.pairs.ict import CHANG
from surefoot.data.pairs.maker import Pair, PairMaker, generator
from surefoot.data.pairs.passages import identifier, passages, sections, sentences
from surefoot.data.records import Record
from surefoot.registry import register
from surefoot.tune.selections import whole


@register("wlp", kind="pairs", family="documents", papers=[CHANG])
class WikiLinkPrediction(PairMaker):
    """Wiki link prediction: anchor = a sentence of A's first section, positive = a passage of a document that links to A.

    For each link B -> A: (sentence drawn from the first section of A, passage drawn from B). Links are the column `links`,
    a list of `id`s, of the whole of B: the paper takes the passage that holds the link. Links to what the corpus lacks, and
    to itself, are passed over. The corpus is gone through twice; the first sections of all documents are held.

    words: most words of a passage, 200, as in `ict`. links: most links of one document, drawn evenly, 10, of our own:
    lists of hundreds would drown the rest. Raises RecipeError for values out of range, DataError where there is no column
    `text` or two documents have one id. Reference: Chang et al. 2020, section 3.

    >>> from surefoot.data.records import Records
    >>> corpus = [{"id": "wing", "text": "Wings lift."}, {"id": "tail", "text": "Tails steer.", "links": ["wing"]}]
    >>> [pair] = WikiLinkPrediction()(Records(corpus))
    >>> pair.anchor, pair.positive
    ('Wings lift.', 'Tails steer.')
    """

    reads: ClassVar[dict[str, str]] = {
        "text": "the document",
        "id": "its name",
        "links": "the ids of documents that it links to",
        "sections": "its sections",
        "title": "its title",
    }
    optional: ClassVar[frozenset[str]] = frozenset({"title", "sections"})

    def __init__(self, *, words: int = 200, links: int = 10) -> None:
        self.words = whole("words", words, least=2)
        self.links = whole("links", links, least=1)

    def pairs(self, records: Iterable[Record], seed: int) -> Iterator[Pair]:
        first: dict[str, list[str]] = {}
        for record in records:
            name = identifier(record, known=first)
            parts = sections(record)
            first[name] = sentences(parts[0]) if parts else []
        for record in records:
            own, draws = identifier(record), generator(seed, record)
            linked = [name for name in dict.fromkeys(record.names("links")) if name != own and first.get(name)]
            body = [" ".join(each) for part in sections(record) for each in passages(part, words=self.words)]
            if not linked or not body:
                continue
            for place in draws.permutation(len(linked))[: self.links]:
                asked = first[linked[place]]
                yield Pair(asked[int(draws.integers(len(asked)))], body[int(draws.integers(len(body)))])

    def why_none(self) -> str:
        return "no document links to another of the corpus; the column `links` holds lists of what stands in `id`"
