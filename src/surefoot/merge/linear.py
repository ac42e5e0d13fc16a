"""Weighted average of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.merge.combine import Combine, checked_weights, mean, weighted_sum
from surefoot.merge.uniform_soup import PAPER
from surefoot.registry import register


@register("linear", kind="merge", family="averaging", papers=[PAPER])
class Linear(Combine):
    """theta = sum_k w_k theta_k, sum_k w_k = 1: the weighted mean of checkpoints; the base takes no part.

    weights: w_k, one for each model, equal by default. They must sum to one, or else `normalize` divides them by their
    sum; it is off by default, so that a slip of the pen is not averaged away. One model gives its weights to the bit.
    Raises RecipeError for weights that are not finite, or do not sum to one. The uniform mean is Wortsman et al.'s soup.

    >>> Linear(weights=[0.5, 0.4])
    Traceback (most recent call last):
    surefoot.errors.RecipeError: the weights sum to 0.9: give weights that sum to one, or normalize=true
    """

    needs_base = False
    each = ("weights",)

    def __init__(self, *, weights: Sequence[float] | None = None, normalize: bool = False) -> None:
        self.weights = checked_weights(weights)
        self.normalize = bool(normalize)
        if self.weights is not None:
            total = sum(self.weights)
            if not normalize and abs(total - 1) > 1e-6:
                raise RecipeError(f"the weights sum to {total:.6g}: give weights that sum to one, or normalize=true")
            if abs(total) < 1e-8:
                raise RecipeError("the weights sum to 0, so that nothing can be divided by their sum: give others")

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any = None) -> Tensor:
        if len(tuned) == 1:
            return tuned[0].clone()
        if self.weights is None:
            return mean(tuned)
        total = weighted_sum(tuned, self.weights)
        return total.div_(sum(self.weights)) if self.normalize else total
