"""SetFit's pairs: two examples of one class are alike, two of different classes are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from surefoot.data.pairs.labelled import alternating, labelled
from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.records import Record
from surefoot.errors import DataError
from surefoot.registry import Paper, register
from surefoot.tune.objective import one_of
from surefoot.tune.selections import whole

TUNSTALL = Paper("Efficient Few-Shot Learning Without Prompts", "Tunstall et al.", 2022, arxiv="2209.11055")
CONTRAST = Paper("Contrast Is All You Need", "Kilic, Bex and Gatt", 2023, arxiv="2307.02882")
STRATEGIES = ("oversampling", "undersampling", "unique")
#: All pairs of more examples than this would not end.
MOST = 2000


@register("setfit", kind="pairs", family="labelled", papers=[TUNSTALL, CONTRAST])
class SetFitPairs(PairMaker):
    """anchor, positive = two examples; score = 1 if they share a label, else 0.

    All pairs i <= j of the N examples, an example with itself among them, split by score, each side shuffled, then one of
    each in turn: as many as the larger side has, the smaller one from its beginning again (`oversampling`), as many as the
    smaller one (`undersampling`), or each pair once (`unique`). With `iterations` R, R N of each side. What a cosine is then
    drawn to: mean (cos(u, v) - score)^2, objective `cosine_similarity`. Reads `text` and `label`, one or a list.

    strategy: oversampling. iterations: None. Both are the defaults of the authors' library, release 1; the paper itself
    draws R = 20 pairs of either kind for each class. "Contrast Is All You Need" compares the method with plain fine-tuning
    on legal provisions. Raises RecipeError for values out of range, DataError for a row without label, for one class, or
    for more than 2,000 examples without `iterations`. Reference: Tunstall et al. 2022, section 3.

    >>> from surefoot.data.records import Records
    >>> rows = [{"text": "fine", "label": 1}, {"text": "dull", "label": 0}]
    >>> sorted((pair.anchor, pair.positive, pair.score) for pair in SetFitPairs(strategy="unique")(Records(rows)))
    [('dull', 'dull', 1.0), ('fine', 'dull', 0.0), ('fine', 'fine', 1.0)]
    """

    reads: ClassVar[dict[str, str]] = {"text": "the example", "label": "its class, or a list of classes"}
    gives: ClassVar[tuple[str, ...]] = ("anchor", "positive", "score")

    def __init__(self, *, strategy: str = "oversampling", iterations: int | None = None) -> None:
        self.strategy = one_of("strategy", strategy, STRATEGIES)
        self.iterations = None if iterations is None else whole("iterations", iterations, least=1)

    def pairs(self, records: Iterable[Record], seed: int) -> Iterator[Pair]:
        examples = labelled(records)
        draws = np.random.default_rng(seed)
        if self.iterations is None:
            alike, unlike = _all(examples, draws)
        else:
            alike, unlike = _drawn(examples, draws, self.iterations * len(examples))
        if self.strategy == "unique" and self.iterations is None:
            chosen: Iterable[tuple[int, int]] = [*alike, *unlike]
        else:
            larger, smaller = max(len(alike), len(unlike)), min(len(alike), len(unlike))
            chosen = alternating(alike, unlike, count=smaller if self.strategy == "undersampling" else larger)
        for i, j in chosen:
            shared = not examples[i][1].isdisjoint(examples[j][1])
            yield Pair(examples[i][0], examples[j][0], score=float(shared))


def _all(
    examples: list[tuple[str, frozenset[str]]], draws: np.random.Generator
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """All pairs i <= j that share a label, and all that do not, shuffled."""
    if len(examples) > MOST:
        raise DataError(
            f"{len(examples):,} examples have too many pairs to be gone through: set `iterations`, such as iterations=20"
        )
    first, second = np.triu_indices(len(examples))
    sides: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for place in draws.permutation(len(first)):
        i, j = int(first[place]), int(second[place])
        sides[examples[i][1].isdisjoint(examples[j][1])].append((i, j))
    return sides


def _drawn(
    examples: list[tuple[str, frozenset[str]]], draws: np.random.Generator, count: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """So many pairs of different examples that share a label, and as many that do not, drawn evenly for each example in
    turn; an example that has no such partner is passed over."""
    sides: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for number in range(count):
        i = number % len(examples)
        for apart, side in enumerate(sides):
            for _ in range(100):  # by trial: a partner is nearly always found at once
                j = int(draws.integers(len(examples)))
                if i != j and examples[i][1].isdisjoint(examples[j][1]) == bool(apart):
                    side.append((i, j))
                    break
    return sides
