"""Doubly robust reweighting: the mean of the exponentials of the losses, which heeds the most vulnerable examples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, fraction, positive
from surefoot.tune.reducer import Reducer
from surefoot.tune.step import Step


@register(
    "doubly_robust",
    kind="reducer",
    family="adversarial",
    papers=[
        Paper(
            "Doubly Robust Instance-Reweighted Adversarial Training",
            "Sow et al.",
            2024,
            link="https://openreview.net/forum?id=OF5x1dzWSS",
        )
    ],
)
class DoublyRobust(Reducer):
    """KL-regularised DRO over examples: r log((1/N) sum_i exp(l_i / r)) = max_w sum_i w_i l_i - r KL(w || uniform).

    l_i: loss of example i; its weight is w_i ~ exp(l_i / r), the closed form of the maximum over the simplex. With
    `pgd_at` as the objective examples that are easily attacked count most, which is the paper's outer problem. The mean
    over all N examples stands under a logarithm, so that a batch's own is biased; as in the paper's compositional
    descent a moving average takes its place,

    u <- (1 - eta) u + eta mean_batch exp(l_i / r);   gradient = mean_batch (exp(l_i / r) / u) grad l_i,

    moved once a step before the loss is taken, in logarithms. Weights are at most B / eta. Gives a scalar in units of
    the losses, whose gradient that is. Example weights, if any, weigh in the mean. The paper's inner problem has a
    logarithmic barrier in place of the ball and is differentiated through; here it is plain PGD, whose x' is held fixed.

    r: temperature, above 0, in units of the losses; 1; a large one is the mean. eta: in (0, 1], 0.1; with 1 the batch
    alone counts. Neither value is published.

    State: `log_u`. Raises RecipeError for values out of range. Reference: Sow et al. 2024, equations 5 to 7.

    >>> DoublyRobust(r=0.5).eta
    0.1
    """

    log_u: Tensor

    def __init__(self, *, r: float = 1.0, eta: float = 0.1) -> None:
        super().__init__()
        self.r = positive("r", r)
        self.eta = positive("eta", fraction("eta", eta, one=True))

    def setup(self, context: Context) -> None:
        self.register_buffer("log_u", torch.tensor(-math.inf))

    @torch.no_grad()
    def update(self, losses: Tensor, step: Step) -> None:
        here = self._log_mean(losses.detach(), step)
        if torch.isneginf(self.log_u):
            self.log_u.copy_(here)
        elif self.eta < 1:
            self.log_u.copy_(torch.logaddexp(self.log_u + math.log1p(-self.eta), here + math.log(self.eta)))
        else:
            self.log_u.copy_(here)

    def forward(self, losses: Tensor, step: Step) -> Tensor:
        share = self._share(losses, step)
        fixed = losses.detach()
        log_u = torch.where(torch.isneginf(self.log_u), self._log_mean(fixed, step), self.log_u)
        weights = (fixed / self.r - log_u).clamp(max=math.log(len(losses) / self.eta)).exp()
        # The value is r log u, its gradient that of the weighted losses.
        weighted = (share * weights * losses).sum()
        return self.r * log_u + weighted - weighted.detach()

    def _log_mean(self, losses: Tensor, step: Step) -> Tensor:
        """log of the batch's mean of exp(l / r)."""
        return torch.logsumexp(losses / self.r + self._share(losses, step).clamp_min(1e-30).log(), 0)

    @staticmethod
    def _share(losses: Tensor, step: Step) -> Tensor:
        """Each example's part of the batch: (B,), adding up to 1."""
        weight = step.batch.weight
        if weight is None:
            return torch.full_like(losses, 1 / len(losses))
        return weight / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)
