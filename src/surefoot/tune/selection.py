"""The contract of a selection: which parameters train, and through what."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from surefoot.tune.objective import Space

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Selection:
    """Decides what trains. Constructor arguments are validated there; `apply` sees the model.

    `apply` sets `requires_grad` on every parameter and may wrap modules (LoRA, Mixout); `finish` folds whatever was
    wrapped back into plain weights, so that a saved model opens anywhere. Layers below the lowest that
    trains run the same in every step, and their output is cached.
    """

    #: whether selected parameters go through wrappers that another wrapping selection would not survive.
    wraps: ClassVar[bool] = False

    def apply(self, model: Model) -> None:
        """Freeze and unfreeze; wrap if need be. Raises RecipeError if nothing would train or a layer is unknown."""
        raise NotImplementedError

    def finish(self, model: Model) -> None:
        """Undo the wrapping: the model's parameters have their original names again and hold the result."""

    @classmethod
    def space(cls) -> dict[str, Space]:
        """Hyperparameters worth searching."""
        return {}
