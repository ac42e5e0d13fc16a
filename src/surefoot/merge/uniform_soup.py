"""Uniform soup: the mean of the weights of models that share a start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from surefoot.merge.combine import Combine, mean
from surefoot.registry import Paper, register

PAPER = Paper(
    "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
    "Wortsman et al.",
    2022,
    arxiv="2203.05482",
)


@register("uniform_soup", kind="merge", family="averaging", papers=[PAPER])
class UniformSoup(Combine):
    """theta = mean_k theta_k: the average of checkpoints that were tuned from one start, the base left out.

    Members must share the start, head included: between models that lie in other basins the mean is no model at all.
    """

    needs_base = False

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any = None) -> Tensor:
        return mean(tuned)
