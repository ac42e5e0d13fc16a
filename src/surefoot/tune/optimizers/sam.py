"""SAM: sharpness-aware minimisation, around any optimizer."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.optimizer import Closure, Optimizer, Wrapper
from surefoot.tune.optimizers import displaced, gradients

#: Keeps a gradient of zero from dividing by zero; far below any norm that matters.
TINY = 1e-12


@register(
    "sam",
    kind="optimizer",
    family="sharpness",
    papers=[
        Paper(
            "Sharpness-Aware Minimization for Efficiently Improving Generalization",
            "Foret et al.",
            2021,
            arxiv="2010.01412",
        ),
        Paper(
            "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks",
            "Kwon et al.",
            2021,
            arxiv="2102.11600",
        ),
    ],
)
class SAM(Wrapper):
    """Steps by the gradient found at the worst nearby weights, uphill by rho.

    g = grad L(w);  e = rho g / ||g||_2;  the inner optimizer updates w by grad L(w + e).
    adaptive (ASAM): e = rho T^2 g / ||T g||_2 with T = |w| + eta, so that rescaling a layer changes nothing.

    rho: 0.05, the paper's; it tried 0.01 to 0.5. ASAM's rho is on another scale, about ten times as large.
    The norm runs over all parameters that have a gradient. Two passes a step. Afterwards the weights are put back
    bit for bit, and batch-norm's running statistics saw the first pass only. rho = 0 is the inner optimizer exactly.

    >>> from surefoot.tune.optimizers.adamw import AdamW
    >>> optimizer = SAM(AdamW([torch.nn.Parameter(torch.ones(2))]), rho=0.05)
    """

    passes = 2

    def __init__(self, inner: Optimizer, *, rho: float = 0.05, adaptive: bool = False, eta: float = 0.01) -> None:
        super().__init__(inner)
        self.rho = positive("rho", rho, zero=True)
        self.adaptive = bool(adaptive)
        self.eta = positive("eta", eta, zero=True)

    def around(self, closure: Closure, first: bool) -> Tensor:
        loss = closure(first)
        rho = self.radius(closure)
        with displaced(self.parameters) as (moved, _):
            with torch.no_grad():
                if moved:
                    torch._foreach_add_(moved, self._ascent(moved, rho))
            closure(False)
        return loss

    def radius(self, closure: Closure) -> float:
        """The radius of this step, after a pass at the present weights."""
        return self.rho

    def _ascent(self, moved: list[Tensor], rho: float) -> list[Tensor]:
        """e for each parameter, made in place of the gradients: the second pass clears them anyway."""
        ascent = gradients(moved)
        if self.adaptive:
            scale = torch._foreach_abs(moved)
            torch._foreach_add_(scale, self.eta)
            torch._foreach_mul_(ascent, scale)
        factor = rho / (norm(ascent) + TINY)
        if self.adaptive:
            torch._foreach_mul_(ascent, scale)
        for gradient in ascent:
            gradient.mul_(factor.to(gradient.device))
        return ascent

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"rho": Space(0.01, 0.5, log=True)}


def norm(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of all tensors together: a scalar of at least float32."""
    precision = reduce(torch.promote_types, [tensor.dtype for tensor in tensors], torch.float32)
    norms = torch._foreach_norm(tensors, 2, dtype=precision)
    total: Tensor = torch.linalg.vector_norm(torch.stack([each.to(norms[0].device) for each in norms]))
    return total
