"""PGD: projected gradient ascent on the loss, from a random start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.attacks.attack import Attack, Target
from surefoot.attacks.ball import NORMS, Ball, Norm
from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import one_of, positive

PAPER = Paper("Towards Deep Learning Models Resistant to Adversarial Attacks", "Madry et al.", 2018, arxiv="1706.06083")
EPSILON = 8 / 255


def ascend(
    loss: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, ball: Ball, *, steps: int, step_size: float
) -> Tensor:
    """x_(n+1) = project(x_n + step_size direction(grad loss(x_n))), `steps` times from `start`: (N, ...) of x's kind.

    loss: x' to (N,). Nothing but x' gets a gradient.
    """
    moved = start.detach()
    for _ in range(steps):
        moved.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(moved).sum(), moved)
        with torch.no_grad():
            moved = ball.project(x, moved.detach() + step_size * ball.direction(gradient))
    return moved.detach()


def whole(name: str, value: int, *, least: int = 1) -> int:
    """Validate a count."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RecipeError(f"`{name}` is {value}: it must be a whole number of at least {least}")
    return value


@register("pgd", kind="attack", family="gradient", papers=[PAPER])
class PGD(Attack):
    """Projected gradient ascent: x_(n+1) = project(x_n + step_size d(grad_x CE(f(x_n), y))), from a random point.

    d: the sign for `linf`, the gradient over its norm for `l2`; project: the nearest point of the ball of radius
    epsilon around x, then of the range of pixels. Of all points on the way, restarts included, the first that the
    model gets wrong is kept, else the last. Gives x' in the shape of x.

    epsilon: radius, at least 0, in units of pixels in [0, 1]; 8/255, the usual one of CIFAR-10 for `linf` (0.5 for
    `l2`). steps: 10 ("PGD-10"). step_size: above 0; a quarter of epsilon where None, as 2/255 is of 8/255. norm: linf
    or l2. restarts: random starts, 1. One pass forwards and backwards a step, restarts times.

    Raises RecipeError for values out of range; ModelError for a model of texts (`embedding_pgd` moves those).
    Reference: Madry et al. 2018, section 2.

    >>> PGD(steps=20).step_size is None
    True
    """

    def __init__(
        self,
        *,
        epsilon: float = EPSILON,
        steps: int = 10,
        step_size: float | None = None,
        norm: Norm = "linf",
        restarts: int = 1,
    ) -> None:
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.steps = whole("steps", steps)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.norm: Norm = one_of("norm", norm, self._norms())  # type: ignore[assignment]
        self.restarts = whole("restarts", restarts)

    def perturb(self, target: Target) -> Tensor:
        found = target.x.clone()
        if not self.epsilon:
            return found
        ball = target.ball(self.norm, self.epsilon)
        size = (self.step_size or self.epsilon / 4) * target.unit
        left = torch.arange(len(found), device=found.device)
        for _ in range(self.restarts):
            each = target.take(left)
            moved, right = each.x, torch.ones_like(left, dtype=torch.bool)
            for moved, logits in self._path(each, ball, size):
                # What is already wrong stays; the rest follows the path.
                found[left[right]] = moved[right]
                right = right & (logits.argmax(1) == each.labels)
            left = left[right]
            if not len(left):
                break
        return found

    def _path(self, target: Target, ball: Ball, size: float):  # type: ignore[no-untyped-def]
        """Every point that the ascent comes to, with its logits (N, C)."""
        moved = ball.draw(target.x, target.generator)
        for number in range(self.steps + 1):
            moved.requires_grad_(number < self.steps)
            with torch.set_grad_enabled(number < self.steps):
                logits = target.logits(moved)
            yield moved.detach(), logits.detach()
            if number < self.steps:
                loss = F.cross_entropy(logits, target.labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, moved)
                with torch.no_grad():
                    moved = ball.project(target.x, moved.detach() + size * ball.direction(gradient))

    @staticmethod
    def _norms() -> tuple[str, ...]:
        return NORMS
