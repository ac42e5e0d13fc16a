"""AdamW."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.optimizer import TorchOptimizer
from surefoot.tune.optimizers import Parameters, check_betas, fused_or_not


@register(
    "adamw",
    kind="optimizer",
    family="adaptive",
    papers=[Paper("Decoupled Weight Decay Regularization", "Loshchilov and Hutter", 2019, arxiv="1711.05101")],
)
class AdamW(TorchOptimizer):
    """Adam with weight decay that is not scaled by the gradient's second moment.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    theta <- theta - lr (m_hat / (sqrt(v_hat) + eps) + weight_decay theta)
    with m_hat = m / (1 - b1^t) and v_hat = v / (1 - b2^t)

    lr: 5e-5, the default of `transformers` and the largest of the three that BERT's authors tried.
    weight_decay: 0.01, as BERT was trained with; torch's default too. betas, eps: torch's and the paper's.
    torch's own implementation, fused where it can be. Raises RecipeError for values out of range.

    >>> optimizer = AdamW([torch.nn.Parameter(torch.ones(2))], lr=1e-3)
    >>> optimizer.param_groups[0]["weight_decay"]
    0.01
    """

    torch_class = torch.optim.AdamW

    def __init__(
        self,
        parameters: Parameters,
        *,
        lr: float = 5e-5,
        weight_decay: float = 0.01,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.inner = fused_or_not(
            self.torch_class,
            parameters,
            lr=positive("lr", lr),
            weight_decay=positive("weight_decay", weight_decay, zero=True),
            betas=check_betas(betas),
            eps=positive("eps", eps),
        )
        self.param_groups = self.inner.param_groups

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"weight_decay": Space(1e-4, 0.3, log=True)}
