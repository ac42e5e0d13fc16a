"""Stochastic gradient descent."""

from __future__ import annotations

import torch

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.optimizer import TorchOptimizer
from surefoot.tune.optimizers import Parameters, fused_or_not


@register(
    "sgd",
    kind="optimizer",
    family="gradient",
    papers=[
        Paper(
            "A Stochastic Approximation Method",
            "Robbins and Monro",
            1951,
            link="https://doi.org/10.1214/aoms/1177729586",
        )
    ],
)
class SGD(TorchOptimizer):
    """Gradient descent on minibatches, with momentum.

    b <- momentum b + g + weight_decay theta;  theta <- theta - lr b   (nesterov: theta - lr (g + momentum b))

    lr: 1e-3, torch's default; text encoders often need 10 to 100 times AdamW's. momentum: 0.9, the custom since
    image classification. weight_decay: 0; here it is an L2 penalty, part of the gradient.
    torch's own implementation, fused where it can be. Raises RecipeError for values out of range.

    >>> optimizer = SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    >>> optimizer.param_groups[0]["momentum"]
    0.9
    """

    torch_class = torch.optim.SGD

    def __init__(
        self,
        parameters: Parameters,
        *,
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and not momentum:
            raise RecipeError("`nesterov` needs a `momentum` above zero")
        self.inner = fused_or_not(
            self.torch_class,
            parameters,
            lr=positive("lr", lr),
            momentum=fraction("momentum", momentum),
            weight_decay=positive("weight_decay", weight_decay, zero=True),
            nesterov=bool(nesterov),
        )
        self.param_groups = self.inner.param_groups

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"momentum": Space(0.0, 0.95)}
