"""LDIFS: features stay near where the starting model has them."""

from __future__ import annotations

from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Objective
from surefoot.tune.step import Step


@register(
    "ldifs",
    kind="objective",
    family="features",
    papers=[
        Paper(
            "Fine-tuning can cripple your foundation model; preserving features may be the solution",
            "Mukhoti et al.",
            2024,
            arxiv="2308.13320",
        )
    ],
)
class LDIFS(Objective):
    """Squared l2 distance in feature space: ||f(x; theta) - f(x; theta_0)||_2^2.

    f: pooled features (D,), as the model gives them; theta_0: the starting weights, whose features are computed once.
    Gives (B,) in squared units of the features, at least 0. It reads no labels and costs no further pass. The weight is
    the paper's lambda, which it tunes on held-out data of home. The paper's f joins features of several layers; here it
    is what an embedding is used for, the last one. With pairs it holds the anchors.

    Reference: Mukhoti et al. 2024, section 5.

    >>> LDIFS().reads_labels
    False
    """

    needs = frozenset({"reference"})
    reads_labels = False

    def per_example(self, step: Step) -> Tensor:
        return (step.output.features - step.reference.features).square().sum(1)
