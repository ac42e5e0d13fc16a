"""Early-learning regularisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction
from surefoot.tune.step import Step


@register(
    "elr",
    kind="objective",
    family="noisy_labels",
    papers=[
        Paper(
            "Early-Learning Regularization Prevents Memorization of Noisy Labels",
            "Liu et al.",
            2020,
            arxiv="2007.00151",
        )
    ],
)
class ELR(Objective):
    """Early-learning regularisation, against memorising wrong labels: log(1 - <t_i, p_i>).

    p_i = softmax(z_i), clamped to [1e-4, 1 - 1e-4]; z: logits (B, C). t_i (C,): the example's target, an average of the
    predictions that the model has made for it, moved once a step before the loss is taken and without gradient:
    t_i <- beta t_i + (1 - beta) p_i / sum_c p_ic, from 0. Gives (B,) in nats, at most 0: the weight is the paper's
    lambda. It is the regulariser alone; cross-entropy is an objective of its own.

    beta: momentum of the targets, in [0, 1); 0 takes the present prediction. The paper: beta 0.7, lambda 3 (CIFAR-10);
    0.9, 7 (CIFAR-100). What counts is passes over the data: an example's target moves once an epoch, and in a single
    epoch it is (1 - beta) times the present prediction.

    State: `targets` (N, C), one row per training example. Raises RecipeError if beta lies outside [0, 1).
    Reference: Liu et al. 2020; shengliu66/ELR, model/loss.py.

    >>> ELR(beta=0.7).beta
    0.7
    """

    needs = frozenset({"index"})
    targets: Tensor

    def __init__(self, *, beta: float = 0.7) -> None:
        super().__init__()
        self.beta = fraction("beta", beta)

    def setup(self, context: Context) -> None:
        device = context.labels.device
        self.register_buffer("targets", torch.zeros(context.examples, len(context.classes), device=device))

    def _probabilities(self, step: Step) -> Tensor:
        return F.softmax(step.output.logits, dim=1).clamp(1e-4, 1 - 1e-4)

    @torch.no_grad()
    def update(self, step: Step) -> None:
        p = self._probabilities(step)
        index = step.batch.index
        self.targets[index] = self.beta * self.targets[index] + (1 - self.beta) * p / p.sum(1, keepdim=True)

    def per_example(self, step: Step) -> Tensor:
        targets = self.targets[step.batch.index]
        return torch.log(1 - (targets * self._probabilities(step)).sum(1))

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"beta": Space(0.0, 0.99)}
