"""Class-conditional sets."""

from __future__ import annotations

import numpy as np

from surefoot.assess.conformal import Conformal, conformal_quantile
from surefoot.registry import Paper, register


@register(
    "mondrian",
    kind="conformal",
    family="split",
    papers=[Paper("Conditional validity of inductive conformal predictors", "Vovk", 2012, arxiv="1209.2673")],
)
class Mondrian(Conformal):
    """Class-conditional (Mondrian) sets: {c: 1 - p_c <= q_c}, q_c from the calibration examples of class c alone.

    q_c: the ceil((n_c + 1) coverage)-th smallest 1 - p_c of the n_c examples of c; infinity, so that c is in every set, where
    n_c is too small for the coverage (9 examples for 0.9). p = softmax(z), z: logits (N, C). Gives sets (M, C) of bool that
    hold the truth as often for rare and hard classes as for others, which also makes them hold under a label shift (Podkopaev
    and Ramdas 2021). Raises RecipeError for a coverage not within (0, 1), DataError for too few examples or data that cannot
    serve. Reference: Vovk 2012.
    """

    one_threshold = False

    def learn(self, probabilities: np.ndarray, labels: np.ndarray, inputs: np.ndarray) -> None:
        own = 1 - probabilities[np.arange(len(labels)), labels]
        classes = range(probabilities.shape[1])
        self.thresholds_ = np.array([conformal_quantile(own[labels == c], self.coverage) for c in classes])

    def choose(self, probabilities: np.ndarray, inputs: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        return np.asarray(1 - probabilities <= self.thresholds_)
