"""The contract of a merge: checkpoints in, a checkpoint out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.selection import Training

Weights = Mapping[str, Tensor]


class Combine:
    """Arithmetic on weights, tensor by tensor: a subclass says what becomes of one tensor."""

    def setup(self, model: Model, training: Training, base: Weights) -> None:
        """Look at the data before merging, for merges that learn something from it: under `after`, called before each merge.

        `model` holds what was tuned from `base` and must be left as it is. Without it a merge knows weights alone.
        """

    def tensor(self, tuned: Sequence[Tensor], base: Tensor) -> Tensor:
        """The merged tensor, from the same tensor of each checkpoint and of the base they started from."""
        raise NotImplementedError

    def __call__(self, checkpoints: Sequence[Weights], base: Weights) -> dict[str, Tensor]:
        """Merge whole checkpoints; tensors that are not floating point are taken from the first."""
        first = checkpoints[0]
        return {
            name: self.tensor([each[name] for each in checkpoints], base[name])
            if first[name].is_floating_point()
            else first[name]
            for name in first
        }
