"""The sum of the token states over the square root of their number."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from surefoot.models.pooling import Pooling
from surefoot.registry import Paper, register


@register(
    "mean_sqrt_len",
    kind="pooling",
    family="plain",
    papers=[Paper("Universal Sentence Encoder", "Cer et al.", 2018, arxiv="1803.11175")],
)
class MeanSqrtLen(Pooling):
    """f = sum_t m_t h_t / sqrt(sum_t m_t): like the mean, but a longer text has a longer vector."""

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1).sqrt()
        return pooled

    def __repr__(self) -> str:
        return "MeanSqrtLen()"
