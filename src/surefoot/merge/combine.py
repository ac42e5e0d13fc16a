"""The contract of a merge: checkpoints in, a checkpoint out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

Weights = Mapping[str, Tensor]


class Combine:
    """Arithmetic on weights, tensor by tensor: a subclass says what becomes of one tensor."""

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
