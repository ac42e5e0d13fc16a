"""Metrics against hand-computed values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from surefoot.assess.metrics import accuracy_interval, evaluate_logits, fit_prior, over_seeds


def test_wilson_interval_of_a_textbook_case() -> None:
    # 81 of 263: the Wilson score interval is 0.2553 to 0.3662 (Newcombe 1998, table I).
    found = accuracy_interval(np.arange(263) < 81)
    assert (found.value, found.low, found.high) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0.0, 0.1611), (20, 0.8389, 1.0)])
def test_the_interval_stays_within_zero_and_one(right: int, low: float, high: float) -> None:
    found = accuracy_interval(np.arange(20) < right)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_sentences_of_one_document_count_as_one_when_they_agree() -> None:
    rng = np.random.default_rng(0)
    documents = rng.random(50) < 0.7
    repeated, names = np.repeat(documents, 20), np.repeat(np.arange(50), 20)
    alone = accuracy_interval(documents)
    clustered = accuracy_interval(repeated, names)
    assert clustered.high - clustered.low == pytest.approx(alone.high - alone.low, rel=0.05)
    independent = accuracy_interval(rng.permutation(repeated), names)
    ignored = accuracy_interval(repeated)
    assert independent.high - independent.low == pytest.approx(ignored.high - ignored.low, rel=0.25)


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        # Documents of 10 sentences whose accuracies differ: beta(6, 2), mean 0.75.
        shares = np.repeat(rng.beta(6, 2, 60), 10)
        found = accuracy_interval(rng.random(600) < shares, np.repeat(np.arange(60), 10))
        hits += found.low <= 0.75 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize("classes", [2, 5])
def test_against_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(2)
    labels = rng.choice(classes, 500, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(500, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    metrics = evaluate_logits(logits, labels)
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert metrics.log_loss == pytest.approx(log_loss(labels, probabilities))
    expected = (
        roc_auc_score(labels, probabilities[:, 1])
        if classes == 2
        else np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in range(classes)])
    )
    assert metrics.auc == pytest.approx(expected)
    assert metrics.majority == pytest.approx(np.bincount(labels).max() / 500)


@pytest.mark.parametrize("classes", [2, 4])
def test_fitting_the_prior_gives_that_prior(classes: int) -> None:
    rng = np.random.default_rng(3)
    prior = np.arange(1.0, classes + 1) / np.arange(1, classes + 1).sum()
    shifted = fit_prior(rng.normal(size=(2000, classes)), prior)
    if classes == 2:
        shares = np.bincount(shifted.argmax(1), minlength=2) / 2000
    else:
        shares = (np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(shares, prior, atol=1e-3)


def test_a_threshold_for_the_wrong_prior_is_told_from_knowing_less() -> None:
    rng = np.random.default_rng(4)
    labels = (rng.random(4000) < 0.7).astype(int)
    margin = rng.normal(2.0 * labels - 1.0)
    biased = evaluate_logits(np.stack([np.zeros(4000), margin - 1.0], axis=1), labels)
    fitting = evaluate_logits(np.stack([np.zeros(4000), margin + 0.42], axis=1), labels)
    assert biased.auc == fitting.auc
    assert biased.accuracy.value < fitting.accuracy.value - 0.1
    assert biased.accuracy_at_true_prior == pytest.approx(fitting.accuracy.value, abs=0.02)


def test_one_class_has_no_auc_and_seeds_average() -> None:
    metrics = evaluate_logits(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert metrics.auc is None
    other = evaluate_logits(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 0]))
    assert over_seeds([metrics, other]).value == 0.75
