"""LAWN: logit attenuating weight normalisation, around any optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Space, fraction, one_of
from surefoot.tune.optimizer import Closure, Optimizer, Wrapper


@register(
    "lawn",
    kind="optimizer",
    family="normalisation",
    papers=[Paper("Logit Attenuating Weight Normalization", "Gupta et al.", 2021, arxiv="2108.05839")],
)
class LAWN(Wrapper):
    """After a free start every constrained weight keeps its norm, so that logits cannot grow without end.

    First `free` of the steps: the inner optimizer. Then, with r = ||w|| of each constrained weight w as it is at that
    moment: g <- g - (g . w) w / ||w||^2, the gradient along the sphere; the inner optimizer's step; w <- r w / ||w||.

    The paper constrains the layers of the final homogeneous sub-network: those above which no normalisation undoes a
    factor. scope: `head`, which is that in a transformer (its last layer norm lies below); `matrices`, all weights of
    two dimensions or more, for nets without normalisation. Biases are free. free: a fraction of the training, 0.1; 1
    is the inner optimizer exactly. A weight of norm 0 is constrained once it has one.

    The scheme is the abstract's; there is no public code, and what it leaves open is ours: the projection comes before
    the inner optimizer's moments, which go on from the free start; the paper's second warm-up is left to the recipe's
    schedule; weight decay only shrinks w along itself, which the last line undoes. One pass a step.
    Raises RecipeError for other values. Reference: Gupta et al. 2021.

    >>> from surefoot.tune.optimizers.sgd import SGD
    >>> LAWN(SGD([torch.nn.Parameter(torch.ones(2, 2))]), free=0.5).scope
    'head'
    """

    def __init__(self, inner: Optimizer, *, free: float = 0.1, scope: str = "head") -> None:
        super().__init__(inner)
        self.free = fraction("free", free, one=True)
        self.scope = one_of("scope", scope, ["head", "matrices"])
        self.free_steps_, self.count_ = 0, 0
        self.constrained_: list[Tensor] = []
        #: norms to be kept, 0 for one that is not known yet
        self.norms_: list[Tensor] = []

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.free_steps_ = round(self.free * context.steps)
        ours = {id(parameter) for parameter in self.parameters}
        self.constrained_ = [
            parameter
            for name, parameter in context.trained.items()
            if id(parameter) in ours and parameter.ndim > 1 and (self.scope == "matrices" or name in context.head_names)
        ]
        self.norms_ = [parameter.new_zeros(()) for parameter in self.constrained_]

    @property
    def _is_free(self) -> bool:
        return self.count_ < self.free_steps_ or self.free == 1

    def around(self, closure: Closure, first: bool) -> Tensor:
        loss = closure(first)
        if not self._is_free:
            for weight in self.constrained_:
                if weight.grad is not None:
                    squared = weight.detach().square().sum().clamp_min(torch.finfo(weight.dtype).tiny)
                    weight.grad -= (weight.grad * weight.detach()).sum() / squared * weight.detach()
        return loss

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:
        if not self._is_free:
            for norm, weight in zip(self.norms_, self.constrained_, strict=True):
                if not norm:
                    norm.copy_(weight.norm())
        with torch.enable_grad():
            loss = super().step(closure)
        if not self._is_free:
            for norm, weight in zip(self.norms_, self.constrained_, strict=True):
                if norm:
                    weight.mul_(norm / weight.norm())
        self.count_ += 1
        return loss

    def own_state(self) -> dict[str, Any]:
        return {"count": self.count_, "norms": list(self.norms_)}

    def load_own_state(self, state: dict[str, Any]) -> None:
        self.count_ = int(state["count"])
        for norm, kept in zip(self.norms_, state["norms"], strict=True):
            norm.copy_(kept)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"free": Space(0.0, 0.5)}
