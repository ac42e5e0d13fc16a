"""WiSE-FT: interpolate between the starting weights and the tuned ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from surefoot.merge.combine import Combine, mean
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction


@register(
    "wise_ft",
    kind="merge",
    family="interpolation",
    papers=[Paper("Robust fine-tuning of zero-shot models", "Wortsman et al.", 2022, arxiv="2109.01903")],
)
class WiSEFT(Combine):
    """Weight-space ensemble of the starting and the tuned model: theta = (1 - alpha) theta_0 + alpha theta_1.

    alpha: 0 gives the start, 1 the tuned model, both to the bit; the paper recommends 0.5 without target data. The
    default 0.75 is what the plain loop that surefoot is measured against uses.
    With several tuned checkpoints theta_1 is their mean.
    """

    def __init__(self, *, alpha: float = 0.75) -> None:
        self.alpha = fraction("alpha", alpha, one=True)

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any = None) -> Tensor:
        assert base is not None
        target = tuned[0] if len(tuned) == 1 else mean(tuned)
        if self.alpha in (0.0, 1.0):  # 0 * inf and rounding aside, the ends are exact
            return (target if self.alpha else base).clone()
        return torch.lerp(base, target.to(base.dtype), self.alpha)
