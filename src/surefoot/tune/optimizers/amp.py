"""AMP: adversarial model perturbation, around any optimizer."""

from __future__ import annotations

import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.optimizer import Closure, Optimizer, Wrapper
from surefoot.tune.optimizers import displaced, gradients
from surefoot.tune.optimizers.sam import TINY


@register(
    "amp",
    kind="optimizer",
    family="sharpness",
    papers=[
        Paper(
            "Regularizing Neural Networks via Adversarial Model Perturbation",
            "Zheng et al.",
            2021,
            arxiv="2010.04925",
        )
    ],
)
class AMP(Wrapper):
    """Steps by the gradient at weights that a few plain steps uphill, kept within a ball, have perturbed.

    D_0 = 0;  D_n = project(D_(n-1) + inner_lr grad L(w + D_(n-1))), n = 1 .. inner_steps;
    the inner optimizer updates w by grad L(w + D_N).
    project scales every parameter tensor's own D to a norm of at most epsilon, as in the authors' code. Beside SAM the
    step is not normalised: a small gradient perturbs little.

    epsilon: 0.5, inner_lr: 1 and inner_steps: 1, the authors' code's. inner_steps + 1 passes a step.
    epsilon = 0 or inner_lr = 0 is the inner optimizer exactly. Afterwards the weights are put back bit for bit.
    Raises RecipeError for values out of range. Reference: Zheng et al. 2021.

    >>> from surefoot.tune.optimizers.adamw import AdamW
    >>> AMP(AdamW([torch.nn.Parameter(torch.ones(2))]), inner_steps=2).passes
    3
    """

    passes = 2

    def __init__(self, inner: Optimizer, *, epsilon: float = 0.5, inner_lr: float = 1.0, inner_steps: int = 1) -> None:
        super().__init__(inner)
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.inner_lr = positive("inner_lr", inner_lr, zero=True)
        if isinstance(inner_steps, bool) or not isinstance(inner_steps, int) or inner_steps < 1:
            raise RecipeError(f"`inner_steps` is {inner_steps}: it must be a whole number, at least 1")
        self.inner_steps = inner_steps
        self.passes = inner_steps + 1

    def around(self, closure: Closure, first: bool) -> Tensor:
        loss = closure(first)
        with displaced(self.parameters) as (moved, start):
            perturbation: list[Tensor] = []
            for _ in range(self.inner_steps):
                with torch.no_grad():
                    perturbation = self._climb(perturbation, gradients(moved))
                    for parameter, origin, shift in zip(moved, start, perturbation, strict=True):
                        torch.add(origin, shift, out=parameter)
                closure(False)
        return loss

    def _climb(self, perturbation: list[Tensor], ascent: list[Tensor]) -> list[Tensor]:
        """One step uphill, from the weights themselves where there is no perturbation yet, and back into the ball."""
        if perturbation:
            shifts = perturbation
            torch._foreach_add_(shifts, ascent, alpha=self.inner_lr)
        else:
            shifts = [self.inner_lr * gradient for gradient in ascent]
        for shift in shifts:
            precision = torch.promote_types(shift.dtype, torch.float32)
            length = torch.linalg.vector_norm(shift, dtype=precision)
            shift.mul_((self.epsilon / (length + TINY)).clamp(max=1.0))
        return shifts

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"epsilon": Space(0.01, 1.0, log=True), "inner_lr": Space(0.1, 1.0, log=True)}
