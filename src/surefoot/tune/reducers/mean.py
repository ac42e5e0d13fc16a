"""The mean over the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from surefoot.registry import register
from surefoot.tune.reducer import Reducer
from surefoot.tune.step import Step


@register("mean", kind="reducer", family="mean")
class Mean(Reducer):
    """Mean of the losses: sum_i w_i l_i / sum_i w_i.

    l: per-example losses (B,); w: the batch's example weights (B,), at least 0, or 1 where it has none. Gives a scalar
    in units of the losses; 0 if all weights are 0. This is plain training.
    """

    def forward(self, losses: Tensor, step: Step) -> Tensor:
        weight = step.batch.weight
        if weight is None:
            return losses.mean()
        return (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)
