"""Metrics of a classifier on one set of examples, each with what it takes to read it under a shift.

Accuracy alone mixes two things: what the model knows, and a threshold that fits some label prior. So beside it stand
balanced accuracy, AUC (no threshold at all), accuracy once the decision fits the set's own label prior, and the
majority baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax
from scipy.stats import norm


@dataclass(frozen=True)
class Value:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metrics:
    """Metrics of one set; shares, not percentages. `auc` is None where a class is missing.

    `robust_accuracy`: under an attack, if one was asked for, over `attacked` of the examples.
    """

    examples: int
    accuracy: Value
    balanced_accuracy: float
    auc: float | None
    accuracy_at_true_prior: float
    majority: float
    log_loss: float
    robust_accuracy: Value | None = None
    attacked: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain values; what belongs to an attack only if there was one."""
        attack = ("robust_accuracy", "attacked")
        return {name: value for name, value in asdict(self).items() if name not in attack or value is not None}


def evaluate_logits(logits: np.ndarray, labels: np.ndarray, *, clusters: np.ndarray | None = None) -> Metrics:
    """All metrics from logits (N, C) and labels (N,); `clusters` (N,) names the document of each example, if any."""
    correct = logits.argmax(1) == labels
    counts = np.bincount(labels, minlength=logits.shape[1])
    present = counts > 0
    recall = np.bincount(labels, weights=correct, minlength=logits.shape[1])[present] / counts[present]
    return Metrics(
        examples=len(labels),
        accuracy=accuracy_interval(correct, clusters),
        balanced_accuracy=float(recall.mean()),
        auc=area_under_curve(logits, labels),
        accuracy_at_true_prior=float((fit_prior(logits, counts / counts.sum()).argmax(1) == labels).mean()),
        majority=float(counts.max() / counts.sum()),
        log_loss=float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean()),
    )


def accuracy_interval(correct: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95) -> Value:
    """Accuracy with its Wilson interval; examples of one cluster (sentences of one document) are not independent.

    With clusters, N in Wilson's formula becomes N / deff, where deff is the design effect: the variance of the mean
    between clusters (linearised ratio estimator) over p (1 - p) / N, at least 1.
    """
    share, count = float(correct.mean()), float(len(correct))
    if clusters is not None and 0 < share < 1:
        _, index = np.unique(clusters, return_inverse=True)
        residuals = np.bincount(index, weights=correct - share)
        groups = len(residuals)
        if 1 < groups < len(correct):
            variance = groups / (groups - 1) * float((residuals**2).sum()) / count**2
            count /= max(1.0, variance / (share * (1 - share) / count))
    z = float(norm.ppf(0.5 + level / 2))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)))
    return Value(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def over_seeds(metrics: Sequence[Metrics]) -> Value:
    """Mean accuracy over seeds, with the mean ends of their intervals.

    The interval is that of one test set: it does not shrink with seeds, whose spread is another matter.
    """
    return Value(
        *(float(np.mean([getattr(each.accuracy, end) for each in metrics])) for end in ("value", "low", "high"))
    )


def area_under_curve(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Area under the ROC curve; for more than two classes the mean over classes of one against the rest."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(labels)) < 2:
        return None
    if logits.shape[1] == 2:
        return float(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    present = np.unique(labels)
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in present]))


def fit_prior(logits: np.ndarray, prior: np.ndarray, *, iterations: int = 200) -> np.ndarray:
    """Logits (N, C) shifted by one bias per class so that the mean of softmax(logits + b) is `prior` (C,).

    For two classes the threshold is set so that the predicted share of the second class is its prior.
    """
    if logits.shape[1] == 2:
        margin = logits[:, 1] - logits[:, 0]
        threshold = np.quantile(margin, 1 - prior[1])
        return np.stack([np.zeros_like(margin), margin - threshold], axis=1)
    target = np.log(np.maximum(prior, 1e-12))
    bias = np.zeros(logits.shape[1])
    for _ in range(iterations):
        # Sinkhorn's column step; the rows are normalised by the softmax.
        shares = np.exp(log_softmax(logits.astype(np.float64) + bias, axis=1)).mean(0)
        bias += target - np.log(np.maximum(shares, 1e-12))
    return logits + bias
