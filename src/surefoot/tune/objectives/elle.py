"""ELLE and ELLE-A: the loss stays linear within the ball, so that one-step adversarial training does not collapse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.attacks.ball import Ball
from surefoot.attacks.pgd import EPSILON
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction, positive
from surefoot.tune.objectives.perturbed import ball_of, target_of
from surefoot.tune.step import Step


@register(
    "elle",
    kind="objective",
    family="adversarial",
    papers=[
        Paper(
            "Efficient local linearity regularization to overcome catastrophic overfitting",
            "Abad Rocamora et al.",
            2024,
            arxiv="2401.11618",
        )
    ],
)
class ELLE(Objective):
    """Penalises what keeps the loss from being linear near x: (L(x_c) - (1 - a) L(x_a) - a L(x_b))^2.

    x_a, x_b drawn uniformly from the ball of radius epsilon around x, not clipped to the range of pixels;
    x_c = (1 - a) x_a + a x_b; a ~ U[0, 1] for each example; L: cross-entropy (B,). Gives (B,) in squared nats, at least
    0, and 0 where the loss is linear in the ball. Beside `pgd_at` with steps: 1, whose collapse it prevents; its weight
    is the paper's lambda, thousands at 8/255 (5000 in the authors' ImageNet settings). Three passes forwards a step; no
    gradient of a gradient. Images move in pixels; texts in their input embeddings, each token within an l2 ball whose
    radius counts mean norms of the embedding matrix's rows.

    epsilon: radius, at least 0; that of the adversarial training, 8/255; 0 gives 0. adaptive: ELLE-A: the weight is
    multiplied by a factor, 0 at first; after a step whose error lies more than `sensitivity` deviations above the mean
    of those before it is 1, else it shrinks by `decay`. That costs three more passes forwards. sensitivity: 2, decay:
    0.99, the paper's.

    State: `factor`, `following` (of the next step), `count`, `mean`, `squares` of the errors. Raises RecipeError for
    values out of range; ModelError if the inputs cannot be moved. Reference: Abad Rocamora et al. 2024, section 4;
    LIONS-EPFL/ELLE, core/utils/train.py.

    >>> ELLE(adaptive=True).sensitivity
    2.0
    """

    needs = frozenset({"inputs"})
    factor: Tensor
    following: Tensor
    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(
        self, *, epsilon: float = EPSILON, adaptive: bool = False, sensitivity: float = 2.0, decay: float = 0.99
    ) -> None:
        super().__init__()
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.adaptive = bool(adaptive)
        self.sensitivity = positive("sensitivity", sensitivity, zero=True)
        self.decay = fraction("decay", decay)

    def setup(self, context: Context) -> None:
        if self.adaptive:
            for name in ("factor", "following", "count", "mean", "squares"):
                self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, step: Step) -> None:
        if not (self.adaptive and self.epsilon):
            return
        # A generator of its own, in the same state: the loss then draws the same points.
        generator = torch.Generator(step.generator.device)
        generator.set_state(step.generator.get_state())
        error = self._errors(step, generator).mean().double()
        self.factor.copy_(self.following)
        spread = (self.squares / self.count.clamp_min(1)).sqrt()
        jumped = (self.count > 2) & (error > self.mean + self.sensitivity * spread)
        self.following.copy_(torch.where(jumped, torch.ones_like(self.factor), self.decay * self.factor))
        self.count.add_(1)
        away = error - self.mean
        self.mean.add_(away / self.count)
        self.squares.add_(away * (error - self.mean))

    def per_example(self, step: Step) -> Tensor:
        if not self.epsilon:
            return 0 * step.output.logits.sum(1)
        errors = self._errors(step, step.generator)
        return errors * self.factor.to(errors.dtype) if self.adaptive else errors

    def _errors(self, step: Step, generator: torch.Generator) -> Tensor:
        """The squared departure from linearity of each example: (B,)."""
        target = target_of(step)
        ball = ball_of(target, self.epsilon, "linf")
        unbounded = Ball(ball.norm, ball.epsilon)
        first, second = (unbounded.draw(target.x, generator) for _ in range(2))
        share = torch.rand(len(target.x), generator=generator, device=generator.device).to(target.x.device)
        wide = share.view(-1, *[1] * (target.x.ndim - 1))
        at_first, at_second, between = (
            F.cross_entropy(target.logits(x), step.labels, reduction="none")
            for x in (first, second, (1 - wide) * first + wide * second)
        )
        return (between - (1 - share) * at_first - share * at_second).square()

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"epsilon": Space(1e-3, 0.1, log=True)}
