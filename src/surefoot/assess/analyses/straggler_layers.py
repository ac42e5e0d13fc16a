"""Straggler layers: whether their sharpness, and not that of the whole, tells how an interpolated model does away from home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from surefoot.assess.analysis import DRAWS, SEED, Analysis, Record, ends, numbers
from surefoot.assess.stragglers import barriers
from surefoot.errors import DataError, RecipeError
from surefoot.registry import Paper, register

PAPER = Paper(
    "In Search of the Successful Interpolation: On the Role of Sharpness in CLIP Generalization",
    "Abdollahpoorrostam",
    2024,
)


@dataclass(frozen=True, eq=False)
class Stragglers(Record):
    """`barrier` (L,): mean over runs, nats; `stragglers`: layers whose barrier is above the tolerance in most runs;
    `by_layer` (L,): Spearman correlation of the layer's sharpness with accuracy away; `total`: of the whole model's, with
    its interval `low`, `high`; `straggling`: of the stragglers' summed sharpness with its interval, None without any."""

    barrier: np.ndarray
    stragglers: tuple[int, ...]
    by_layer: np.ndarray
    total: float
    low: float
    high: float
    straggling: dict[str, float] | None


@register("straggler_layers", kind="analysis", family="interpolation", papers=[PAPER])
class StragglerLayers(Analysis):
    """Layers with a barrier on the way to the tuned weights, b_l = max_a [L_l(a) - (1 - a) L_l(0) - a L_l(1)], and what
    sharpness tells.

    L_l(a): loss at home in nats with layer l alone at (1 - a) w_0 + a w_1. Call with `losses` (R, L, A) of R runs at the
    `alphas` (A,), from 0 to 1; `sharpness` (R, L) of each layer and `total` (R,) of all, at the interpolated weights;
    `away` (R,), what the interpolated models score away from home. `assess.stragglers.profile` measures the first three.
    Gives a `Stragglers`: layers whose b_l is above `tolerance` (0.01 nats, ours) in more than half of the runs, and
    Spearman correlations with the middle 95% of `draws` (1,000) draws of runs.

    The paper finds that the sharpness of straggler layers goes with accuracy away and that of the whole model does not;
    its thresholds could not be checked, no code is public. Raises RecipeError for fewer than 100 draws or a tolerance
    below zero, DataError for fewer than four runs or data that cannot serve. `merge/straggler_pruning` is its remedy.
    Reference: Abdollahpoorrostam 2024, by its abstract.
    """

    def __init__(self, *, tolerance: float = 0.01, draws: int = DRAWS, seed: int = SEED) -> None:
        if draws < 100:
            raise RecipeError(f"`draws` is {draws}: 95% intervals need 100 bootstrap draws or more")
        if not tolerance >= 0:
            raise RecipeError(f"`tolerance` is {tolerance}: it must be a number of nats of at least zero")
        self.tolerance, self.draws, self.seed = tolerance, draws, seed

    def __call__(self, *, losses: Any, alphas: Any, sharpness: Any, total: Any, away: Any) -> Stragglers:  # type: ignore[override]
        curve, at = numbers("losses", losses, dimensions=3, least=3), numbers("alphas", alphas, dimensions=1, least=3)
        layer = numbers("sharpness", sharpness, dimensions=2)
        whole, score = numbers("total", total, dimensions=1, least=4), numbers("away", away, dimensions=1, least=4)
        if not len(curve) == len(layer) == len(whole) == len(score) or curve.shape[1] != layer.shape[1]:
            raise DataError(
                f"`losses` are of {curve.shape[:2]} runs and layers and `sharpness` of {layer.shape}: give one row for each run and one column for each layer"
            )
        if curve.shape[2] != len(at) or (at[0], at[-1]) != (0.0, 1.0) or (np.diff(at) <= 0).any():
            raise DataError("`alphas` must rise from 0 to 1, with one loss for each")
        barrier = barriers(curve, at.tolist())
        chosen = np.flatnonzero((barrier > self.tolerance).mean(0) > 0.5)
        straggling = None
        if len(chosen):
            value, low, high = self._correlation(layer[:, chosen].sum(1), score)
            straggling = {"value": value, "low": low, "high": high}
        value, low, high = self._correlation(whole, score)
        by_layer = np.array([_spearman(column, score) for column in layer.T])
        return Stragglers(barrier.mean(0), tuple(chosen.tolist()), by_layer, value, low, high, straggling)

    def _correlation(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
        rng = np.random.default_rng(self.seed)
        rows = rng.integers(len(x), size=(self.draws, len(x)))
        return _spearman(x, y), *ends(np.array([_spearman(x[each], y[each]) for each in rows]))


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """0 where one of them does not vary."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)
