"""FusionSent's second kind of pairs: a text with the descriptions of its labels, and with those of all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from surefoot.data.pairs.labelled import labels_of
from surefoot.data.pairs.maker import Pair, PairMaker, generator
from surefoot.data.records import Record
from surefoot.errors import DataError
from surefoot.registry import Paper, register
from surefoot.tune.objective import one_of

SCHOPF = Paper(
    "Efficient Few-shot Learning for Multi-label Classification of Scientific Documents with Many Classes",
    "Schopf et al.",
    2024,
    arxiv="2410.05770",
)
STRATEGIES = ("oversampling", "undersampling")


@register("label_description", kind="pairs", family="labelled", papers=[SCHOPF])
class LabelDescriptions(PairMaker):
    """anchor = a text, positive = the description of a label; score = 1 for its own labels, 0 for others.

    With P own labels and Q others a text gives, by `oversampling`, P + Q pairs and Q - 1 more of its own labels, drawn with
    replacement, so that for one label both scores are equally many; by `undersampling` its P and P drawn of the others.
    For the contrastive loss, 0.5 (score (1 - cos)^2 + (1 - score) relu(margin - (1 - cos))^2), objective `contrastive_pairs`.
    Reads `text`, `label` (one or a list) and, if there, `description`, of the label: without it a label's name describes
    it, `_` and `-` read as spaces. The examples are gone through twice; the labels are held.

    strategy: oversampling, the default of the authors' code. Raises RecipeError for an unknown strategy, DataError for a
    row without label or for one class. Reference: Schopf et al. 2024, section 3, as sebischair/FusionSent computes it.

    >>> from surefoot.data.records import Records
    >>> rows = [{"text": "My card is lost.", "label": "lost_card"}, {"text": "Hi!", "label": "greeting"}]
    >>> [(pair.positive, pair.score) for pair in LabelDescriptions()(Records(rows))][:2]
    [('lost card', 1.0), ('greeting', 0.0)]
    """

    reads: ClassVar[dict[str, str]] = {
        "text": "the example",
        "label": "its class, or a list of classes",
        "description": "what the class is",
    }
    optional: ClassVar[frozenset[str]] = frozenset({"description"})
    gives: ClassVar[tuple[str, ...]] = ("anchor", "positive", "score")

    def __init__(self, *, strategy: str = "oversampling") -> None:
        self.strategy = one_of("strategy", strategy, STRATEGIES)

    def pairs(self, records: Iterable[Record], seed: int) -> Iterator[Pair]:
        described: dict[str, str] = {}
        for record in records:
            names = labels_of(record)
            given = record.optional("description") if len(names) == 1 else None
            for name in sorted(names):
                if given or name not in described:
                    described[name] = given or name.replace("_", " ").replace("-", " ")
        if len(described) < 2:
            raise DataError(f"column `label`: every row has the label `{next(iter(described))}`; give at least two")
        for record in records:
            text, names = record.text("text"), labels_of(record)
            if not text:
                continue
            draws = generator(seed, record)
            own = [described[name] for name in described if name in names]
            others = [described[name] for name in described if name not in names]
            if self.strategy == "undersampling":
                others = [others[place] for place in draws.permutation(len(others))[: len(own)]]
            yield from (Pair(text, each, score=1.0) for each in own)
            yield from (Pair(text, each, score=0.0) for each in others)
            if self.strategy == "oversampling":
                again = draws.integers(len(own), size=max(len(others) - 1, 0))
                yield from (Pair(text, own[place], score=1.0) for place in again)
