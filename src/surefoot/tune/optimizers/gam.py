"""GAM: gradient norm aware minimisation, around any optimizer."""

from __future__ import annotations

import torch
from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.optimizer import Closure, Optimizer, Wrapper
from surefoot.tune.optimizers import displaced, gradients
from surefoot.tune.optimizers.sam import TINY, norm


@register(
    "gam",
    kind="optimizer",
    family="sharpness",
    papers=[
        Paper(
            "Gradient Norm Aware Minimization Seeks First-Order Flatness and Improves Generalization",
            "Zhang et al.",
            2023,
            arxiv="2303.03108",
        )
    ],
)
class GAM(Wrapper):
    """Seeks first-order flatness: a small largest gradient norm within rho, rho max ||grad L(w + d)|| over ||d|| <= rho.

    The paper's Algorithm 2 (accelerated GAM), in which differences of gradients take the place of Hessian products:
        g0 = grad L(w);               g1 = grad L(w + r g0 / ||g0||)
        h = g1 - g0, which is r H g0 / ||g0|| to first order: the direction in which the gradient norm grows
        g2 = grad L(w + e), e = rho h / ||h||;   g3 = grad L(w + e + r g2 / ||g2||)
        p = alpha g1 + (1 - alpha) g3;   q = beta g0 + (1 - beta) g2;   q_t = q - (q . p) p / ||p||^2
    and the inner optimizer updates w by p - gamma q_t.

    rho: 0.2, r: 0.02 (the paper's rho'), alpha: 0.6, beta: 0.5, gamma: 0.03, the authors' code's for a ResNet on
    CIFAR-10. Their code has g0 + (1 - beta) g2 for q; this is the paper's.
    Four passes a step; the weights are put back bit for bit, and batch-norm's running statistics saw the first pass
    only. rho = r = gamma = 0 is the inner optimizer exactly; alpha = 1 with gamma = 0 steps as SAM with radius r.
    Raises RecipeError for values out of range. Reference: Zhang et al. 2023.

    >>> from surefoot.tune.optimizers.adamw import AdamW
    >>> optimizer = GAM(AdamW([torch.nn.Parameter(torch.ones(2))]), rho=0.1)
    """

    passes = 4

    def __init__(
        self,
        inner: Optimizer,
        *,
        rho: float = 0.2,
        r: float = 0.02,
        alpha: float = 0.6,
        beta: float = 0.5,
        gamma: float = 0.03,
    ) -> None:
        super().__init__(inner)
        self.rho = positive("rho", rho, zero=True)
        self.r = positive("r", r, zero=True)
        self.alpha = fraction("alpha", alpha, one=True)
        self.beta = fraction("beta", beta, one=True)
        self.gamma = positive("gamma", gamma, zero=True)

    def around(self, closure: Closure, first: bool) -> Tensor:
        loss = closure(first)
        with displaced(self.parameters) as (moved, start):
            g0 = _taken(moved)
            _move(moved, start, [(self.r, g0)])
            closure(False)
            g1 = _taken(moved)
            growth = [after - before for after, before in zip(g1, g0, strict=True)]
            _move(moved, start, [(self.rho, growth)])
            closure(False)
            g2 = _taken(moved)
            _move(moved, start, [(self.rho, growth), (self.r, g2)])
            closure(False)
        if moved:
            self._combine(g0, g1, g2, gradients(moved))
        return loss

    @torch.no_grad()
    def _combine(self, g0: list[Tensor], g1: list[Tensor], g2: list[Tensor], g3: list[Tensor]) -> None:
        """Leave p - gamma q_t in g3, which is `.grad`."""
        # Interpolated, not summed: equal gradients stay what they are to the bit.
        plus = g3
        torch._foreach_lerp_(plus, g1, self.alpha)
        if not self.gamma:
            return
        minus = list(torch._foreach_lerp(g2, g0, self.beta))
        along = _dot(minus, plus) / (norm(plus) ** 2 + TINY)
        for p, q in zip(plus, minus, strict=True):
            p.mul_(1 + self.gamma * along.to(p.device)).sub_(q, alpha=self.gamma)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"rho": Space(0.02, 0.5, log=True), "r": Space(0.01, 0.1, log=True), "gamma": Space(0.0, 0.1)}


def _taken(moved: list[Tensor]) -> list[Tensor]:
    """The gradients themselves, taken from the parameters, so that the next pass makes others and none need be copied."""
    found = gradients(moved)
    for parameter in moved:
        parameter.grad = None
    return found


@torch.no_grad()
def _move(moved: list[Tensor], start: list[Tensor], steps: list[tuple[float, list[Tensor]]]) -> None:
    """To start + sum of radius * direction / ||direction||."""
    # As plain numbers: each weight is then read and written once a direction, and nothing is made in between.
    lengths = [float(norm(direction)) if direction else 1.0 for _, direction in steps]
    for i, (parameter, origin) in enumerate(zip(moved, start, strict=True)):
        for place, ((radius, direction), length) in enumerate(zip(steps, lengths, strict=True)):
            torch.add(parameter if place else origin, direction[i], alpha=radius / (length + TINY), out=parameter)


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The inner product of all tensors together, in at least float32."""
    precision = torch.promote_types(a[0].dtype, torch.float32)
    products = [torch.dot(x.flatten().to(precision), y.flatten().to(precision)) for x, y in zip(a, b, strict=True)]
    return torch.stack([each.to(products[0].device) for each in products]).sum()
