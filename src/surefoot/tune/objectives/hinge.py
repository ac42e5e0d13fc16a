"""Multi-class hinge loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, one_of, positive
from surefoot.tune.step import Step


@register(
    "hinge",
    kind="objective",
    family="loss",
    papers=[
        Paper(
            "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines",
            "Crammer and Singer",
            2001,
            link="https://www.jmlr.org/papers/v2/crammer01a.html",
        ),
        Paper("Support Vector Machines for Multi-Class Pattern Recognition", "Weston and Watkins", 1999),
    ],
)
class Hinge(Objective):
    """Multi-class hinge loss: sum (or max) over c != y of max(0, margin + z_c - z_y).

    z: logits (B, C); y: labels (B,). Gives (B,) in units of the logits.

    margin: by how much the right logit should lead, above 0; 1 as in AutoFT.
    violations: "sum" over the wrong classes (Weston and Watkins; what AutoFT's code does, the default) or "max"
    (Crammer and Singer). With two classes they are the same.

    Raises RecipeError if the margin is not above zero or `violations` is neither.
    Reference: Crammer and Singer 2001; Weston and Watkins 1999; cchoi1/auto-ft, losses/utils.py.

    >>> Hinge(margin=1.0, violations="max").margin
    1.0
    """

    def __init__(self, *, margin: float = 1.0, violations: Literal["sum", "max"] = "sum") -> None:
        super().__init__()
        self.margin = positive("margin", margin)
        self.violations = one_of("violations", violations, ["sum", "max"])

    def per_example(self, step: Step) -> Tensor:
        logits = step.output.logits
        right = F.one_hot(step.labels, logits.shape[1]).bool()
        lead = logits.gather(1, step.labels[:, None])
        violations = (self.margin + logits - lead).clamp_min(0).masked_fill(right, 0)
        return violations.sum(1) if self.violations == "sum" else violations.amax(1)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"margin": Space(0.1, 10.0, log=True)}
