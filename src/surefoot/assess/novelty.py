"""The contract of a novelty score: how little an example looks like anything the model was trained on.

A classifier has to choose one of its classes, also for what belongs to none of them. A novelty score orders examples, so
that the strangest can be handed to somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.stats import rankdata

from surefoot.assess.estimator import check_labels, check_logits
from surefoot.embed.geometry import unit_length
from surefoot.errors import DataError, SurefootError


class NoveltyScore:
    """Orders examples by novelty. A subclass writes `rate`, and `learn` if it looks at training examples.

    Constructor arguments are keyword-only and validated there (RecipeError); what `learn` finds ends in `_`.
    """

    #: Whether there is anything to learn from training examples.
    learns: ClassVar[bool] = False
    fitted_: tuple[int, int] | None = None

    def fit(self, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> Self:
        """Learn from training examples: features (N, D), logits (N, C), labels (N,). Raises DataError where these cannot serve."""
        features, logits = check_outputs(features, logits, source="training")
        labels = check_labels(labels, examples=len(logits), classes=logits.shape[1])
        self.learn(features, logits, labels)
        self.fitted_ = (features.shape[1], logits.shape[1])
        return self

    def score(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Scores (M,) of features (M, D) and logits (M, C), the higher the stranger. Raises DataError as `fit` does."""
        if self.fitted_ is None:
            raise SurefootError("the score knows no training examples yet: call `fit` first")
        features, logits = check_outputs(features, logits, source="target")
        if (features.shape[1], logits.shape[1]) != self.fitted_:
            found, known = (features.shape[1], logits.shape[1]), self.fitted_
            raise DataError(f"target: {found} features and classes, but {known} in training: give one model's outputs")
        return np.asarray(self.rate(features, logits), dtype=np.float64)

    def learn(self, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
        """Nothing, by default."""

    def rate(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def check_outputs(features: np.ndarray, logits: np.ndarray, *, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) and logits (N, C) in float64. Raises DataError for the wrong shape or what is not finite."""
    logits = check_logits(logits, dimensions=2, source=source)
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) != len(logits):
        raise DataError(
            f"{source}: features have shape {features.shape}, expected ({len(logits)}, D) as there are logits"
        )
    if not np.isfinite(features).all():
        raise DataError(f"{source}: features are not finite: predict again")
    return features, logits


@dataclass(frozen=True)
class NoveltyMetrics:
    """How well a score tells novel examples from known ones; shares.

    auroc: of novel against known, 0.5 is chance. fpr95: share of the novel that pass as known where 95% of the known do
    (Liang et al. 2018). aupr: average precision of novel ones, whose share among both is chance. oscr: area under the share
    of known examples that pass and are classified right against the share of novel ones that pass (Dhamija et al. 2018);
    None where nothing is known of being right.
    """

    known: int
    novel: int
    auroc: float
    fpr95: float
    aupr: float
    oscr: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def novelty_metrics(known: np.ndarray, novel: np.ndarray, *, right: np.ndarray | None = None) -> NoveltyMetrics:
    """Metrics from scores of known (N,) and novel (M,) examples; right (N,): whether each known one is classified right.

    OSCR is mean over pairs of right_i 1{s_i < s_j}, ties half, i known, j novel: AUROC with what is wrong counted as lost.
    Raises DataError where either side is empty.

    >>> novelty_metrics(np.array([0.0, 1.0]), np.array([2.0, 0.5])).auroc
    0.75
    """
    from sklearn.metrics import average_precision_score

    known, novel = np.asarray(known, dtype=np.float64), np.asarray(novel, dtype=np.float64)
    if not len(known) or not len(novel):
        raise DataError("novelty: scores of known and of novel examples are needed: give at least one of each")
    both, is_novel = np.concatenate([known, novel]), np.repeat([False, True], [len(known), len(novel)])
    return NoveltyMetrics(
        len(known),
        len(novel),
        _below(known, novel) / len(known),
        float((novel <= threshold(known)).mean()),
        float(average_precision_score(is_novel, both)),
        None if right is None else _below(known[np.asarray(right)], novel) / len(known),
    )


def threshold(known: np.ndarray, *, keep: float = 0.95) -> float:
    """The score at or below which a share `keep` of the known examples lies."""
    return float(np.quantile(known, keep, method="higher"))


def _below(known: np.ndarray, novel: np.ndarray) -> float:
    """Mean over novel j of the number of known i with s_i < s_j, ties half: Mann-Whitney's U over M."""
    if not len(known):
        return 0.0
    ranks = rankdata(np.concatenate([known, novel]))[len(known) :]
    return float((ranks.sum() - len(novel) * (len(novel) + 1) / 2) / len(novel))


def difficulty_split(known: np.ndarray, novel: np.ndarray, names: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Novel classes as easy, medium and hard, by how near each is to a known one: the idea of the Semantic Shift Benchmark.

    known: vectors (K, D) of the known classes, of attributes or of embedded names; novel: (U, D) of those to split, `names`
    (U,). By the largest cosine to a known class, in thirds; the nearest are hard. The benchmark's published splits are made
    of attributes of birds, cars and aircraft in this way; the thirds are ours. Raises DataError for fewer than three classes.
    Reference: Vaze et al. 2022, "Open-Set Recognition: a Good Closed-Set Classifier is All You Need?", section 5.

    >>> difficulty_split(np.array([[1.0, 0.0]]), np.array([[1.0, 0.1], [0.5, 0.5], [0.0, 1.0]]), ("a", "b", "c"))["hard"]
    ('a',)
    """
    if len(novel) < 3 or len(names) != len(novel):
        raise DataError(f"{len(novel)} novel classes with {len(names)} names: give three or more, with one name each")
    unit = [unit_length(each) for each in (known, novel)]
    order = np.argsort((unit[1] @ unit[0].T).max(1), kind="stable")
    parts = zip(("easy", "medium", "hard"), np.array_split(order, 3), strict=True)
    return {name: tuple(names[i] for i in part) for name, part in parts}
