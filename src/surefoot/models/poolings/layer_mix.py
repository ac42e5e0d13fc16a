"""BERMo: a learned mixture of all layers, as ELMo makes it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from surefoot.errors import ModelError
from surefoot.models.pooling import Pooling, make_pooling
from surefoot.registry import Paper, register


@register(
    "layer_mix",
    kind="pooling",
    family="learned",
    papers=[Paper("BERMo: What can BERT learn from ELMo?", "Kodge, Roy", 2021, arxiv="2110.15802")],
)
class LayerMix(Pooling, nn.Module):
    """f = pool(gamma sum_l softmax(s)_l h_l) over the states h_l (B, T, D) of the L layers, lowest first.

    s (L,) and gamma are learned with the model, so that each layer has a path of its own to the loss. They start at
    s = 0 and gamma = 1: the mean of the layers. pool: the name of what pools the mixture. Raises ModelError where that
    is unknown, and for a model without layers.
    """

    every_layer: ClassVar[bool] = True

    def __init__(self, *, pool: str = "mean") -> None:
        nn.Module.__init__(self)
        self._pool = make_pooling(pool)
        self.scores = nn.Parameter(torch.zeros(0))
        self.gamma = nn.Parameter(torch.ones(()))

    @property
    def learns(self) -> bool:
        return self.scores.requires_grad or self.gamma.requires_grad

    def bind(self, *, layers: int) -> None:
        if not layers:
            raise ModelError("layer_mix mixes transformer blocks, and this model has none: choose another pooling")
        self.scores = nn.Parameter(torch.zeros(layers))

    def forward(self, hidden: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        shares = self.scores.softmax(0)
        mixed = sum(share * states.float() for share, states in zip(shares, hidden[1:], strict=True))
        return self.gamma * self._pool(mixed, mask)

    __call__ = nn.Module.__call__

    def extra_repr(self) -> str:
        return f"layers={len(self.scores)}"
