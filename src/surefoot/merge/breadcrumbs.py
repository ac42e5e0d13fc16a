"""Model breadcrumbs: leave out of each task vector the smallest weights and the largest outliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.merge.combine import Pieces
from surefoot.merge.task_vectors import TaskVectors, at_least, densities, of
from surefoot.merge.thresholds import thresholds
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction

PAPER = Paper(
    "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
    "Davari and Belilovsky",
    2023,
    arxiv="2312.06795",
)


@register("breadcrumbs", kind="merge", family="task vectors", papers=[PAPER])
class Breadcrumbs(TaskVectors):
    """theta = theta_0 + scaling * sum_k w_k tau~_k, tau~_k without its largest and its smallest weights.

    tau~_k: tau_k = theta_k - theta_0 where |tau_k| ranks between gamma n and (gamma + density) n of the n weights of its
    tensor, counted from the largest; else 0.
    density: share that is kept, 0.1, and gamma: share of the largest that is left out, 0.01, as tools for merging have
    them (the paper's ranges were read in code that follows it, not in the paper); scaling: 0.3, as for task arithmetic;
    0 gives the base to the bit. density 1 keeps all. elect: signs as in TIES. weights: w_k, 1 by default.
    Raises RecipeError for shares out of range. Reference: Davari and Belilovsky 2023.

    >>> Breadcrumbs(density=0.2).gamma
    0.01
    """

    each = ("weights", "density")

    def __init__(
        self,
        *,
        density: float | Sequence[float] = 0.1,
        gamma: float = 0.01,
        scaling: float = 0.3,
        weights: Sequence[float] | None = None,
        elect: bool = False,
        normalize: bool = False,
    ) -> None:
        super().__init__(scaling=scaling, weights=weights)
        self.density = densities(density)
        self.gamma = fraction("gamma", gamma)
        self.elect, self.normalize = bool(elect), bool(normalize)
        if any(each < 1 and each + self.gamma > 1 for each in self.density):
            raise RecipeError(f"`density` and `gamma` ({gamma}) sum to more than 1: lower one of them")

    def measure(self, pieces: Pieces, *, name: str = "") -> Any:
        if min(self.density) == 1:
            return None

        def ranks(number: int, count: int) -> tuple[int, int]:
            density = of(self.density, number)
            top = 0 if density == 1 else int(self.gamma * count)
            return top, min(count, top + max(1, int(density * count)))

        return thresholds(pieces, ranks)

    def thinned(self, delta: Tensor, number: int, measured: Any) -> Tensor:
        if measured is None:
            return delta
        outlier, least = measured[number]
        return at_least(delta, least).sub_(at_least(delta, outlier))
