"""SLERP: interpolate between two models along the great circle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from surefoot.merge.combine import Combine, Pieces
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction

PAPER = Paper(
    "Animating rotation with quaternion curves", "Shoemake", 1985, link="https://doi.org/10.1145/325334.325242"
)
#: Cosines beyond which two tensors are taken for parallel, and interpolated along the line; mergekit's.
PARALLEL = 0.9995
#: Products are summed in the weights' own precision over so many, and in double precision over those sums.
_RUN = 1 << 16


@register("slerp", kind="merge", family="interpolation", papers=[PAPER])
class SLERP(Combine):
    """theta = sin((1 - t) omega) / sin(omega) theta_1 + sin(t omega) / sin(omega) theta_2, cos(omega) = <theta_1, theta_2>.

    The cosine is that of the two tensors, each taken as one vector; norms are those of the tensors, and where the cosine
    exceeds 0.9995 in size (or a tensor is zero) theta = (1 - t) theta_1 + t theta_2. Between two models: no more, no
    fewer; the base takes no part.

    t: 0.5; 0 gives the first model, 1 the second, both to the bit. Raises RecipeError if t lies outside [0, 1], or for
    more than two models. Reference: Shoemake 1985, section 3.3, for weights as tools for merging have it.

    >>> SLERP(t=0.3).t
    0.3
    """

    needs_base = False
    least, most = 2, 2

    def __init__(self, *, t: float = 0.5) -> None:
        self.t = fraction("t", t, one=True)

    def measure(self, pieces: Pieces, *, name: str = "") -> tuple[float, float]:
        sums = torch.zeros(3, dtype=torch.float64)
        for (one, other), _ in pieces():
            cuts = tuple(range(_RUN, one.numel(), _RUN))
            for a, b in zip(one.flatten().tensor_split(cuts), other.flatten().tensor_split(cuts), strict=True):
                sums += torch.stack([a @ a, b @ b, a @ b])
        first, second, product = sums.tolist()
        cosine = product / math.sqrt(first * second) if min(first, second) > 1e-16 else 1.0
        return spherical(self.t, cosine)

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any) -> Tensor:
        if self.t in (0.0, 1.0):
            return tuned[int(self.t)].clone()
        return tuned[0].mul(measured[0]).add_(tuned[1], alpha=measured[1])


def spherical(t: float, cosine: float) -> tuple[float, float]:
    """Coefficients of the two vectors."""
    cosine = min(1.0, max(-1.0, cosine))
    if abs(cosine) > PARALLEL:
        return 1 - t, t
    omega = math.acos(cosine)
    return math.sin((1 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega)
