"""Sets under covariate shift."""

from __future__ import annotations

import numpy as np

from surefoot.assess.conformal import Conformal
from surefoot.assess.importance import density_ratios
from surefoot.registry import Paper, register


@register(
    "weighted",
    kind="conformal",
    family="shift",
    papers=[Paper("Conformal Prediction Under Covariate Shift", "Tibshirani et al.", 2019, arxiv="1904.06019")],
)
class Weighted(Conformal):
    """Weighted conformal sets: {c: 1 - p_c <= q(x)}, q(x) the quantile of scores weighted by how likely the target has them.

    q(x): the least s with sum_{i: s_i <= s} w_i >= coverage (sum_i w_i + w(x)), s_i = 1 - p_y of calibration example i,
    infinity where there is none; w = p_target / p_home from a classifier that tells the calibration inputs (N, D) from the
    target's (M, D), see `surefoot.assess.importance.density_ratios`; inputs are the model's features, or logits (N, C) where
    there are none. Gives sets (M, C) of bool. Right where only the inputs are distributed otherwise and w is known; here it
    is estimated, from the target examples at hand, all at once. With w = 1 it is LAC. Fact: `effective_`, the number of
    examples that the weighted ones are worth. Raises RecipeError for a coverage not within (0, 1), DataError for too few
    examples or data that cannot serve. Reference: Tibshirani et al. 2019.
    """

    needs_inputs = True
    one_threshold = False

    def learn(self, probabilities: np.ndarray, labels: np.ndarray, inputs: np.ndarray) -> None:
        scores = 1 - probabilities[np.arange(len(labels)), labels]
        order = np.argsort(scores, kind="stable")
        self.scores_, self.inputs_ = scores[order], inputs[order]

    def choose(self, probabilities: np.ndarray, inputs: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        ratios = density_ratios(self.inputs_, inputs)
        self.effective_ = ratios.effective
        return np.asarray(1 - probabilities <= self.thresholds(ratios.home, ratios.target)[:, None])

    def thresholds(self, home: np.ndarray, target: np.ndarray) -> np.ndarray:
        """q(x) (M,) from weights of the calibration examples, in the order of their scores (N,), and of the target's (M,)."""
        sums = np.cumsum(home)
        place = np.searchsorted(sums, self.coverage * (sums[-1] + target) * (1 - 1e-12))
        return np.asarray(np.append(self.scores_, np.inf)[place])
