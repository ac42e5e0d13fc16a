"""The compass and the sentence content probe against closed forms and sklearn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_curve, top_k_accuracy_score

from surefoot.assess.analyses.compass import Compass, overlap, related, separating
from surefoot.assess.analyses.sentence_content import SentenceContentProbe
from surefoot.errors import DataError, RecipeError

RNG = np.random.default_rng(0)


def embedding(noise: float, queries: int = 200) -> dict[str, np.ndarray]:
    """Documents at random, queries beside their own."""
    rng = np.random.default_rng(1)
    documents = rng.normal(size=(queries, 16))
    return {
        "queries": documents + noise * rng.normal(size=documents.shape),
        "documents": documents,
        "relevant": np.arange(queries)[:, None],
    }


def test_compass_beside_sklearn() -> None:
    """References: sklearn's top-k accuracy; the standard error of a binomial for the interval's width."""
    call = embedding(2.0)
    found = Compass(k=3, draws=4000)(**call)
    unit = {name: call[name] / np.linalg.norm(call[name], axis=1, keepdims=True) for name in ("queries", "documents")}
    truth = top_k_accuracy_score(np.arange(200), unit["queries"] @ unit["documents"].T, k=3)
    assert found.accuracy == pytest.approx(truth, abs=0.003)
    assert found.width == pytest.approx(2 * 1.96 * math.sqrt(truth * (1 - truth) / 200), rel=0.1)
    assert found.low < found.accuracy < found.high
    assert 0 <= found.passing < found.kept <= 1


def test_overlap_of_normal_distributions() -> None:
    """Closed form: two normal distributions d deviations apart share 2 Phi(-d / 2); the same sample all of itself."""
    first, second = 0.1 * RNG.normal(size=200_000), 0.1 * RNG.normal(size=200_000) + 0.15
    assert overlap(first, second) == pytest.approx(2 * norm.cdf(-0.75), abs=0.01)
    assert overlap(first, first) == pytest.approx(1.0)
    assert overlap(np.full(5, 0.9), np.full(5, -0.9)) == 0.0


def test_threshold_is_youdens() -> None:
    """Reference: the point of sklearn's ROC curve with the largest true rate less false rate."""
    high, low = RNG.normal(0.4, 0.1, 300), RNG.normal(0.1, 0.1, 200)
    false, true, thresholds = roc_curve([1] * 300 + [0] * 200, [*high, *low], drop_intermediate=False)
    best = (true - false).max()
    found = separating(high, low)
    assert (high >= found).mean() - (low >= found).mean() == pytest.approx(best)
    assert found in thresholds[np.isclose(true - false, best)]


def test_bearings_go_together() -> None:
    """A model that sees more is right more often, and its right and random cosines overlap less."""
    bearings = {str(noise): Compass(k=1)(**embedding(noise)) for noise in (0.5, 1.0, 2.0, 4.0)}
    links = related(bearings)
    assert links["accuracy"]["overlap_correct_random"] == pytest.approx(-1.0)
    with pytest.raises(DataError, match="three or more"):
        related({"one": bearings["0.5"]})


def test_compass_refuses() -> None:
    call = embedding(1.0, queries=5)
    with pytest.raises(DataError, match="query 2: right documents"):
        Compass()(**{**call, "relevant": [[0], [7], [2], [3], [4]]})
    with pytest.raises(DataError, match="16 numbers and documents 3"):
        Compass()(**{**call, "documents": np.ones((5, 3))})
    with pytest.raises(RecipeError, match="`k` is 0"):
        Compass(k=0)


def test_probe_sees_what_is_there_and_nothing_else() -> None:
    """A sentence's vector that holds the answer gives all; one that holds nothing gives chance, within its interval."""
    present = np.arange(600) % 2
    call = {"paragraphs": RNG.normal(size=(200, 5)), "paragraph": np.arange(600) % 200, "present": present}
    call["sentence"] = np.arange(600)
    told = SentenceContentProbe()(**call, sentences=RNG.normal(size=(600, 5)) + 6 * present[:, None])
    assert told.accuracy > 0.98
    assert told.paragraphs == 66
    mute = SentenceContentProbe()(**call, sentences=RNG.normal(size=(600, 5)))
    assert mute.low < 0.55
    assert mute.high > 0.45
    with pytest.raises(DataError, match="ten or more"):
        SentenceContentProbe()(**{**call, "paragraph": np.arange(600) % 3}, sentences=np.ones((600, 2)))
    with pytest.raises(RecipeError, match="100 bootstrap draws"):
        SentenceContentProbe(draws=3)
