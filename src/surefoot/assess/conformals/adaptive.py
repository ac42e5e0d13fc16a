"""Adaptive conformal inference over a stream."""

from __future__ import annotations

import numpy as np

from surefoot.assess.conformal import Conformal, conformal_quantile
from surefoot.errors import RecipeError
from surefoot.registry import Paper, register


@register(
    "adaptive",
    kind="conformal",
    family="shift",
    papers=[
        Paper("Adaptive Conformal Inference Under Distribution Shift", "Gibbs and Candès", 2021, arxiv="2106.00170")
    ],
)
class Adaptive(Conformal):
    """Adaptive conformal inference: LAC's sets at level alpha_t, which moves with every miss: alpha_{t+1} = alpha_t + gamma
    (alpha - err_t).

    alpha = 1 - coverage; err_t: 1 where the set of example t misses its label, which is seen before example t + 1, else 0;
    gamma: `step`, 0.005, the paper's. Set t: {c: 1 - p_c <= q(1 - alpha_t)}, q from the calibration examples, which stay;
    every class where alpha_t <= 0, none where alpha_t >= 1. p = softmax(z), z: logits (N, C). Gives sets (M, C) of bool,
    whose mean coverage is off by at most (max(alpha_1, 1 - alpha_1) + gamma) / (M gamma) whatever the stream does. With
    gamma 0 it is LAC. Fact: `levels_`, alpha_t (M,). Raises RecipeError for a negative step or a coverage not within (0, 1),
    DataError for too few examples, a stream without labels or data that cannot serve. Reference: Gibbs and Candès 2021.
    """

    needs_labels = True
    one_threshold = False

    def __init__(self, *, coverage: float = 0.9, step: float = 0.005, seed: int = 0) -> None:
        super().__init__(coverage=coverage, seed=seed)
        if not 0 <= step < float("inf"):
            raise RecipeError(f"`step` is {step}: it must be a finite number of at least 0")
        self.step = step

    def learn(self, probabilities: np.ndarray, labels: np.ndarray, inputs: np.ndarray) -> None:
        self.scores_ = np.sort(1 - probabilities[np.arange(len(labels)), labels])

    def choose(self, probabilities: np.ndarray, inputs: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        assert labels is not None
        alpha = level = 1 - self.coverage
        sets = np.empty(probabilities.shape, dtype=bool)
        levels = np.empty(len(labels))
        for t, (each, label) in enumerate(zip(probabilities, labels, strict=True)):
            levels[t] = level
            sets[t] = self._at(level) >= 1 - each
            level += self.step * (alpha - (not sets[t, label]))
        self.levels_ = levels
        return sets

    def _at(self, level: float) -> float:
        if level <= 0:
            return np.inf
        return -np.inf if level >= 1 else conformal_quantile(self.scores_, 1 - level)
