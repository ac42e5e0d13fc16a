"""ICT: a sentence asks for the passage that it was taken from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.pairs.passages import passages, sections
from surefoot.data.records import Record
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction
from surefoot.tune.selections import whole

CHANG = Paper("Pre-training Tasks for Embedding-based Large-scale Retrieval", "Chang et al.", 2020, arxiv="2002.03932")


@register("ict", kind="pairs", family="documents", papers=[CHANG])
class InverseCloze(PairMaker):
    """Inverse cloze task: anchor = one sentence of a passage, positive = the passage without it.

    Of a passage s_1 ... s_n, i is drawn from 1 ... n: (s_i, s_1 ... s_{i-1} s_{i+1} ... s_n); with probability `keep` the
    sentence stays in, so that a model also learns to match words. Reads `text`, or `sections` and `title`, in passages
    of at most `words` words, whole sentences; passages of one sentence give nothing. A streamed pair a passage, times
    `draws`.

    keep: 0.1, of Lee et al. 2019 (arXiv 1906.00300), whose task it is; Chang et al. take the sentence out always. words:
    200, about the 288 word pieces of Lee et al. draws: 1; both papers draw anew in every epoch. Raises RecipeError for
    values out of range, DataError for a row without text. Reference: Chang et al. 2020, section 3.

    >>> from surefoot.data.records import Records
    >>> [pair] = InverseCloze(keep=0)(Records([{"text": "Wings lift. Tails steer."}]), seed=1)
    >>> pair.anchor, pair.positive
    ('Wings lift.', 'Tails steer.')
    """

    optional: ClassVar[frozenset[str]] = frozenset({"title", "sections"})

    def __init__(self, *, keep: float = 0.1, words: int = 200, draws: int = 1) -> None:
        self.keep = fraction("keep", keep, one=True)
        self.words = whole("words", words, least=2)
        self.draws = whole("draws", draws, least=1)

    def from_record(self, record: Record, draws: np.random.Generator) -> Iterator[Pair]:
        for passage in passages("\n\n".join(sections(record)), words=self.words):
            if len(passage) < 2:
                continue
            for _ in range(self.draws):
                chosen, kept = int(draws.integers(len(passage))), draws.random() < self.keep
                rest = passage if kept else passage[:chosen] + passage[chosen + 1 :]
                yield Pair(passage[chosen], " ".join(rest))

    def why_none(self) -> str:
        return "no passage has two sentences; give longer texts, or a larger `words`"
