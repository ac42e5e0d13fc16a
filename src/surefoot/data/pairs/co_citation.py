"""Co-citation: two documents that a third one cites together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import ClassVar

from surefoot.data.pairs.maker import Pair, PairMaker, generator
from surefoot.data.pairs.passages import identifier
from surefoot.data.records import Record
from surefoot.registry import Paper, register
from surefoot.tune.selections import whole

HALLEE = Paper(
    "Contrastive Learning and Mixture of Experts Enables Precise Vector Embeddings",
    "Hallee et al.",
    2024,
    arxiv="2401.15713",
)


@register("co_citation", kind="pairs", family="documents", papers=[HALLEE])
class CoCitation(PairMaker):
    """anchor, positive = the texts of two documents that some third document cites both.

    Of the documents that one document cites and that the corpus holds, every two are a pair; `most` of them are drawn,
    and a pair that several documents cite together is given once. Reads `text`, `id` and `cites`, a list of ids. The corpus
    is gone through twice; ids, chosen pairs and the texts in them are held.

    most: 10 for each citing document, of our own: pairs grow with the square of a list, and a survey cites hundreds. The
    paper's mixture of experts, routed by a token of the domain, is the selection `routed_experts`. Raises RecipeError
    for values out of range, DataError where two documents have one id. Reference: Hallee et al. 2024.

    >>> from surefoot.data.records import Records
    >>> corpus = [{"id": 1, "text": "Wings."}, {"id": 2, "text": "Tails."}, {"id": 3, "text": "Review.", "cites": [1, 2]}]
    >>> [pair] = CoCitation()(Records(corpus))
    >>> sorted([pair.anchor, pair.positive])
    ['Tails.', 'Wings.']
    """

    reads: ClassVar[dict[str, str]] = {
        "text": "the document",
        "id": "its name",
        "cites": "the ids of documents that it cites",
    }

    def __init__(self, *, most: int = 10) -> None:
        self.most = whole("most", most, least=1)

    def pairs(self, records: Iterable[Record], seed: int) -> Iterator[Pair]:
        chosen = self._chosen(records, seed)
        wanted = {name for pair in chosen for name in pair}
        texts = {name: record.text("text") for record in records if (name := identifier(record)) in wanted}
        for one, other in chosen:
            if texts[one] and texts[other] and texts[one] != texts[other]:
                yield Pair(texts[one], texts[other])

    def _chosen(self, records: Iterable[Record], seed: int) -> list[tuple[str, str]]:
        """Pairs of ids, each once, in the order in which they are met; which of the two comes first is drawn."""
        known: set[str] = set()
        cited: list[tuple[Record, list[str]]] = []
        for record in records:
            known.add(identifier(record, known=known))
            if names := list(dict.fromkeys(record.names("cites"))):
                cited.append((Record({}, record.number, record.source), names))  # the text need not be held
        found: dict[frozenset[str], tuple[str, str]] = {}
        for record, names in cited:
            draws = generator(seed, record)
            every = list(combinations([name for name in names if name in known], 2))
            for place in draws.permutation(len(every))[: self.most]:
                one, other = every[place] if draws.random() < 0.5 else every[place][::-1]
                found.setdefault(frozenset((one, other)), (one, other))
        return list(found.values())

    def why_none(self) -> str:
        return "no document cites two others of the corpus; the column `cites` holds lists of what stands in `id`"
