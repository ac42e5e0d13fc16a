"""CANNOT's triplets: a sentence, one that says the same, and one that says the opposite in nearly the same words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.pairs.negation import negated
from surefoot.data.records import Record
from surefoot.registry import Paper, register

ANSCHUETZ = Paper(
    "This is not correct! Negation-aware Evaluation of Language Generation Systems",
    "Anschütz, Miguel Lozano and Groh",
    2023,
    arxiv="2307.13989",
)


@register("cannot", kind="pairs", family="sentences", papers=[ANSCHUETZ])
class NegatedSentences(PairMaker):
    """anchor = a sentence s, positive = a paraphrase of s, negative = s negated by rules.

    For in-batch negatives with the negated sentence as the hard one (objective `infonce`): the paper's sentence transformer
    learns by multiple negatives ranking on such triplets. Reads `text` and, if there, `paraphrase`; without one s itself
    is the positive, told apart by dropout alone as in SimCSE, and what is learned is the negation and nothing else. With
    `swap`, a paraphrase that can be negated gives a second triplet, the other way round.

    The rules are in `negation.py`; of news, captions and forum posts they negate one sentence in three, and texts that they
    do not know how to negate give nothing. They need the package `lemminflect`: pip install 'surefoot[negation]'. The
    authors' set of 77,376 pairs joins five others and makes its paraphrases with a model of their own; neither is here, nor
    is the regression of NegBLEURT on people's ratings. swap: true. Raises DataError where there is no column `text`.
    Reference: Anschütz et al. 2023, sections 3 and 4.

    >>> from surefoot.data.records import Records
    >>> [pair] = NegatedSentences()(Records([{"text": "It will rain.", "paraphrase": "Expect showers."}]))
    >>> pair.positive, pair.negative
    ('Expect showers.', "It won't rain.")
    """

    reads: ClassVar[dict[str, str]] = {"text": "a sentence", "paraphrase": "the same in other words"}
    optional: ClassVar[frozenset[str]] = frozenset({"paraphrase"})
    gives: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negative")

    def __init__(self, *, swap: bool = True) -> None:
        self.swap = swap

    def from_record(self, record: Record, draws: np.random.Generator) -> Iterator[Pair]:
        text = record.text("text")
        paraphrase = record.optional("paraphrase")
        for sentence, positive in [(text, paraphrase or text), *([(paraphrase, text)] if self.swap else [])]:
            if sentence and (opposite := negated(sentence)) is not None:
                yield Pair(sentence, positive, negative=opposite)

    def why_none(self) -> str:
        return "the rules could negate none of the texts; they are for English sentences with a verb"
