"""Every analysis gives plain values, the same each time, and names what it cannot use; each against a value known otherwise."""

from __future__ import annotations

import inspect
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit, ndtr, softmax

from surefoot.assess.analyses.accuracy_curve import AccuracyCurve
from surefoot.assess.analyses.adapted_agreement import AdaptedAgreement, temperature_for
from surefoot.assess.analyses.compression_bound import CompressionBound, message_bits
from surefoot.assess.analyses.conformal_language_model import ConformalLanguageModel
from surefoot.assess.analyses.effective_robustness import EffectiveRobustness
from surefoot.assess.analyses.pass_until import PassUntil
from surefoot.assess.analyses.probabilistic_calibration import ProbabilisticCalibration, recalibrate
from surefoot.assess.analyses.variance import SeedVariance
from surefoot.errors import DataError, RecipeError
from surefoot.registry import methods

METHODS = methods("analysis")
RNG = np.random.default_rng(0)


def family(examples: int, seed: int, fall: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Six models that see the class through noise of their own and noise they share."""
    rng = np.random.default_rng(seed)
    labels, skill = rng.integers(4, size=examples), np.linspace(0.5, 3.0, 6)
    noise = 0.7 * rng.normal(size=(examples, 4)) + 0.7 * rng.normal(size=(6, examples, 4))
    return fall * skill[:, None, None] * np.eye(4)[labels] + noise, labels


def prompts(count: int, seed: int) -> dict[str, np.ndarray]:
    """Answers of which a third are good, which their quality half tells; like answers are of one quality."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=(count, 8))
    good = rng.random((count, 8)) < expit(2 * quality - 0.7)
    similarity = np.exp(-np.abs(quality[:, :, None] - quality[:, None, :]))
    return {"quality": quality, "similarity": similarity, "good": good}


HOME, AWAY = family(400, 1), family(300, 2, 0.6)
#: What each is called with.
CALLS: dict[str, dict[str, Any]] = {
    "adapted_agreement": {"home_logits": HOME[0], "home_labels": HOME[1], "target_logits": AWAY[0], "frozen": 0},
    "variance": {"items": RNG.random((4, 100)) < 0.7, "curve": np.cumsum(RNG.random((4, 6)), axis=1)},
    "accuracy_curve": {"majority": np.linspace(0.5, 0.9, 12), "minority": np.linspace(0.3, 0.8, 12) ** 2},
    "effective_robustness": {"home": np.linspace(0.5, 0.9, 12), "away": np.linspace(0.3, 0.8, 12)},
    "probabilistic_calibration": {"pit": RNG.random(300), "calibration": RNG.random(200)},
    "straggler_layers": {
        "losses": 1 + RNG.random((8, 3, 4)),
        "alphas": [0.0, 0.3, 0.7, 1.0],
        "sharpness": RNG.random((8, 3)),
        "total": RNG.random(8),
        "away": np.linspace(0.5, 0.8, 8),
    },
    "pass_until": {
        "sizes": [1, 2, 4],
        "samples": np.full((3, 5), 10),
        "passed": [[2] * 5, [3] * 5, [5] * 5],
        "size": 8,
    },
    "compression_bound": {"probabilities": RNG.random((20, 9)), "vocabulary": 50, "documents": 9000, "message": 500.0},
    "conformal_language_model": prompts(60, 3),
    "compass": {
        "queries": RNG.normal(size=(30, 6)),
        "documents": RNG.normal(size=(40, 6)),
        "relevant": np.arange(30)[:, None],
    },
    "sentence_content": {
        "paragraphs": RNG.normal(size=(20, 4)),
        "sentences": RNG.normal(size=(60, 4)),
        "paragraph": np.arange(60) % 20,
        "sentence": np.arange(60),
        "present": np.arange(60) % 2,
    },
    "compute_optimal": {
        "method": ["full", "full", "lora", "lora"],
        "layers": [6, 6, 6, 12],
        "width": [256, 256, 256, 512],
        "trained": [6, 6, 6, 12],
        "tokens": [1e6, 1e7, 1e6, 1e7],
        "loss": [0.5, 0.3, 0.6, 0.2],
        "budget": 1e16,
    },
    "representation_deficiency": {"words": RNG.normal(size=(50, 8)), "masks": RNG.normal(size=(40, 8))},
}


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
def test_contract(method: Any) -> None:
    """Plain values, twice the same; its docstring says formula, units, errors and paper; its arrays are left alone."""
    call = CALLS[method.name]
    before = {name: np.array(value, copy=True) for name, value in call.items()}
    found = method.make()(**call).as_json()
    json.dumps(found)
    assert found == method.make()(**call).as_json()
    assert all((np.asarray(value) == before[name]).all() for name, value in call.items())
    text = " ".join((inspect.getdoc(method.make) or "").split())
    for words in ("Call with", "Gives a", "Raises", "Reference", "="):
        assert words in text, words
    assert method.papers


def test_adapted_models_by_their_agreement() -> None:
    """The estimates are ALine's and near the truth; the chosen model is the best; confidence at T is the estimate."""
    found = AdaptedAgreement()(**CALLS["adapted_agreement"])
    truth = (AWAY[0].argmax(2) == AWAY[1]).mean(1)
    assert np.abs(found.accuracy - truth).mean() < 0.06
    assert truth[found.chosen] >= truth.max() - 0.02
    assert found.gain[0] == 0.0
    for logits, accuracy, temperature in zip(AWAY[0], found.accuracy, found.temperature, strict=True):
        if 0.05 < temperature < 20:
            assert softmax(logits / temperature, axis=1).max(1).mean() == pytest.approx(accuracy, abs=1e-9)
    assert temperature_for(AWAY[0][0], 0.01) == 20.0
    assert temperature_for(AWAY[0][0], 1.0) == pytest.approx(0.05, rel=0.01)
    with pytest.raises(DataError, match="`frozen` is 9"):
        AdaptedAgreement()(**{**CALLS["adapted_agreement"], "frozen": 9})
    with pytest.raises(DataError, match="at least 3"):
        AdaptedAgreement()(home_logits=HOME[0][:2], home_labels=HOME[1], target_logits=AWAY[0][:2])


def test_variance_of_coins() -> None:
    """References: the closed form of a binomial's standard error, scipy's Kendall tau, numpy's deviation."""
    rng = np.random.default_rng(1)
    items = (rng.random((30, 400)) < 0.7).astype(float)
    curve = rng.random((30, 5))
    found = SeedVariance(draws=2000)(items=items, curve=curve)
    means = items.mean(1)
    assert found.seed_deviation == pytest.approx(means.std(ddof=1))
    assert found.interval == pytest.approx(1.96 * math.sqrt(0.7 * 0.3 / 400), rel=0.05)
    taus = [stats.kendalltau(range(5), each).statistic for each in curve]
    assert found.monotonicity == pytest.approx(np.mean(taus))
    assert found.signal_to_noise == pytest.approx(means.mean() / means.std(ddof=1))
    same = SeedVariance()(items=np.tile(items[0], (3, 1)))
    assert (same.seed_deviation, same.signal_to_noise, same.monotonicity) == (0.0, None, None)
    with pytest.raises(DataError, match="2 long"):
        SeedVariance()(items=items[:1])
    with pytest.raises(RecipeError, match="100 bootstrap draws"):
        SeedVariance(draws=5)


def test_a_parabola_is_told_from_a_line() -> None:
    """A moon-shaped relation has the curvature it was made with; a line on probits is curved on raw axes and not there."""
    rng = np.random.default_rng(2)
    x = rng.uniform(0.5, 0.95, 60)
    found = AccuracyCurve()(majority=x, minority=0.2 + 0.5 * x + 1.2 * (x - 0.7) ** 2 + 0.004 * rng.normal(size=60))
    assert found.curved
    assert found.low <= 1.2 <= found.high
    assert found.parabola > found.line
    straight = AccuracyCurve()(majority=x, minority=np.clip(0.1 + 0.8 * x + 0.02 * rng.normal(size=60), 0, 1))
    assert not straight.curved
    on_line = ndtr(0.8 * stats.norm.ppf(x) - 0.5)
    assert AccuracyCurve(axes="raw")(majority=x, minority=on_line).curved
    assert abs(AccuracyCurve(axes="probit")(majority=x, minority=on_line).curvature) < 1e-9
    # Leaving one model out by leverage is leaving it out.
    y = 0.1 + 0.8 * x + 0.02 * rng.normal(size=60)
    by_hand = [np.polyval(np.polyfit(np.delete(x, i), np.delete(y, i), 1), x[i]) for i in range(60)]
    exact = 1 - ((y - by_hand) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert AccuracyCurve()(majority=x, minority=y).line == pytest.approx(exact)
    with pytest.raises(DataError, match="the same models"):
        AccuracyCurve()(majority=x, minority=y[:9])


def test_effective_robustness_is_what_was_put_on_top() -> None:
    """Models on a line of logits, and a group five points above it: the line is found, and the five points."""
    rng = np.random.default_rng(3)
    home = rng.uniform(0.5, 0.9, 40)
    away = expit(0.9 * logit(home) - 0.4)
    group = np.where(np.arange(40) < 30, "plain", "robust")
    found = EffectiveRobustness()(
        home=home, away=away + 0.05 * (group == "robust"), baseline=group == "plain", group=group
    )
    assert (found.slope, found.intercept, found.r2) == pytest.approx((0.9, -0.4, 1.0))
    assert found.effective == pytest.approx(0.05 * (group == "robust"), abs=1e-9)
    assert found.groups["robust"]["value"] == pytest.approx(0.05)
    assert found.groups["robust"]["low"] > 0.04
    with pytest.raises(DataError, match="three or more"):
        EffectiveRobustness()(home=home[:2], away=away[:2])


def test_calibration_of_distributions() -> None:
    """Uniform values are calibrated; a law known in closed form gives its error: for Z = U^2, mean |a - sqrt(a)|; held-out
    values mend it."""
    rng = np.random.default_rng(4)
    pce = ProbabilisticCalibration()
    assert pce(pit=rng.random(4000)).pce < pce(pit=rng.random(4000)).by_chance * 1.5
    at = np.arange(1, 101) / 100
    found = pce(pit=rng.random(100_000) ** 2, calibration=rng.random(100_000) ** 2)
    assert found.pce == pytest.approx(np.abs(at - np.sqrt(at)).mean(), abs=2e-3)
    assert found.recalibrated is not None
    assert found.recalibrated < 0.005
    assert found.pce > found.by_chance
    assert (np.diff(recalibrate(np.sort(rng.random(50)), rng.random(20))) >= 0).all()
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        pce(pit=[0.2, 1.4])


def test_pass_until_is_unbiased_and_finds_the_law() -> None:
    """Rates: the mean of (r - 1) / (K - 1) over sampling until r passes is the rate, where r / K is not. The law: exact scores
    give its c and alpha back, and the score of a larger model."""
    rng = np.random.default_rng(5)
    tries = rng.negative_binomial(2, 0.2, size=(1, 200_000)) + 2
    rates = PassUntil().rates(tries, np.full_like(tries, 2))
    assert rates.mean() == pytest.approx(0.2, abs=0.002)
    assert (2 / tries).mean() > 0.25
    sizes = np.array([1e7, 3e7, 1e8])
    exact = np.exp(-40 * sizes**-0.2)
    samples = np.full((3, 50), 1e6)
    found = PassUntil(successes=1)(sizes=sizes, samples=samples, passed=exact[:, None] * samples, size=1e9)
    assert (found.c, found.alpha) == pytest.approx((40, 0.2), rel=1e-3)
    assert found.predicted == pytest.approx(np.exp(-40 * 1e9**-0.2), rel=1e-6)
    assert found.bend == pytest.approx(0, abs=1e-9)
    each = PassUntil(successes=1, instance=True)(
        sizes=sizes, samples=samples, passed=exact[:, None] * samples, size=1e9
    )
    assert each.predicted == pytest.approx(found.predicted, rel=1e-6)
    with pytest.raises(DataError, match="all the same"):
        PassUntil()(sizes=[1, 1], samples=samples[:2], passed=samples[:2], size=2)
    with pytest.raises(DataError, match="no more passed"):
        PassUntil()(sizes=sizes, samples=samples, passed=samples + 1, size=2)


def test_the_bound_by_hand_and_its_limits() -> None:
    """Reference: the theorem's formula worked out for one alpha; more bits and fewer documents only loosen it."""
    bound = CompressionBound(alphas=(0.1,), choices=7)
    probabilities = np.array([[0.5, 0.25], [0.5, np.nan]])
    found = bound(probabilities=probabilities, vocabulary=4, documents=100, message=64.0)
    bits = [-np.log2(0.9 * p + 0.025) for p in (0.5, 0.25)]
    risk = ((bits[0] + bits[1]) / 2 + bits[0]) / 2
    k, r = 64 + 2 * 6 + 7 + 0, 2 / 102
    span = np.log2(1 + 0.9 * 4 / 0.1)
    slack = np.sqrt((k * np.log(2) + np.log(1 / (r * 0.05))) / 200) + np.sqrt(np.log(1 / ((1 - r) * 0.05)) / 4)
    assert found.empirical == pytest.approx(risk)
    assert found.bound == pytest.approx(risk + span * slack)
    assert found.vacuous
    many = {"probabilities": np.full((2000, 3), 0.6), "vocabulary": 256, "documents": 1_000_000}
    good = CompressionBound()(**many, message=2000.0)
    assert not good.vacuous
    assert good.bound > good.empirical
    assert CompressionBound()(**many, message=200_000.0).bound > good.bound
    # Arithmetic coding: the entropy of the symbols is a floor, and one symbol costs nothing but its table.
    assert message_bits(np.zeros(1000, dtype=int)) == 16 + math.ceil(math.log2(1001))
    symbols = np.random.default_rng(6).integers(0, 11, 50_000)
    assert message_bits(symbols) == pytest.approx(50_000 * math.log2(11), rel=0.01)


def test_conformal_sampling_keeps_its_promise() -> None:
    """Over six draws of prompts, the risk on others is above epsilon in at most delta of them, give or take chance;
    and it draws fewer answers than all."""
    broken, drawn = 0, []
    for seed in range(6):
        sampler = ConformalLanguageModel(epsilon=0.3, delta=0.1, stop="max", seed=seed)
        found = sampler(**prompts(100, seed))
        assert found.certified
        fresh = prompts(300, 1000 + seed)
        kept = [sampler.choose(*each) for each in zip(fresh["quality"], fresh["similarity"], strict=True)]
        broken += np.mean([not good[one].any() for one, good in zip(kept, fresh["good"], strict=True)]) > 0.3
        drawn.append(found.samples)
    assert broken <= stats.binom.ppf(0.99, 6, 0.1)
    assert np.mean(drawn) < 8
    impossible = prompts(60, 1)
    impossible["good"][:] = False
    assert not ConformalLanguageModel()(**impossible).certified
    with pytest.raises(RecipeError, match="epsilon"):
        ConformalLanguageModel(epsilon=1.0)
    with pytest.raises(DataError, match="ten prompts"):
        ConformalLanguageModel()(**prompts(5, 1))
