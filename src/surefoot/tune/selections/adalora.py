"""AdaLoRA: low-rank additions whose ranks are bought from one budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.selections import check_plain, head_names, train_only, whole
from surefoot.tune.selections.injected import Targeted
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.rounding import rows

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: Smoothing of an entry's importance and of how much it varies, the paper's.
BETA_1, BETA_2 = 0.85, 0.85
DEVIATION = 0.02


class Singular(Reparametrization):
    """W + scale P diag(lambda) Q: P (out, r) and Q (r, in) drawn at random, lambda (r,) zero at the start.

    Of each of the three, `mean_NAME` holds the smoothed importance |w dL/dw| and `spread_NAME` how much it varies.
    """

    def __init__(self, module: nn.Module, *, r: int, scale: float, orthogonality: float) -> None:
        super().__init__()
        weight = rows(module)
        self.transposed, self.scale, self.orthogonality = not isinstance(module, nn.Linear), scale, orthogonality
        self.p = nn.Parameter(torch.randn(weight.shape[0], r, device=weight.device) * DEVIATION)
        self.q = nn.Parameter(torch.randn(r, weight.shape[1], device=weight.device) * DEVIATION)
        self.values = nn.Parameter(torch.zeros(r, device=weight.device))
        if orthogonality:
            self.p.register_hook(self._straighten_p)  # type: ignore[no-untyped-call]
            self.q.register_hook(self._straighten_q)  # type: ignore[no-untyped-call]
        for name in ("p", "q", "values"):
            for kind in ("mean", "spread"):
                self.register_buffer(f"{kind}_{name}", torch.zeros_like(self.get_parameter(name)))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # what `finish` adds is in float32 too
            added: Tensor = self.scale * (self.p * self.values) @ self.q
        return weight + (added.T if self.transposed else added)

    @torch.no_grad()
    def weigh(self) -> None:
        """Move the importance of every entry, by the gradients of the last pass."""
        for name in ("p", "q", "values"):
            parameter = self.get_parameter(name)
            if parameter.grad is None:
                continue
            now = (parameter * parameter.grad).abs()
            mean, spread = self.get_buffer(f"mean_{name}"), self.get_buffer(f"spread_{name}")
            mean.mul_(BETA_1).add_(now, alpha=1 - BETA_1)
            spread.mul_(BETA_2).add_((now - mean).abs(), alpha=1 - BETA_2)

    def scores(self) -> Tensor:
        """Of each triplet, a column of P, a value and a row of Q: (r,)."""
        parts = {
            name: self.get_buffer(f"mean_{name}") * self.get_buffer(f"spread_{name}") for name in ("p", "q", "values")
        }
        return parts["values"] + parts["p"].mean(0) + parts["q"].mean(1)

    def _straighten_p(self, gradient: Tensor) -> Tensor:
        return gradient + self.orthogonality * crooked(self.p.detach().T).T

    def _straighten_q(self, gradient: Tensor) -> Tensor:
        return gradient + self.orthogonality * crooked(self.q.detach())


def crooked(q: Tensor) -> Tensor:
    """d / dQ of ||Q Q^T - I||_F^2: 4 (Q Q^T - I) Q, (r, in)."""
    return 4 * (q @ q.T - torch.eye(len(q), device=q.device, dtype=q.dtype)) @ q


@register(
    "adalora",
    kind="selection",
    family="low-rank",
    papers=[
        Paper(
            "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
            "Zhang et al.",
            2023,
            arxiv="2303.10512",
        )
    ],
)
class AdaLoRA(Targeted):
    """Low-rank additions in the form of a singular value decomposition, whose values are pruned to a shrinking budget.

    h = W x + (alpha / r_init) P diag(lambda) Q x,  L + orthogonality sum (||P^T P - I||_F^2 + ||Q Q^T - I||_F^2)
    S_i = s(lambda_i) + mean_j s(P_ji) + mean_j s(Q_ij),  s = smoothed |w dL/dw| times how much it varies

    After each step the values lambda_i of all layers together whose S_i is not among the b(t) largest are set to zero:
    b = n r_init in the first `warmup` of the steps, then falls with the third power to n r, which it has for the last
    `cooldown`, with S as it was then; n layers. W (out, in) frozen, P (out, r_init), Q (r_init, in). The penalty enters
    by its gradient. What has to survive a resume are buffers.

    r: 8, the rank a layer has in the end on average; r_init: 12, alpha: 8, `peft`'s defaults; orthogonality: 0.1, warmup:
    0.1 and cooldown: 0.3, within the paper's for GLUE. target_modules: names, or ends of names, of linear layers; all in
    the blocks by default. layers: only the so many top blocks; None for all. Written here and not `peft`'s, whose state
    does not survive a resume. Raises RecipeError where a target is unknown, or for options out of range.
    Reference: Zhang et al. 2023.

    >>> AdaLoRA(r=4, r_init=6)
    AdaLoRA(r=4, r_init=6, alpha=8.0, orthogonality=0.1, warmup=0.1, cooldown=0.3, target_modules=None, layers=None)
    """

    called = "AdaLoRA"
    wraps = True

    def __init__(
        self,
        *,
        r: int = 8,
        r_init: int = 12,
        alpha: float = 8.0,
        orthogonality: float = 0.1,
        warmup: float = 0.1,
        cooldown: float = 0.3,
        target_modules: Sequence[str] | None = None,
        layers: int | None = None,
    ) -> None:
        super().__init__(target_modules=target_modules, layers=layers)
        self.r = whole("r", r, least=1)
        self.r_init = whole("r_init", r_init, least=1)
        self.alpha = positive("alpha", alpha)
        self.orthogonality = positive("orthogonality", orthogonality, zero=True)
        self.warmup = fraction("warmup", warmup)
        self.cooldown = fraction("cooldown", cooldown)
        if self.r > self.r_init:
            raise RecipeError(
                f"`r` is {r} and `r_init` {r_init}: the rank at the start must be at least that in the end"
            )
        if self.warmup + self.cooldown >= 1:
            raise RecipeError(f"`warmup` and `cooldown` are {warmup} and {cooldown}: together they must stay below 1")

    def apply(self, model: Model) -> None:
        check_plain(model, self.called)
        parts: dict[str, Reparametrization] = {
            f"{name}.weight": Singular(
                model.get_submodule(name),
                r=self.r_init,
                scale=self.alpha / self.r_init,
                orthogonality=self.orthogonality,
            )
            for name in self.targets(model)
        }
        train_only(model, head_names(model))
        reparametrize(model, parts)

    @torch.no_grad()
    def after_step(self, model: Model, *, step: int, steps: int) -> None:
        found = [module for module in model.modules() if isinstance(module, Singular)]
        if step < steps * (1 - self.cooldown):
            for part in found:
                part.weigh()
        budget = self.budget(step, steps, layers=len(found))
        scores = torch.cat([part.scores() for part in found])
        if budget < len(scores):
            least = scores.kthvalue(len(scores) - budget).values
            for part in found:
                part.values.masked_fill_(part.scores() <= least, 0.0)

    def budget(self, step: int, steps: int, *, layers: int) -> int:
        """How many values may stay after that step."""
        first, last = layers * self.r_init, layers * self.r
        begin, end = self.warmup * steps, steps * (1 - self.cooldown)
        if step <= begin:
            return first
        if step > end:
            return last
        return int((first - last) * (1 - (step - begin) / (end - begin)) ** 3 + last)

    def finish(self, model: Model) -> None:
        fold(model, Singular)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"r": Space(2, 12, log=True, integer=True)}
