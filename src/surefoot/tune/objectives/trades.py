"""TRADES: accuracy and robustness as two terms."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from surefoot.attacks.pgd import EPSILON, whole
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, one_of, positive
from surefoot.tune.objectives.perturbed import ball_of, noise, target_of, worst
from surefoot.tune.step import Step

#: Deviation of the first noise over epsilon: 0.001 at 0.031 in the authors' code.
FIRST = 0.001 / 0.031


@register(
    "trades",
    kind="objective",
    family="adversarial",
    papers=[
        Paper(
            "Theoretically Principled Trade-off between Robustness and Accuracy",
            "Zhang et al.",
            2019,
            arxiv="1901.08573",
        )
    ],
)
class TRADES(Objective):
    """TRADES: CE(f(x), y) + beta max over ||x' - x|| <= epsilon of KL(f(x) || f(x')).

    f: softmax of the logits (B, C). x' by projected gradient ascent on the KL term, f(x) held fixed, from a small
    Gaussian noise, in eval mode; afterwards both passes have gradients. Images move in pixels of [0, 1]; texts in
    their input embeddings, each token within an l2 ball whose radius counts mean norms of the embedding matrix's rows.
    Gives (B,) in nats. The cross-entropy is part of it.

    epsilon: radius, at least 0; 8/255 (the authors' code: 0.031); 0 is cross-entropy to the bit. beta: at least 0; 6,
    the authors' code's; their grid is 1 to 10. steps: 10. step_size: above 0; a quarter of epsilon where None, near
    their 0.007. norm: linf or l2, for pixels. A step costs 1 + `steps` passes on top of its own.

    Raises RecipeError for values outside these ranges; ModelError if the inputs cannot be moved. Reference: Zhang et
    al. 2019, equation 5 and algorithm 1; yaodongyu/TRADES, trades.py.

    >>> TRADES().beta
    6.0
    """

    needs = frozenset({"inputs"})

    def __init__(
        self,
        *,
        epsilon: float = EPSILON,
        beta: float = 6.0,
        steps: int = 10,
        step_size: float | None = None,
        norm: Literal["linf", "l2"] = "linf",
    ) -> None:
        super().__init__()
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.beta = positive("beta", beta, zero=True)
        self.steps = whole("steps", steps)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.norm = one_of("norm", norm, ["linf", "l2"])

    def per_example(self, step: Step) -> Tensor:
        clean = step.output.logits
        losses = F.cross_entropy(clean, step.labels, reduction="none")
        if not (self.epsilon and self.beta):
            return losses
        target = target_of(step)
        ball = ball_of(target, self.epsilon, self.norm)  # type: ignore[arg-type]
        fixed = clean.detach()
        start = ball.project(
            target.x, target.x + FIRST * ball.epsilon * noise(target.x.shape, step.generator, fixed.device)
        )
        rate = self.step_size or self.epsilon / 4
        moved = worst(
            step, target, ball, lambda logits: divergence(fixed, logits), start=start, steps=self.steps, step_size=rate
        )
        return losses + self.beta * divergence(clean, target.logits(moved))

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"epsilon": Space(1e-3, 0.1, log=True), "beta": Space(1.0, 10.0, log=True)}


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL(p || q) of two sets of logits (B, C): (B,) in nats, gradient to both."""
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(other, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
