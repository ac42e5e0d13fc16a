"""Label shift: the stream's label shares as they show so far, and Bayes' rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from surefoot.adapt.adapter import TestTimeAdapter
from surefoot.assess.prior import PriorEstimator
from surefoot.assess.priors.mlls import MLLS
from surefoot.registry import Paper, register
from surefoot.tune.build import build
from surefoot.tune.objective import fraction, one_of
from surefoot.tune.selections import whole
from surefoot.tune.step import Batch, Output

#: Prior estimators that it can go by.
PRIORS = ("mlls", "bbse", "rlls")


@register(
    "label_shift",
    kind="test_time_adapter",
    family="prior",
    papers=[
        Paper(
            "Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple Procedure",
            "Saerens et al.",
            2002,
            link="https://doi.org/10.1162/089976602753284446",
        ),
        Paper(
            "Detecting and Correcting for Label Shift with Black Box Predictors",
            "Lipton et al.",
            2018,
            arxiv="1802.03916",
        ),
        Paper(
            "Regularized Learning for Domain Adaptation under Label Shifts",
            "Azizzadenesheli et al.",
            2019,
            arxiv="1903.09734",
        ),
    ],
)
class LabelShift(TestTimeAdapter):
    """Answers log p(y | x) under the label shares that the stream has shown so far, this batch included.

    p(y | x) is proportional to q_y(x) pi_y / p_y: q, home's calibrated probabilities (temperature and one bias per class,
    fitted to home by maximum likelihood); p, home's label shares; pi = (1 - strength) p + strength (the shares that
    `prior` estimates from all logits of the stream so far). Until `least` examples have passed, pi = p. Right where the
    label shares are all that differs from home; the weights do not move.

    prior: mlls, bbse or rlls, the registered estimators with their defaults. strength: 1; 0 is the frozen model, whose
    logits are given as they are. least: 50, from which on an estimate is trusted (`assess/prior.py`).
    Gives logits (B, C). Raises RecipeError for options out of range, DataError without labelled home examples.
    References: Saerens et al. 2002; Lipton et al. 2018; Azizzadenesheli et al. 2019.
    """

    home = "required"
    stays = True
    still: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(self, *, prior: str = "mlls", strength: float = 1.0, least: int = 50) -> None:
        self.prior = one_of("prior", prior, PRIORS)
        self.strength = fraction("strength", strength, one=True)
        self.least = whole("least", least, least=1)

    def prepare(self) -> None:
        assert self.known is not None
        self.seen: list[np.ndarray] = []
        logits = self.home_outputs()[1].cpu().numpy()
        self.calibrated = MLLS().fit(logits, self.known.labels)
        self.estimator: PriorEstimator = build("prior", self.prior).fit(logits, self.known.labels)
        self.shares = np.bincount(self.known.labels, minlength=logits.shape[1]) / len(self.known)

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Output:
        found = self.output(batch)
        if not self.strength or not torch.isfinite(found.logits).all():
            return found
        self.seen.append(found.logits.cpu().double().numpy())
        together = np.concatenate(self.seen)
        shares = self.shares
        if len(together) >= self.least:
            shares = (1 - self.strength) * shares + self.strength * self.estimator.predict(together)
        posterior = self.calibrated.posterior(self.seen[-1], shares)
        logits = torch.from_numpy(np.log(np.maximum(posterior, 1e-30))).to(found.logits)
        return replace(found, logits=logits)
