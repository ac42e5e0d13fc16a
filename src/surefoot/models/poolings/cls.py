"""The state of the first token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.models.pooling import Pooling
from surefoot.registry import Paper, register


@register(
    "cls",
    kind="pooling",
    family="plain",
    papers=[
        Paper(
            "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
            "Devlin et al.",
            2018,
            arxiv="1810.04805",
        )
    ],
)
class Cls(Pooling):
    """f = h at the first pooled token, which BERT writes as [CLS]."""

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        pooled: Tensor = hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(1)]
        return pooled

    def __repr__(self) -> str:
        return "Cls()"
