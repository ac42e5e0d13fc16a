"""Confidence minimisation on the examples that the model gets wrong."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Objective, one_of
from surefoot.tune.step import Step


@register(
    "confidence_minimization",
    kind="objective",
    family="loss",
    papers=[
        Paper("AutoFT: Learning an Objective for Robust Fine-Tuning", "Choi et al.", 2024, arxiv="2401.10220"),
        Paper(
            "Conservative Prediction via Data-Driven Confidence Minimization", "Choi et al.", 2023, arxiv="2306.04974"
        ),
    ],
)
class ConfidenceMinimization(Objective):
    """AutoFT's term on what the model gets wrong: 1[argmax z != y] H(p), or the distance of p from uniform there.

    p = softmax(z); z: logits (B, C); y: labels (B,); H(p) = -sum_c p_c log p_c. Gives (B,) in nats, 0 where the model
    is right. The indicator passes no gradient; tied logits count as a prediction of the first of them.

    penalize: what is made small on the misclassified examples.
    "entropy" (default): H(p), exactly as AutoFT's code adds it, with a weight above zero. Mind the sign: this makes
    the model *more* certain where it is wrong, against the name that the code gives it.
    "confidence": -(1/C) sum_c log p_c, the cross-entropy to uniform that data-driven confidence minimisation lowers on
    examples to be uncertain about. At least log C.

    Raises RecipeError if `penalize` is neither.
    Reference: cchoi1/auto-ft, losses/learnedloss.py (`dcm`); Choi et al. 2023.

    >>> ConfidenceMinimization(penalize="confidence").penalize
    'confidence'
    """

    def __init__(self, *, penalize: Literal["entropy", "confidence"] = "entropy") -> None:
        super().__init__()
        self.penalize = one_of("penalize", penalize, ["entropy", "confidence"])

    def per_example(self, step: Step) -> Tensor:
        logits = step.output.logits
        log_p = F.log_softmax(logits, dim=1)
        wrong = (logits.detach().argmax(1) != step.labels).float()
        if self.penalize == "entropy":
            return -wrong * (log_p.exp() * log_p).sum(1)
        return -wrong * log_p.mean(1)
