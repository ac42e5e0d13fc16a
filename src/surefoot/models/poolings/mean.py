"""The mean of the token states."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from surefoot.models.pooling import Pooling
from surefoot.registry import Paper, register


@register(
    "mean",
    kind="pooling",
    family="plain",
    papers=[
        Paper(
            "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
            "Reimers, Gurevych",
            2019,
            arxiv="1908.10084",
        )
    ],
)
class Mean(Pooling):
    """f = sum_t m_t h_t / sum_t m_t: h (B, T, D), m (B, T) the mask."""

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)
        return pooled

    def __repr__(self) -> str:
        return "Mean()"
