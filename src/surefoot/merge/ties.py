"""TIES: trim task vectors, elect a sign for each weight, average those that agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from surefoot.merge.combine import Pieces
from surefoot.merge.task_vectors import TaskVectors, at_least, densities, of
from surefoot.merge.thresholds import thresholds
from surefoot.registry import Paper, register

PAPER = Paper("TIES-Merging: Resolving Interference When Merging Models", "Yadav et al.", 2023, arxiv="2306.01708")


@register("ties", kind="merge", family="task vectors", papers=[PAPER])
class TIES(TaskVectors):
    """Of each task vector the largest weights are kept; where models disagree about a sign, the weaker side is left out.

    tau~_k = tau_k where |tau_k| is among the top `density` of the tensor, else 0;  gamma = sgn(sum_k w_k tau~_k);
    theta = theta_0 + scaling * sum_{k in A} w_k tau~_k / sum_{k in A} w_k,  A: the models with sgn(tau~_k) = gamma

    per weight, tau_k = theta_k - theta_0. The paper trims over all tensors of a model at once; here, as in mergekit,
    each tensor is trimmed by itself, so that it streams. Magnitudes equal to the threshold are all kept; a sum of zero
    counts as positive.

    density: 0.2, the paper's, for all models or one for each; scaling: 1, the paper's without validation data; 0 gives
    the base to the bit. weights: w_k, 1 by default. normalize: off, the sum takes the place of the mean.
    Raises RecipeError for numbers out of range. Reference: Yadav et al. 2023, algorithm 1.

    >>> TIES(density=0.5).density
    [0.5]
    """

    elect = True
    each = ("weights", "density")

    def __init__(
        self,
        *,
        density: float | Sequence[float] = 0.2,
        scaling: float = 1.0,
        weights: Sequence[float] | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__(scaling=scaling, weights=weights)
        self.density = densities(density)
        self.normalize = bool(normalize)

    def measure(self, pieces: Pieces, *, name: str = "") -> Any:
        if min(self.density) == 1:
            return None
        found = thresholds(pieces, lambda number, count: [max(1, int(of(self.density, number) * count))])
        return [row[0] for row in found]

    def thinned(self, delta: Tensor, number: int, measured: Any) -> Tensor:
        return delta if measured is None else at_least(delta, measured[number])
