"""Selections whose parts stay in the model: they are no function of the weights, so nothing could absorb them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from surefoot.errors import RecipeError
from surefoot.models.additions import parts
from surefoot.tune.selection import Selection
from surefoot.tune.selections import check_plain, head_names, highest, train_only

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Kept(Selection):
    """The pretrained weights stay; what `attach` puts beside them trains, and the head.

    A subclass writes `attach`. The model that comes out keeps the parts: `surefoot.load` opens a saved one whole, and
    `transformers` opens the pretrained model in it. Applied to a model that has the same parts, it trains those on.
    """

    wraps = True
    keeps = True
    #: the name in the registry, and what messages call it
    called: ClassVar[str]
    title: ClassVar[str]

    def attach(self, model: Model) -> None:
        """Put the parts in, fresh. Raises RecipeError where the model has no place for them."""
        raise NotImplementedError

    def collapse(self, model: Model) -> None:
        """Leave of the parts only what is needed to answer; after training."""

    @property
    def spec(self) -> dict[str, Any]:
        """The recipe's words for this selection."""
        names = list(inspect.signature(type(self)).parameters)
        return {"name": self.called} | {name: getattr(self, name) for name in names}

    def apply(self, model: Model) -> None:
        check_plain(model, self.title)
        if model.additions and model.additions != [self.spec]:
            raise RecipeError(
                f"the model has additions of `{model.additions[0]['name']}` already: choose the same selection with the same options, or take them out with surefoot.models.additions.remove"
            )
        if not model.additions:
            self.attach(model)
        inside = tuple(f"{name}." for name in parts(model))
        names = [name for name, _ in model.named_parameters() if name.startswith(inside)]
        train_only(model, names + head_names(model))

    def finish(self, model: Model) -> None:
        if parts(model) and not model.additions:
            self.collapse(model)
            model.additions = [self.spec]

    def blocks(self, model: Model, layers: int | None) -> list[str]:
        """Names of the so many top blocks, of all if None. Raises RecipeError for a model without blocks."""
        if not model.layer_names:
            raise RecipeError(
                f"{self.title} acts in transformer blocks, and `{model.name}` has none: choose `lora`, or a transformer"
            )
        return highest(model, layers) if layers else model.layer_names

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.spec.items() if name != "name")
        return f"{type(self).__name__}({shown})"
