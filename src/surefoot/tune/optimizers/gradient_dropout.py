"""Gradient dropout: entries of the gradient that lead away from the starting model's answers are dropped at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.models.modes import evaluating
from surefoot.registry import register
from surefoot.tune.objective import Context, Space, fraction
from surefoot.tune.optimizer import Closure, Optimizer, Wrapper, repeat
from surefoot.tune.optimizers import instead, restore, running_statistics_kept
from surefoot.tune.selections.mask_tuning import PAPER


@register("gradient_dropout", kind="optimizer", family="masking", papers=[PAPER])
class GradientDropout(Wrapper):
    """Keeps an entry of the gradient for sure where the starting model's answers pull the same way, else by a lot.

    P = (1 + sign(g) (g + k) / (|g| + |k|)) / 2,  an entry of g stays with probability P and else becomes (1 - lambda) g

    elementwise, with g the gradient of the loss and k that of the cross-entropy between the answers and those of the
    model as it was before the first step (B, C), at temperature 1, on the same batch. Where g and k have one sign, P is
    1; where they have not, it is |g| / (|g| + |k|). Only g, thinned, reaches the inner optimizer. The head takes part as
    everything does; the paper has none that trains.

    strength: lambda, 1, the authors', which drops; 0 is the inner optimizer exactly. Draws come from torch's global
    state, which the loop seeds for every step. Beside the pass of the loss, a step takes one with gradient and one
    without, at the starting weights; and a copy of the weights.
    Raises RecipeError if `strength` is not in [0, 1]. Reference: Zheng et al. 2023.

    >>> from surefoot.tune.optimizers.adamw import AdamW
    >>> optimizer = GradientDropout(AdamW([torch.nn.Parameter(torch.ones(2))]), strength=0.5)
    """

    forwards = 2

    def __init__(self, inner: Optimizer, *, strength: float = 1.0) -> None:
        super().__init__(inner)
        self.strength = fraction("strength", strength, one=True)
        if not self.strength:
            self.forwards = 0
        self._start = [parameter.detach().clone() for parameter in self.parameters]

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._start = [parameter.detach().clone() for parameter in self.parameters]

    def around(self, closure: Closure, first: bool) -> Tensor:
        loss = closure(first)
        if not self.strength:
            return loss
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        theirs = self._towards_start(closure, moved)
        with torch.no_grad():
            for parameter, k in zip(moved, theirs, strict=True):
                g = parameter.grad
                assert g is not None
                left = stays(g, k, torch.rand_like(g))
                # In place: these tensors are the whole model, and reading them is what a step costs beyond its passes.
                g.mul_(left if self.strength == 1 else left.to(g.dtype).mul_(self.strength).add_(1 - self.strength))
        return loss

    def _towards_start(self, closure: Closure, moved: Sequence[nn.Parameter]) -> list[Tensor]:
        """k: the gradient of the cross-entropy with the starting model's answers, zero where it does not reach."""
        step = closure.step
        with torch.no_grad(), evaluating(step.model), instead(self.parameters, self._start):
            target = step.again().logits.softmax(1)
        with torch.enable_grad(), running_statistics_kept():
            loss = F.cross_entropy(repeat(step).logits, target)
            if not moved or not loss.requires_grad:  # terms on the weights alone leave no gradient yet
                return [torch.zeros_like(parameter) for parameter in moved]
            found = torch.autograd.grad(loss, moved, allow_unused=True)
        return [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(moved, found, strict=True)
        ]

    def own_state(self) -> dict[str, Any]:
        return {"start": list(self._start)}

    def load_own_state(self, state: dict[str, Any]) -> None:
        restore(self._start, state["start"])

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"strength": Space(0.1, 1.0)}


def stays(g: Tensor, k: Tensor, drawn: Tensor) -> Tensor:
    """Whether an entry of the gradient stays, by u uniform in [0, 1): bool, the shape of g. Overwrites u.

    u < P where the point (1 - u) g + u k, between the two pulls, is still on the side of g: with opposite signs that is
    (1 - u) |g| > u |k|, or u < |g| / (|g| + |k|); with one sign it always is.
    """
    return torch.signbit(torch.lerp(g, k, drawn, out=drawn)) == torch.signbit(g)
