"""The contract of a selection: which parameters train, and through what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Protocol

from surefoot.tune.objective import Space

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.step import Batch


class Training(Protocol):
    """The training that a selection is made for, before its first step: what a selection that looks at data sees."""

    def batches(self, examples: int, *, size: int = 32) -> Iterator[Batch]:
        """Batches of at most `size` of so many training examples (all, if there are fewer), drawn with the seed."""
        ...

    @property
    def examples(self) -> int:
        """How many training examples there are."""
        ...

    def rehearse(self, selection: Selection) -> Model:
        """The same training (recipe, data, seed, start) of a copy of the model through another selection, to its end."""
        ...


class Selection:
    """Decides what trains. Constructor arguments are validated there; `setup` sees the data and `apply` the model.

    `apply` sets `requires_grad` on every parameter and may wrap modules (LoRA, Mixout); `finish` folds whatever was
    wrapped back into plain weights, so that a saved model opens anywhere (but see `keeps`). Layers below the lowest that
    trains run the same in every step, and their output is cached.
    """

    #: whether selected parameters go through wrappers that another wrapping selection would not survive.
    wraps: ClassVar[bool] = False
    #: whether what it puts in stays in the model after `finish`: adapters, which no weight can absorb. Such parts are
    #: `Addition`s, and the selection has a method `attach(model)` that puts them in again when a model is loaded.
    keeps: ClassVar[bool] = False
    #: whether the model still answers as before right after `apply`, so that training starts from the pretrained model.
    starts_there: ClassVar[bool] = True
    #: the learning rates that suit what it trains, beside those that suit the weights themselves: for a search's draws.
    rate_scale: ClassVar[float] = 1.0
    #: whether `setup` takes a loss of the labels by the model's head, which an embedding has none of.
    reads_labels: ClassVar[bool] = False
    #: of what objectives may need (`objective.NEEDS`), what its model cannot give: refused when the two come together.
    withholds: ClassVar[frozenset[str]] = frozenset()

    def reserve(self, model: Model) -> None:
        """Before the texts are encoded: what `apply` will need of their length. Raises RecipeError if nothing would be left."""

    def setup(self, model: Model, training: Training) -> None:
        """Look at the data before `apply`, for selections that choose by it; called once, and again on a resume.

        The model must be left as it is; what was found is kept on the selection, in attributes that end in `_`.
        """

    def apply(self, model: Model) -> None:
        """Freeze and unfreeze; wrap if need be. Raises RecipeError if nothing would train or a layer is unknown."""
        raise NotImplementedError

    def before_step(self, model: Model, *, step: int, steps: int) -> None:
        """Before the optimizer's step number `step` = 0, 1, ..., steps - 1: for rates that follow the training."""

    def after_step(self, model: Model, *, step: int, steps: int) -> None:
        """After the optimizer's step number `step` of `steps`, with the gradients of its last pass still there.

        For constraints and schedules: bounds on what trained, ranks that fall. What must survive a resume is a buffer
        or a parameter of the model.
        """

    def finish(self, model: Model) -> None:
        """Undo the wrapping: the model's parameters have their original names again and hold the result."""

    def conclude(self, model: Model, training: Training) -> list[str]:
        """After `finish`, once a training has ended and nothing follows it: what the user should know of the outcome."""
        return []

    @classmethod
    def space(cls) -> dict[str, Space]:
        """Hyperparameters worth searching."""
        return {}
