"""The contract of a reducer: per-example losses to one scalar."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from surefoot.tune.objective import Context
from surefoot.tune.step import Step


class Reducer(nn.Module):
    """Turns the weighted sum of the per-example terms, (B,), into a scalar.

    Hyperparameters, state and `update` follow the rules of `Objective`: buffers move in `update` only.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def setup(self, context: Context) -> None:
        """Allocate state and check that the data can serve."""

    def forward(self, losses: Tensor, step: Step) -> Tensor:
        """(B,) -> scalar."""
        raise NotImplementedError

    def update(self, losses: Tensor, step: Step) -> None:
        """Move the state, given the detached per-example losses (B,) of the first pass; before `forward`."""
