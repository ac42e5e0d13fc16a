"""Feasible learning: every example's loss below a level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, fraction, positive
from surefoot.tune.reducer import Reducer
from surefoot.tune.step import Step


@register(
    "feasible_learning",
    kind="reducer",
    family="constrained",
    papers=[Paper("Feasible Learning", "Ramirez et al.", 2025, arxiv="2501.14912")],
)
class FeasibleLearning(Reducer):
    """Every example's loss below a level, min over theta, max over lambda >= 0 of sum_i lambda_i (l_i - epsilon).

    epsilon = -log(p_min): the cross-entropy of an example whose label has probability p_min. lambda: one multiplier for
    each training example, 0 at first. A step moves those of the batch, then descends on mean_B lambda_i l_i:
    lambda_i <- max(0, lambda_i + eta (l_i - epsilon)), or, with `alpha`, lambda_i + eta (l_i - epsilon - lambda_i /
    alpha): the resilient version, where a slack xi_i costs alpha / 2 xi_i^2, for data that no model fits. Gives a
    scalar in units of the losses; examples that are below the level for long end with no weight at all.

    l_i is the weighted sum of the recipe's per-example terms, so that the level means what it says where that is
    cross-entropy with weight 1. The paper's sum over the batch is divided by B here, and its controller for the
    multipliers (nuPI) is plain ascent; only an optimizer that does not scale its step by the gradient sees either.

    p_min: in (0, 1); 0.6, the paper's for classification. eta: above 0; 1e-4, the paper's for CIFAR-10. alpha: above
    0, or None for no slack (the default); the paper's experiments have 1 and 2.

    State: `multipliers` (N,). Raises RecipeError for values outside these ranges. Reference: Ramirez et al. 2025;
    juan43ramirez/feasible-learning, src/cmps/feasibility.py.

    >>> FeasibleLearning(p_min=0.5).epsilon
    0.6931471805599453
    """

    needs = frozenset({"index"})
    multipliers: Tensor

    def __init__(self, *, p_min: float = 0.6, eta: float = 1e-4, alpha: float | None = None) -> None:
        super().__init__()
        self.p_min = fraction("p_min", positive("p_min", p_min))
        self.eta = positive("eta", eta)
        self.alpha = None if alpha is None else positive("alpha", alpha)
        if self.alpha is not None and self.eta > self.alpha:
            raise RecipeError(f"`eta` is {eta} and `alpha` {alpha}: multipliers would swing, lower `eta` below `alpha`")

    @property
    def epsilon(self) -> float:
        """The level, in nats."""
        return -math.log(self.p_min)

    def setup(self, context: Context) -> None:
        self.register_buffer("multipliers", torch.zeros(context.examples))

    @torch.no_grad()
    def update(self, losses: Tensor, step: Step) -> None:
        index = step.batch.index
        before = self.multipliers[index]
        slack = before / self.alpha if self.alpha is not None else 0.0
        self.multipliers[index] = (before + self.eta * (losses - self.epsilon - slack)).clamp_min(0)

    def forward(self, losses: Tensor, step: Step) -> Tensor:
        terms = self.multipliers[step.batch.index] * losses
        if step.batch.weight is None:
            return terms.mean()
        return (step.batch.weight * terms).sum() / step.batch.weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)
