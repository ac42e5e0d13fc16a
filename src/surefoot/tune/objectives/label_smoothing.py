"""Label smoothing."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction
from surefoot.tune.step import Step


@register(
    "label_smoothing",
    kind="objective",
    family="loss",
    papers=[
        Paper("Rethinking the Inception Architecture for Computer Vision", "Szegedy et al.", 2016, arxiv="1512.00567")
    ],
)
class LabelSmoothing(Objective):
    """Cross-entropy to smoothed labels: -(1 - epsilon) log p_y - (epsilon / C) sum_c log p_c.

    p = softmax(z); z: logits (B, C); y: labels (B,). Gives (B,) in nats. It stands in place of cross-entropy.

    epsilon: share of the target that is spread over all C classes, in [0, 1); 0 is cross-entropy. The paper's is 0.1.

    Raises RecipeError if epsilon lies outside [0, 1). Reference: Szegedy et al. 2016, section 7.

    >>> LabelSmoothing(epsilon=0.1).epsilon
    0.1
    """

    def __init__(self, *, epsilon: float = 0.1) -> None:
        super().__init__()
        self.epsilon = fraction("epsilon", epsilon)

    def per_example(self, step: Step) -> Tensor:
        return F.cross_entropy(step.output.logits, step.labels, reduction="none", label_smoothing=self.epsilon)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"epsilon": Space(0.01, 0.3, log=True)}
