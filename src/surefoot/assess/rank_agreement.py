"""How well an embedding will order pairs that nobody rated: agreement on the line, with ranks in place of classes.

Models that order the pairs of one domain more alike than those of another are, as a rule, nearer to people's order there
too. Over pairs of models of a family, Fisher's z of their rank agreement on a target is set against the same on pairs
that were rated; where that is a line, and the model's own agreement with the ratings lies where the line was seen, the
line says its agreement with the target's ratings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import norm, rankdata

from surefoot.assess.estimator import Estimate
from surefoot.assess.forecast import Forecast

#: A line is believed from this R2 on, and over so many models; as for classes.
LEAST_R2, LEAST_MODELS = 0.95, 4


def rank_agreement(outputs: np.ndarray) -> np.ndarray:
    """Spearman's rho between every two of F models (F, N): (F, F).

    >>> rank_agreement(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 9.0], [3.0, 2.0, 1.0]]))[0].round(2).tolist()
    [1.0, 1.0, -1.0]
    """
    ranks = np.stack([rankdata(row) for row in outputs.astype(np.float64)])
    ranks -= ranks.mean(1, keepdims=True)
    lengths = np.linalg.norm(ranks, axis=1)
    ranks /= np.where(lengths > 0, lengths, 1)[:, None]
    return np.asarray(ranks @ ranks.T)


def forecast_metric(known: Mapping[str, tuple[np.ndarray, np.ndarray]], target: np.ndarray) -> Forecast:
    """Forecast Spearman's rho of the first model with ratings that the target does not have.

    known: by domain, similarities (F, N) of F models and ratings (N,); target: similarities (F, M). Over all domains the
    line's values are averaged: z_target = a z_domain + b by least squares over the F (F - 1) / 2 pairs of models, z =
    artanh rho. It is believed if R2 is at least 0.95 with a rising slope, over four models or more, and the model's own
    z lies within the z of the pairs; otherwise the value is the mean of the known domains' rho, and the note says why.
    The interval is that of sampling (Bonett and Wright 2000) and of the line's residuals, or the range of the domains.
    `estimates`: "rank_agreement" with facts `target` and `known`, the model's mean agreement with the others there.
    """
    if not known:
        nothing = Estimate(float("nan"), -1.0, 1.0, note="no rated pairs")
        note = "no forecast: no judge holds rated pairs, and nDCG is no rank correlation"
        return Forecast(float("nan"), -1.0, 1.0, "none", {"rank_agreement": nothing}, None, note)
    agreed = rank_agreement(target)
    pairs = np.triu_indices(len(agreed), 1)
    lines = [_line(outputs, ratings, agreed, pairs) for outputs, ratings in known.values()]
    own = [rank_agreement(np.stack([outputs[0], ratings]))[0, 1] for outputs, ratings in known.values()]
    there = float(agreed[0, 1:].mean()) if len(agreed) > 1 else 1.0
    here = (
        float(np.mean([rank_agreement(outputs)[0, 1:].mean() for outputs, _ in known.values()]))
        if len(agreed) > 1
        else 1.0
    )
    facts = {"target": there, "known": here}
    r2 = min(line[2] for line in lines) if len(agreed) >= LEAST_MODELS else None
    why = _why_not(lines, r2, len(agreed))
    half = norm.ppf(0.975) * np.sqrt((1 + max(own) ** 2 / 2) / max(target.shape[1] - 3, 1))
    if why is None:
        z = float(np.mean([line[0] for line in lines]))
        spread = float(np.hypot(half, norm.ppf(0.975) * max(line[1] for line in lines)))
        value, low, high = (float(np.tanh(each)) for each in (z, z - spread, z + spread))
        found = Estimate(value, low, high, facts)
        return Forecast(value, low, high, "rank_agreement", {"rank_agreement": found}, r2, None)
    z = float(np.arctanh(np.clip(np.mean(own), -0.999999, 0.999999)))
    value, low, high = float(np.tanh(z)), min(*own, np.tanh(z - half)), max(*own, np.tanh(z + half))
    found = Estimate(value, float(low), float(high), facts, why)
    note = f"no line here: {why}; the value is what the judge's rated pairs have"
    return Forecast(value, float(low), float(high), "judge_mean", {"rank_agreement": found}, r2, note)


def _line(
    outputs: np.ndarray, ratings: np.ndarray, agreed: np.ndarray, pairs: tuple[np.ndarray, ...]
) -> tuple[float, float, float, float, bool]:
    """(z on the target, deviation of the residuals, R2, slope, whether the model's own z lies within the pairs')."""
    if not len(pairs[0]):
        return 0.0, 0.0, 0.0, 0.0, False
    x, y = (np.arctanh(np.clip(each[pairs], -0.999999, 0.999999)) for each in (rank_agreement(outputs), agreed))
    own = np.arctanh(np.clip(rank_agreement(np.stack([outputs[0], ratings]))[0, 1], -0.999999, 0.999999))
    if len(x) < 3 or np.ptp(x) == 0:
        return float(own), 0.0, 0.0, 0.0, False
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    r2 = 1 - float((residual**2).sum() / max(((y - y.mean()) ** 2).sum(), 1e-12))
    return float(slope * own + intercept), float(residual.std()), r2, float(slope), bool(x.min() <= own <= x.max())


def _why_not(lines: list[tuple[float, float, float, float, bool]], r2: float | None, models: int) -> str | None:
    if r2 is None:
        return f"{models} model{'s' * (models > 1)} cannot show one"
    if r2 < LEAST_R2 or min(line[3] for line in lines) <= 0:
        return f"the models' agreements on the judge and here lie on no rising line (R2 {r2:.2f})"
    if not all(line[4] for line in lines):
        return "the models agree more with one another than with the ratings, so that the line was not seen where the answer lies"
    return None
