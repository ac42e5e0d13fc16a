"""Entropy minimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Objective
from surefoot.tune.step import Step


@register(
    "entropy",
    kind="objective",
    family="loss",
    papers=[
        Paper(
            "Semi-supervised Learning by Entropy Minimization",
            "Grandvalet and Bengio",
            2004,
            link="https://papers.nips.cc/paper/2740-semi-supervised-learning-by-entropy-minimization",
        ),
        Paper("AutoFT: Learning an Objective for Robust Fine-Tuning", "Choi et al.", 2024, arxiv="2401.10220"),
    ],
)
class Entropy(Objective):
    """Entropy of the predictions: H(p) = -sum_c p_c log p_c.

    p = softmax(z); z: logits (B, C). Gives (B,) in nats, at most log C. It reads no labels; a positive weight makes
    the model more certain. AutoFT applies it to the labelled batch.

    Reference: Grandvalet and Bengio 2004; cchoi1/auto-ft, losses/learnedloss.py.
    """

    def per_example(self, step: Step) -> Tensor:
        log_p = F.log_softmax(step.output.logits, dim=1)
        return -(log_p.exp() * log_p).sum(1)
