"""Arithmetic on task vectors: what task arithmetic, TIES, DARE, breadcrumbs and DELLA share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.merge.combine import Combine, checked_weights
from surefoot.tune.objective import fraction


class TaskVectors(Combine):
    """theta = theta_0 + scaling * sum_k m_k w_k tau~_k / n,  tau_k = theta_k - theta_0, elementwise.

    tau~_k: what the subclass leaves of the task vector (`thinned`). m_k: 1, or with `elect` whether w_k tau~_k has the
    sign of sum_k w_k tau~_k, a sum of zero counting as positive. n: 1, or with `normalize` sum_k m_k w_k.
    weights: one for each checkpoint, 1 by default.
    """

    each: ClassVar[tuple[str, ...]] = ("weights",)
    elect: bool = False
    normalize: bool = False

    def __init__(self, *, scaling: float, weights: Sequence[float] | None = None) -> None:
        if isinstance(scaling, bool) or not isinstance(scaling, int | float) or not abs(scaling) < float("inf"):
            raise RecipeError(f"`scaling` is {scaling!r}: it must be a finite number; 0 gives the base")
        self.scaling = float(scaling)
        self.weights = checked_weights(weights)

    def thinned(self, delta: Tensor, number: int, measured: Any) -> Tensor:
        """What is left of task vector `number`; may change `delta` in place."""
        return delta

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any = None) -> Tensor:
        assert base is not None
        if self.scaling == 0:
            return base.clone()
        weights = self.weights or [1.0] * len(tuned)
        if not self.elect:
            total, delta = torch.zeros_like(base), torch.empty_like(base)
            for number, (each, weight) in enumerate(zip(tuned, weights, strict=True)):
                total.add_(self.thinned(torch.sub(each, base, out=delta), number, measured), alpha=weight)
            divisor = sum(weights) if self.normalize else 1.0
            return total.mul_(self.scaling if abs(divisor) < 1e-8 else self.scaling / divisor).add_(base)
        if not self.by_pieces:
            return self._elected(tuned, base, weights, measured)
        merged, size = torch.empty_like(base).flatten(), max(1, _CACHED // len(tuned))
        cuts = tuple(range(size, base.numel(), size))
        parts = zip(*(each.flatten().tensor_split(cuts) for each in (base, *tuned)), strict=True)
        for number, (start, *part) in enumerate(parts):
            merged[number * size : (number + 1) * size] = self._elected(part, start, weights, measured)
        return merged.view_as(base)

    def _elected(self, tuned: Sequence[Tensor], base: Tensor, weights: Sequence[float], measured: Any) -> Tensor:
        stacked = torch.empty((len(tuned), *base.shape), dtype=base.dtype)
        for number, (each, weight) in enumerate(zip(tuned, weights, strict=True)):
            delta = self.thinned(torch.sub(each, base, out=stacked[number]), number, measured)
            torch.mul(delta, weight, out=stacked[number])
        sign = torch.ones_like(base).copysign_(stacked.sum(0).add_(0.0))  # + 0 makes a negative zero a positive one
        total = stacked.mul_(sign).relu_().sum(0)
        if self.normalize:
            kept = torch.from_numpy(stacked.flatten(1).numpy() > 0).to(
                stacked.dtype
            )  # several times as fast as torch's
            divisor = (torch.tensor(weights, dtype=stacked.dtype) @ kept).view_as(total)
            total.div_(divisor.masked_fill_(divisor == 0, 1.0))
        return total.mul_(sign).mul_(self.scaling).add_(base)


#: Elements of all task vectors together that the processor's cache takes with what is computed of them.
_CACHED = 1 << 17


def at_least(delta: Tensor, threshold: float) -> Tensor:
    """`delta` where it is as large as the threshold or larger in size, 0 elsewhere."""
    below = np.nextafter(np.array(threshold, dtype=delta.numpy().dtype), 0)  # hardshrink keeps what is larger
    return torch.nn.functional.hardshrink(delta, float(below))


def generators(seed: int, name: str, count: int) -> list[torch.Generator]:
    """One for each checkpoint, of the seed and the tensor's name: what is drawn does not depend on the order of tensors."""
    digests = (hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()[:7] for number in range(count))
    return [torch.Generator().manual_seed(int.from_bytes(each, "big")) for each in digests]


def densities(density: float | Sequence[float], what: str = "density") -> list[float]:
    """Shares in (0, 1] of elements to keep: one for all checkpoints, or one for each."""
    values = [density] if isinstance(density, int | float) else list(density)
    found = [fraction(what, each, one=True) for each in values]
    if not found or min(found) == 0:
        raise RecipeError(
            f"`{what}` is {density!r}: it must lie above 0 and at most at 1, one number or one for each model"
        )
    return found


def of(values: Sequence[float], number: int) -> float:
    """The value for checkpoint `number`."""
    return values[number] if len(values) > 1 else values[0]
