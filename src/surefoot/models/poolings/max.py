"""The largest value over the tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.models.pooling import Pooling
from surefoot.registry import Paper, register


@register(
    "max",
    kind="pooling",
    family="plain",
    papers=[
        Paper(
            "Supervised Learning of Universal Sentence Representations from Natural Language Inference Data",
            "Conneau et al.",
            2017,
            arxiv="1705.02364",
        )
    ],
)
class Max(Pooling):
    """f_d = max over the pooled tokens t of h_td."""

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        pooled: Tensor = hidden.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)
        return pooled

    def __repr__(self) -> str:
        return "Max()"
