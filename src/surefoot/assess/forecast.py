"""How accurate a model will be where there are no labels: every estimator side by side, and which one to believe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from surefoot.assess.estimator import Estimate, Estimator, check_classes, check_labels, check_logits
from surefoot.errors import DataError
from surefoot.files import plain
from surefoot.registry import methods

#: Read one model at a time; their mean stands in where there is no line.
SINGLE = ("average_confidence", "difference_of_confidences", "atc")
#: Those whose median stands in where domains with labels say what each misses: the ones that the study compared.
MEDIAN = (*SINGLE, "disagreement", "aline_s", "aline_d")


@dataclass(frozen=True)
class Forecast:
    """The accuracy to expect of one model on a target without labels; shares, not percentages.

    `method`: "aline_d", "median" of MEDIAN, or "mean_of_single" for the mean of SINGLE. `estimates`: all of them by name. `r2`: of the line
    of agreements, None where there are too few models for one. `missed`: by estimator, what it said on domains with
    labels less the accuracy there, the mean over them; empty without such domains. `note`: why there is no line, or None.
    """

    value: float
    low: float
    high: float
    method: str
    estimates: dict[str, Estimate]
    r2: float | None
    note: str | None
    missed: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Its fields; null where there is no forecast."""
        return dict(plain(asdict(self)))


def forecast(
    source_logits: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    target_logits: np.ndarray,
    member: int = 0,
    *,
    known: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> Forecast:
    """Forecast the accuracy of model `member` on a target without labels, from all that is known of its family.

    source_logits: (F, N, C) on held-out home examples with labels (N,); target_logits: (F, M, C). F = 1 is a model
    without a family.

    The line (ALine-D) is believed only where agreement is linear: R2 of its probits at least 0.95 with a rising slope,
    over at least 10 points of agreement on both axes and at least four models; its interval is then the union of
    those of ALine-D and ALine-S, two readings of one line. Otherwise, without known domains, the value is the mean of
    average confidence, difference of confidences and ATC, and the interval the union of theirs: they break in different
    ways, so where they part, the interval is wide. Neither is a promise: a shift that no model shows in its outputs shows
    in no forecast.

    known: for each of some other domains, logits (F, J, C) and labels (J,). What an estimator misses by there, on
    average, is taken off what it says here, and the interval grows by the root mean square of what it missed. A shift
    does not repeat itself, but models are overconfident in a way that does: see `docs/study.md`. So corrected, all
    estimators are about as good, and where there is no line the median of MEDIAN, of values and of ends, is the forecast.

    Raises DataError for data that cannot serve or a member that is not there.
    """
    source = check_logits(source_logits, dimensions=3, source="home")
    target = check_logits(target_logits, dimensions=3, source="target")
    checked = check_labels(np.asarray(labels), examples=source.shape[1], classes=source.shape[2])
    check_classes(source.shape[2], target)
    if len(source) != len(target):
        raise DataError(f"target: {len(target)} models, but {len(source)} at home: give the same models")
    if not 0 <= member < len(source):
        raise DataError(f"member {member} is not there: {len(source)} models, counted from 0")
    estimates = _all_estimates(source, checked, target, member)
    missed = [
        _missed(source, checked, check_logits(away, dimensions=3, source="known"), truth, member)
        for away, truth in known
    ]
    if missed:
        estimates = {name: _less(each, [one[name] for one in missed]) for name, each in estimates.items()}
    mean_missed = {name: float(np.mean([one[name] for one in missed])) for name in estimates if missed}
    line = estimates.get("aline_d")
    r2 = line.facts["r2"] if line else None
    if line and line.note is None:
        low, high = _union([line, estimates["aline_s"]])
        return Forecast(line.value, low, high, "aline_d", estimates, r2, None, mean_missed)
    why = line.note if line else f"{len(source)} model{'s' * (len(source) > 1)} cannot show one"
    if missed:
        value, low, high = np.median(
            [[each.value, each.low, each.high] for name, each in estimates.items() if name in MEDIAN], axis=0
        ).tolist()
        note = f"no line here: {why}; the value is the median of all estimators, less what they missed on known domains"
        return Forecast(value, low, high, "median", estimates, r2, note, mean_missed)
    single = [estimates[name] for name in SINGLE]
    low, high = _union(single)
    value = float(np.mean([each.value for each in single]))
    note = f"no line here: {why}; the value is the mean of {', '.join(SINGLE[:-1])} and {SINGLE[-1]}"
    return Forecast(value, low, high, "mean_of_single", estimates, r2, note, mean_missed)


def _missed(
    source: np.ndarray, labels: np.ndarray, away: np.ndarray, truth: np.ndarray, member: int
) -> dict[str, float]:
    """What each estimator says of a domain, less the accuracy there."""
    right = float((away[member].argmax(1) == np.asarray(truth)).mean())
    return {name: each.value - right for name, each in _all_estimates(source, labels, away, member).items()}


def _less(estimate: Estimate, missed: Sequence[float]) -> Estimate:
    """The estimate without what it misses elsewhere, its interval wider by the root mean square of that."""
    value, spread = estimate.value - float(np.mean(missed)), float(np.sqrt(np.mean(np.square(missed))))
    low = value - float(np.hypot(estimate.value - estimate.low, spread))
    high = value + float(np.hypot(estimate.high - estimate.value, spread))
    return Estimate.within(value, low, high, facts=estimate.facts, note=estimate.note)


def _all_estimates(source: np.ndarray, labels: np.ndarray, target: np.ndarray, member: int) -> dict[str, Estimate]:
    found = {}
    for method in methods("estimator"):
        estimator = method.make()
        if isinstance(estimator, Estimator):
            found[method.name] = estimator.fit(source[member], labels).predict(target[member])
        elif len(source) >= estimator.least_members:
            found[method.name] = estimator.fit(source, labels).predict(target)[member]
    return found


def _union(estimates: Sequence[Estimate]) -> tuple[float, float]:
    return min(each.low for each in estimates), max(each.high for each in estimates)
