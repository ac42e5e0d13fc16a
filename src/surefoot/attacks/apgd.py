"""APGD: projected gradient ascent that chooses its own step sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.attacks.attack import Attack, Target
from surefoot.attacks.ball import NORMS, TINY, Ball, Norm
from surefoot.attacks.pgd import EPSILON, whole
from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, one_of, positive

PAPER = Paper(
    "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    "Croce and Hein",
    2020,
    arxiv="2003.01690",
)
#: Weight of the new point beside the momentum, from the second step on.
MOMENTUM = 0.75
#: Of logits (N, C), labels (N,) and the classes aimed at (N,), which only the targeted one reads: (N,).
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def checkpoints(steps: int) -> list[int]:
    """After how many steps the step size is looked at: ceil(p_j steps), p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06).

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    before, here, found = 0, 22, []
    while here <= 100:
        found.append(-(-here * steps // 100))
        before, here = here, here + max(here - before - 3, 6)
    return [each for each in dict.fromkeys(found) if each > 0]


def dlr(logits: Tensor, labels: Tensor, aims: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_(i != y) z_i) / (z_(1) - z_(3)): (N,), above 0 where wrong; C >= 3."""
    ordered = logits.sort(dim=1, descending=True).values
    other = torch.where(logits.argmax(1) == labels, ordered[:, 1], ordered[:, 0])
    return -(_at(logits, labels) - other) / (ordered[:, 0] - ordered[:, 2] + TINY)


def dlr_targeted(logits: Tensor, labels: Tensor, aims: Tensor) -> Tensor:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), t the class aimed at: (N,); C >= 4."""
    ordered = logits.sort(dim=1, descending=True).values
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    return -(_at(logits, labels) - _at(logits, aims)) / (scale + TINY)


def cross_entropy(logits: Tensor, labels: Tensor, aims: Tensor) -> Tensor:
    """In nats: (N,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


@dataclass
class _State:
    """One row an example."""

    aims: Tensor
    moved: Tensor
    before: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    size: Tensor
    risen: Tensor
    checked_loss: Tensor
    halved: Tensor

    def take(self, where: Tensor) -> _State:
        return _State(**{name: value[where] for name, value in vars(self).items()})


def climb(
    target: Target, ball: Ball, loss: Loss, *, steps: int, rho: float = 0.75, aims: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One run of APGD: x' (N, ...), and whether the model gets it right (N,). Examples already wrong drop out.

    z = project(x_n + size d(grad)),  x_(n+1) = project(x_n + 0.75 (z - x_n) + 0.25 (x_n - x_(n-1))), size = 2 epsilon
    at first. At a checkpoint the size is halved, and the ascent goes on from the best point so far, where the loss rose
    in at most rho of the steps since the last one, or where the size stayed and the best loss has not risen since.
    """
    found, right = target.x.clone(), torch.ones(len(target.x), dtype=torch.bool, device=target.x.device)
    left = torch.arange(len(found), device=found.device)
    start = ball.draw_surface(target.x, target.generator)
    aims = target.labels if aims is None else aims
    value, gradient, correct = _look(target, loss, start, aims)
    found[~correct], right = start[~correct], right & correct
    state = _State(
        aims=aims,
        moved=start,
        before=start,
        gradient=gradient,
        loss=value,
        best=start,
        best_gradient=gradient,
        best_loss=value,
        size=torch.full([len(start)] + [1] * (start.ndim - 1), 2 * ball.epsilon, device=start.device),
        risen=torch.zeros_like(value),
        checked_loss=value,
        halved=torch.ones_like(correct),
    )
    last, marks = 0, set(checkpoints(steps))
    for number in range(1, steps + 1):
        keep = right[left]
        if not keep.all():
            left, state, target = left[keep], state.take(keep), target.take(keep)
        if not len(left):
            break
        _move(state, target.x, ball, share=MOMENTUM if number > 1 else 1.0)
        value, state.gradient, correct = _look(target, loss, state.moved, state.aims)
        found[left[~correct]] = state.moved[~correct]
        right[left] = correct
        _remember(state, value)
        if number in marks:
            _check(state, number - last, rho)
            last = number
    return found, right


def _look(target: Target, loss: Loss, x: Tensor, aims: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (N,), its gradient (N, ...), whether right (N,)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = target.logits(x)
        value = loss(logits, target.labels, aims)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient, logits.detach().argmax(1) == target.labels


@torch.no_grad()
def _move(state: _State, x: Tensor, ball: Ball, *, share: float) -> None:
    z = ball.project(x, state.moved + state.size * ball.direction(state.gradient))
    ahead = state.moved + share * (z - state.moved) + (1 - share) * (state.moved - state.before)
    state.before, state.moved = state.moved, ball.project(x, ahead)


def _remember(state: _State, value: Tensor) -> None:
    state.risen = state.risen + (value > state.loss)
    better = value > state.best_loss
    wide = better.view(-1, *[1] * (state.moved.ndim - 1))
    state.best = torch.where(wide, state.moved, state.best)
    state.best_gradient = torch.where(wide, state.gradient, state.best_gradient)
    state.best_loss = torch.where(better, value, state.best_loss)
    state.loss = value


def _check(state: _State, steps: int, rho: float) -> None:
    stuck = ~state.halved & (state.checked_loss >= state.best_loss)
    halve = (state.risen <= rho * steps) | stuck
    wide = halve.view(-1, *[1] * (state.moved.ndim - 1))
    state.size = torch.where(wide, state.size / 2, state.size)
    state.moved = torch.where(wide, state.best, state.moved)
    state.gradient = torch.where(wide, state.best_gradient, state.gradient)
    state.halved, state.checked_loss = halve, state.best_loss
    state.risen = torch.zeros_like(state.risen)


@register("apgd", kind="attack", family="gradient", papers=[PAPER])
class APGD(Attack):
    """Auto-PGD: projected gradient ascent with momentum whose step size, 2 epsilon at first, is halved when it stalls.

    z = project(x_n + size d(grad)),  x_(n+1) = project(x_n + 0.75 (z - x_n) + 0.25 (x_n - x_(n-1)))
    loss `ce`: cross-entropy. `dlr`: -(z_y - max_(i != y) z_i) / (z_(1) - z_(3)), which no scaling of the logits can
    flatten. `targeted`: -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), once for each t of the `targets` classes that come
    next. Gives x' in the shape of x: the first point that is wrong, else x itself.

    epsilon: radius, at least 0, in units of pixels in [0, 1]; 8/255, the usual one of CIFAR-10. steps: 100. norm: linf
    or l2. rho: share of steps that have to raise the loss, 0.75. targets: 9. All are the paper's. One pass forwards and
    backwards a step. Raises RecipeError for values out of range, or where the classes are fewer than the loss
    compares; ModelError for a model of texts. Reference: Croce and Hein 2020, algorithm 1 and section 4.

    >>> APGD(loss="dlr").steps
    100
    """

    def __init__(
        self,
        *,
        epsilon: float = EPSILON,
        steps: int = 100,
        norm: Norm = "linf",
        loss: Literal["ce", "dlr", "targeted"] = "ce",
        rho: float = 0.75,
        targets: int = 9,
    ) -> None:
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.steps = whole("steps", steps)
        self.norm: Norm = one_of("norm", norm, NORMS)  # type: ignore[assignment]
        self.loss = one_of("loss", loss, ["ce", "dlr", "targeted"])
        self.rho = fraction("rho", rho, one=True)
        self.targets = whole("targets", targets)

    def perturb(self, target: Target) -> Tensor:
        if not self.epsilon:
            return target.x.clone()
        ball = target.ball(self.norm, self.epsilon)
        classes = target.model.head.out_features
        least = {"ce": 2, "dlr": 3, "targeted": 4}[self.loss]
        if classes < least:
            raise RecipeError(
                f"the loss `{self.loss}` of apgd compares {least} classes and the model has {classes}: use loss ce"
            )
        if self.loss == "targeted":
            return self._towards_each(target, ball, min(self.targets, classes - 1))
        return climb(target, ball, dlr if self.loss == "dlr" else cross_entropy, steps=self.steps, rho=self.rho)[0]

    def _towards_each(self, target: Target, ball: Ball, count: int) -> Tensor:
        """A run towards each of the `count` next classes of those that are still right."""
        found = target.x.clone()
        left = torch.arange(len(found), device=found.device)
        with torch.no_grad():
            ordered = target.logits(target.x).argsort(dim=1, descending=True)
        for place in range(1, count + 1):
            aims = ordered[left, place]
            found[left], right = climb(target.take(left), ball, dlr_targeted, steps=self.steps, rho=self.rho, aims=aims)
            left = left[right]
            if not len(left):
                break
        return found
