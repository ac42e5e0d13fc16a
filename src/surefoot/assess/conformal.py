"""The contract of a conformal predictor: sets of classes that hold the truth as often as was asked for.

The promise needs nothing of the model. It needs calibration examples and those to come to be exchangeable: drawn alike,
in any order. Away from home they are not, and then the promise is void; what becomes of it is measured, not assumed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import softmax
from scipy.stats import beta

from surefoot.assess.estimator import check_labels, check_logits
from surefoot.assess.metrics import Value, accuracy_interval
from surefoot.errors import DataError, RecipeError, SurefootError


class Conformal:
    """Says which classes an example's set holds. A subclass writes `learn` and `choose`, which get probabilities.

    coverage: the share of sets that are to hold the truth. seed: of what a randomised method draws. Constructor arguments
    are keyword-only and validated there (RecipeError); what `learn` finds ends in `_`.
    """

    #: Whether `fit` and `predict` want `inputs`, by which the calibration examples are told from the others.
    needs_inputs: ClassVar[bool] = False
    #: Whether sets are made one after the other, each knowing the labels of those before it: then `predict` wants labels.
    needs_labels: ClassVar[bool] = False
    #: Whether one threshold is learned from all calibration examples alike, so that `coverage_range` is its law.
    one_threshold: ClassVar[bool] = True
    classes_: int | None = None

    def __init__(self, *, coverage: float = 0.9, seed: int = 0) -> None:
        if not 0 < coverage < 1:
            raise RecipeError(
                f"`coverage` is {coverage}: it must lie above 0 and below 1; sets that always hold the truth hold every class"
            )
        self.coverage = coverage
        self.seed = seed

    def fit(self, logits: np.ndarray, labels: np.ndarray, *, inputs: np.ndarray | None = None) -> Self:
        """Learn from calibration examples that nothing was trained on: logits (N, C), labels (N,), inputs (N, D).

        Raises DataError for data that cannot serve, or too few examples for the coverage.
        """
        logits = check_logits(logits, dimensions=2, source="calibration")
        labels = check_labels(labels, examples=len(logits), classes=logits.shape[1])
        least = least_examples(self.coverage)
        if len(logits) < least:
            raise DataError(
                f"calibration: {len(logits)} examples cannot promise coverage {self.coverage:g}: give {least} or more, better some hundred"
            )
        self.learn(softmax(logits, axis=1), labels, _inputs(inputs, logits))
        self.classes_ = logits.shape[1]
        return self

    def predict(
        self, logits: np.ndarray, *, inputs: np.ndarray | None = None, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """Sets (M, C) of bool, from logits (M, C), inputs (M, D), and labels (M,) for a method that follows a stream.

        Raises DataError for data that cannot serve.
        """
        if self.classes_ is None:
            raise SurefootError("the sets know no threshold yet: call `fit` with calibration examples first")
        logits = check_logits(logits, dimensions=2, source="target")
        if logits.shape[1] != self.classes_:
            raise DataError(f"target: logits have {logits.shape[1]} classes, but {self.classes_} when calibrated")
        if self.needs_labels and labels is None:
            raise DataError("target: these sets learn from each label as it comes: add a `label` column")
        known = None if labels is None else check_labels(labels, examples=len(logits), classes=logits.shape[1])
        return self.choose(softmax(logits, axis=1), _inputs(inputs, logits), known)

    def learn(self, probabilities: np.ndarray, labels: np.ndarray, inputs: np.ndarray) -> None:
        raise NotImplementedError

    def choose(self, probabilities: np.ndarray, inputs: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        raise NotImplementedError


class SplitConformal(Conformal):
    """One threshold for the scores of all classes: a subclass writes `scores`, and randomised ones `draw`."""

    threshold_: float

    def scores(self, probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """How little each class conforms: probabilities (N, C), uniform (N, 1) in [0, 1], to (N, C)."""
        raise NotImplementedError

    def draw(self, examples: int, *, part: int) -> np.ndarray:
        """The uniform numbers (N, 1) of `scores`; `part` 0 for calibration, 1 for the target."""
        return np.ones((examples, 1))

    def learn(self, probabilities: np.ndarray, labels: np.ndarray, inputs: np.ndarray) -> None:
        scores = self.scores(probabilities, self.draw(len(labels), part=0))
        self.threshold_ = conformal_quantile(scores[np.arange(len(labels)), labels], self.coverage)

    def choose(self, probabilities: np.ndarray, inputs: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        return np.asarray(self.scores(probabilities, self.draw(len(probabilities), part=1)) <= self.threshold_)


def least_examples(coverage: float) -> int:
    """The fewest calibration examples that can promise a coverage: ceil((n + 1) coverage) <= n.

    >>> least_examples(0.9), least_examples(0.95)
    (9, 19)
    """
    return math.ceil(round(coverage / (1 - coverage), 9))


def coverage_range(examples: int, coverage: float) -> tuple[float, float]:
    """Between which shares the sets of a split method hold the truth, in 95 of 100 draws of so many calibration examples.

    Quantiles of Beta(k, n + 1 - k), k = ceil((n + 1) coverage), the law of the coverage that n exchangeable examples
    give (Vovk 2012, Conditional validity of inductive conformal predictors); the promise is of its mean.

    >>> [round(end, 2) for end in coverage_range(1000, 0.9)]
    [0.88, 0.92]
    """
    k = min(math.ceil(round((examples + 1) * coverage, 9)), examples)
    low, high = beta.ppf([0.025, 0.975], k, examples + 1 - k)
    return float(low), float(high)


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores; infinity where n is too small.

    >>> conformal_quantile(np.arange(1.0, 11.0), 0.9)
    10.0
    """
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.partition(scores, rank - 1)[rank - 1]) if 1 <= rank <= len(scores) else math.inf


@dataclass(frozen=True)
class SetMetrics:
    """How sets did: `coverage`, the share that holds the truth, with its Wilson interval; mean number of classes; shares of
    sets of one class and of none; `worst_class`: the least coverage over classes with 20 examples or more, or None."""

    examples: int
    coverage: Value
    size: float
    single: float
    empty: float
    worst_class: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def set_metrics(sets: np.ndarray, labels: np.ndarray, *, documents: np.ndarray | None = None) -> SetMetrics:
    """Metrics of sets (N, C) of bool against labels (N,)."""
    held, sizes = sets[np.arange(len(labels)), labels], sets.sum(1)
    counts = np.bincount(labels, minlength=sets.shape[1])
    by_class = np.bincount(labels, weights=held, minlength=sets.shape[1]) / np.maximum(counts, 1)
    enough = counts >= 20
    return SetMetrics(
        len(labels),
        accuracy_interval(held, documents),
        float(sizes.mean()),
        float((sizes == 1).mean()),
        float((sizes == 0).mean()),
        float(by_class[enough].min()) if enough.any() else None,
    )


def _inputs(inputs: np.ndarray | None, logits: np.ndarray) -> np.ndarray:
    """What tells domains apart: the logits where nothing else is given."""
    if inputs is None:
        return logits
    inputs = np.asarray(inputs, dtype=np.float64)
    if inputs.ndim != 2 or len(inputs) != len(logits):
        raise DataError(f"inputs have shape {inputs.shape}, expected ({len(logits)}, D) as there are logits")
    if not np.isfinite(inputs).all():
        raise DataError("inputs are not finite: predict again")
    return inputs
