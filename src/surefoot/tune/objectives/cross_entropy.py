"""Cross-entropy."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import register
from surefoot.tune.objective import Objective
from surefoot.tune.step import Step


@register("cross_entropy", kind="objective", family="loss")
class CrossEntropy(Objective):
    """Cross-entropy of the labels: -log softmax(z)_y.

    z: logits (B, C); y: labels (B,). Gives (B,) in nats.
    """

    def per_example(self, step: Step) -> Tensor:
        return F.cross_entropy(step.output.logits, step.labels, reduction="none")
