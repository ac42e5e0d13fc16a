"""SGPT's mean, in which later tokens count more."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from surefoot.models.pooling import Pooling
from surefoot.registry import Paper, register


@register(
    "weighted_mean",
    kind="pooling",
    family="plain",
    papers=[Paper("SGPT: GPT Sentence Embeddings for Semantic Search", "Muennighoff", 2022, arxiv="2202.08904")],
)
class WeightedMean(Pooling):
    """f = sum_i i h_i / sum_i i over the pooled tokens i = 1, 2, ...: in a causal model later tokens have seen more."""

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        weights = (mask.cumsum(1) * mask).unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)
        return pooled

    def __repr__(self) -> str:
        return "WeightedMean()"
