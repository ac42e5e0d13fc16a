"""Every conformal predictor keeps its contract and its promise; thresholds and sets as mapie has them; limits."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import APSConformityScore
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from surefoot.assess.conformal import Conformal, conformal_quantile, coverage_range, set_metrics
from surefoot.assess.conformals.adaptive import Adaptive
from surefoot.assess.conformals.aps import APS
from surefoot.assess.conformals.lac import LAC
from surefoot.assess.conformals.mondrian import Mondrian
from surefoot.assess.conformals.raps import RAPS
from surefoot.assess.conformals.weighted import Weighted
from surefoot.assess.importance import density_ratios
from surefoot.errors import DataError, RecipeError, SurefootError
from surefoot.registry import methods

METHODS = methods("conformal")


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Given:
        self.classes_ = np.unique(y)
        self.n_features_in_ = x.shape[1]
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x).argmax(1)


def made(
    examples: int, seed: int, classes: int = 6, *, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, logits of a model that is too sure, and labels drawn from the true probabilities of the inputs."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(examples, 2)) + shift
    ways = np.random.default_rng(99).normal(size=(2, classes))
    true = inputs @ ways
    labels = np.array([rng.choice(classes, p=each) for each in softmax(true, axis=1)])
    return inputs, 2 * true + rng.normal(size=true.shape), labels


def test_it_is_what_it_says() -> None:
    assert {each.name for each in METHODS} == {"lac", "aps", "raps", "mondrian", "weighted", "adaptive"}


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
def test_contract(method: object) -> None:
    """Coverage as promised on data drawn alike, over draws of both sets; the same sets for the same seed."""
    make = method.make  # type: ignore[attr-defined]
    fresh: Conformal = make()
    with pytest.raises(SurefootError, match="call `fit`"):
        fresh.predict(np.zeros((1, 6)))
    held = []
    for draw in range(12):
        x, logits, labels = made(700, draw)
        where = slice(0, 400)
        fresh = make(coverage=0.8).fit(logits[where], labels[where], inputs=x[where])
        sets = fresh.predict(logits[400:], inputs=x[400:], labels=labels[400:])
        assert sets.shape == (300, 6)
        assert sets.dtype == bool
        held.append(set_metrics(sets, labels[400:]).coverage.value)
    again = fresh.predict(logits[400:], inputs=x[400:], labels=labels[400:])
    assert (again == sets).all()
    # 3600 answers and as many calibration examples twelve times over: three standard errors of both together.
    error = 3 * np.sqrt(0.16 / 3600 + 0.16 / 4800)
    assert 0.8 - error <= np.mean(held) <= 0.8 + error + (0.03 if method.name == "mondrian" else 0.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
def test_bad_input_is_named(method: object) -> None:
    make = method.make  # type: ignore[attr-defined]
    x, logits, labels = made(40, 0)
    for coverage in (0.0, 1.0, 1.5):
        with pytest.raises(RecipeError, match=r"above 0 and below 1"):
            make(coverage=coverage)
    with pytest.raises(DataError, match=r"10 examples cannot promise coverage 0\.95: give 19 or more"):
        make(coverage=0.95).fit(logits[:10], labels[:10], inputs=x[:10])
    fitted = make().fit(logits, labels, inputs=x)
    with pytest.raises(DataError, match="2 classes, but 6"):
        fitted.predict(logits[:, :2], inputs=x, labels=labels)
    with pytest.raises(DataError, match=r"expected \(40, D\)"):
        fitted.predict(logits, inputs=x[:3], labels=labels)


def reference(score: object, probabilities: np.ndarray, labels: np.ndarray) -> SplitConformalClassifier:
    estimator = Given().fit(probabilities, labels)
    found = SplitConformalClassifier(
        estimator, confidence_level=0.9, conformity_score=score, prefit=True, random_state=0
    )  # type: ignore[arg-type]
    return found.conformalize(probabilities, labels)


def test_lac_is_mapies() -> None:
    """Reference: mapie 1.6, the same sets and the same threshold."""
    _, logits, labels = made(500, 1)
    _, fresh, _ = made(300, 2)
    theirs = reference("lac", softmax(logits, axis=1), labels)
    ours = LAC(coverage=0.9).fit(logits, labels)
    _, sets = theirs.predict_set(softmax(fresh, axis=1))
    assert (ours.predict(fresh) == sets[:, :, 0]).all()


def test_aps_is_mapies() -> None:
    """Reference: mapie 1.6 with its own uniform numbers for calibration: the threshold to 1e-6, and, where the last label
    is included (U = 1 on the target), the same sets."""
    _, logits, labels = made(500, 3)
    _, fresh, _ = made(300, 4)
    probabilities = softmax(logits, axis=1)
    theirs = reference("aps", probabilities, labels)

    class SameNumbers(APS):
        def draw(self, examples: int, *, part: int) -> np.ndarray:
            if part == 1:
                return np.ones((examples, 1))
            return np.random.RandomState(0).uniform(size=examples)[:, None]

    ours = SameNumbers(coverage=0.9).fit(logits, labels)
    score = APSConformityScore()
    score.set_external_attributes(classes=np.arange(6), random_state=0)
    scores = score.get_conformity_scores(labels, probabilities, y_enc=labels)
    assert ours.threshold_ == pytest.approx(conformal_quantile(scores[:, 0], 0.9), abs=1e-6)
    _, sets = theirs.predict_set(softmax(fresh, axis=1), conformity_score_params={"include_last_label": True})
    assert (ours.predict(fresh) == sets[:, :, 0]).mean() > 0.999


def test_scores_of_aps_and_raps_by_hand() -> None:
    p = np.array([[0.5, 0.1, 0.3, 0.1]])
    half = np.full((1, 1), 0.5)
    assert APS().scores(p, half)[0] == pytest.approx([0.25, 0.85, 0.65, 0.95])
    assert RAPS(penalty=0.2, rank=2).scores(p, half)[0] == pytest.approx([0.25, 1.05, 0.65, 1.35])


def test_limits() -> None:
    """No penalty is APS to the bit; no step, no shift in weight and one class's data are LAC to the bit."""
    x, logits, labels = made(300, 5)
    _, fresh, truth = made(200, 6)
    lac = LAC().fit(logits, labels).predict(fresh)
    assert (RAPS(penalty=0).fit(logits, labels).predict(fresh) == APS().fit(logits, labels).predict(fresh)).all()
    assert (Adaptive(step=0).fit(logits, labels).predict(fresh, labels=truth) == lac).all()
    weighted = Weighted().fit(logits, labels, inputs=x)
    threshold = weighted.thresholds(np.ones(300), np.ones(200))
    assert (threshold == LAC().fit(logits, labels).threshold_).all()
    alone = labels == 0
    assert Mondrian().fit(logits, labels).thresholds_[0] == LAC().fit(logits[alone], labels[alone]).threshold_


