"""Focal loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.step import Step


@register(
    "focal",
    kind="objective",
    family="loss",
    papers=[Paper("Focal Loss for Dense Object Detection", "Lin et al.", 2017, arxiv="1708.02002")],
)
class Focal(Objective):
    """Focal loss, cross-entropy that leaves out what is already easy: FL = -(1 - p_y)^gamma log p_y.

    p = softmax(z); z: logits (B, C); y: labels (B,). Gives (B,) in nats.

    gamma: how fast the weight of an easy example falls, at least 0; 0 is cross-entropy. The paper's best is 2.
    The paper's class weight alpha_t is left to a reducer or to example weights.

    Raises RecipeError if gamma is negative or not finite. Reference: Lin et al. 2017, equation 4.

    >>> Focal(gamma=2.0).gamma
    2.0
    """

    def __init__(self, *, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = positive("gamma", gamma, zero=True)

    def per_example(self, step: Step) -> Tensor:
        loss = F.cross_entropy(step.output.logits, step.labels, reduction="none")
        # 1 - p_y without cancellation; kept off zero, where a power below one has no finite slope.
        doubt = (-torch.expm1(-loss)).clamp_min(1e-12)
        return doubt**self.gamma * loss

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"gamma": Space(0.0, 5.0)}
