"""The state of the last token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.models.pooling import Pooling
from surefoot.registry import Paper, register


@register(
    "last",
    kind="pooling",
    family="plain",
    papers=[
        Paper("Text and Code Embeddings by Contrastive Pre-Training", "Neelakantan et al.", 2022, arxiv="2201.10005")
    ],
)
class Last(Pooling):
    """f = h at the last pooled token, wherever the padding is: in a causal model the only one that has seen the text."""

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        places = torch.arange(mask.shape[1], device=mask.device)
        pooled: Tensor = hidden[torch.arange(len(hidden), device=hidden.device), (mask * places).argmax(1)]
        return pooled

    def __repr__(self) -> str:
        return "Last()"