def test_a_class_too_small_for_the_promise_is_in_every_set() -> None:
    _, logits, labels = made(200, 7)
    labels = np.where(labels == 5, 0, labels)
    assert Mondrian().fit(logits, labels).predict(logits)[:, 5].all()


def test_few_examples_promise_on_average_only() -> None:
    """By chance: of 2,000 draws of ten scores, 95% make a threshold that holds a share of all scores within the range."""
    draws = np.random.default_rng(0).uniform(size=(2000, 10))
    covered = np.array([conformal_quantile(each, 0.8) for each in draws])  # of uniform scores, the threshold itself
    low, high = coverage_range(10, 0.8)
    assert ((covered >= low) & (covered <= high)).mean() == pytest.approx(0.95, abs=0.015)


def test_mondrian_holds_for_every_class() -> None:
    """Where LAC leaves one class short, class-conditional sets do not."""
    _, logits, labels = made(6000, 8)
    logits[:, 3] -= 2.0
    short = set_metrics(LAC().fit(logits[:3000], labels[:3000]).predict(logits[3000:]), labels[3000:])
    even = set_metrics(Mondrian().fit(logits[:3000], labels[:3000]).predict(logits[3000:]), labels[3000:])
    assert short.worst_class is not None
    assert even.worst_class is not None
    assert short.worst_class < 0.75
    assert even.worst_class > 0.83


def test_weights_mend_a_covariate_shift() -> None:
    """Labels follow the same law of the inputs, inputs move: LAC misses, weighted sets come nearer. The ratio of two normal
    distributions is known in closed form, and the classifier's follows it."""
    x, logits, labels = made(3000, 9)
    away, fresh, truth = made(1500, 10, shift=1.2)
    plain = set_metrics(LAC().fit(logits, labels).predict(fresh), truth).coverage.value
    mended = Weighted().fit(logits, labels, inputs=x).predict(fresh, inputs=away)
    assert abs(plain - 0.9) > 0.01
    assert abs(set_metrics(mended, truth).coverage.value - 0.9) < abs(plain - 0.9)
    ratios = density_ratios(x, away)
    exact = np.exp(1.2 * x.sum(1) - 1.2**2)
    assert np.corrcoef(np.log(ratios.home), np.log(exact))[0, 1] > 0.98
    assert ratios.effective < 1500
    assert ratios.separation > 0.8


def test_adaptive_sets_follow_a_drift() -> None:
    """Coverage of the whole stream stays within the paper's bound, (1 - alpha + gamma) / (T gamma), whatever comes."""
    _, logits, labels = made(500, 11)
    rng = np.random.default_rng(12)
    _, fresh, _ = made(3000, 13)
    anything = rng.integers(0, 6, 3000)
    adaptive = Adaptive(step=0.02).fit(logits, labels)
    held = set_metrics(adaptive.predict(fresh, labels=anything), anything).coverage.value
    assert abs(held - 0.9) <= (0.9 + 0.02) / (3000 * 0.02)
    assert set_metrics(LAC().fit(logits, labels).predict(fresh), anything).coverage.value < 0.6
    assert adaptive.levels_[0] == pytest.approx(0.1)
    with pytest.raises(DataError, match="label"):
        adaptive.predict(fresh)
    with pytest.raises(RecipeError, match="step"):
        Adaptive(step=-1)
