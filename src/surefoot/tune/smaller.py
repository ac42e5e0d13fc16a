"""Smaller models inside one: features of lower layers and of fewer numbers, trained by another objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.registry import name_of
from surefoot.tune.build import Spec, build
from surefoot.tune.objective import Context, Objective
from surefoot.tune.step import Batch, Output, Step

#: Widths fall by halves to here, unless they are named.
NARROWEST = 32


class SmallerStep:
    """A step as the model's first `layer` layers and first `dim` numbers see it; everything else is the step's own.

    layer: None for all. dim: None for all. Nothing runs again: lower layers' states are those of the shared passes.
    """

    def __init__(self, step: Step, *, layer: int | None = None, dim: int | None = None) -> None:
        self._step, self._layer, self._dim = step, layer, dim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    @property
    def output(self) -> Output:
        return self._cut(self._step.output, self._step.batch)

    @property
    def second_output(self) -> Output:
        return self._cut(self._step.second_output, self._step.batch)

    def pair(self, name: str) -> Output:
        return self._cut(self._step.pair(name), self._step.pairs.batch(name, self._step.batch.index))

    def _cut(self, output: Output, batch: Batch) -> Output:
        features = output.features
        if self._layer is not None:
            assert output.hidden_states is not None, "`needs` holds hidden_states"
            features = self._step.model.features_of(output.hidden_states[self._layer], batch)
        return replace(output, features=features[:, : self._dim])


class Nested(Objective):
    """An objective of features, `inner`, taken of smaller models inside the model.

    inner: a name or a mapping with a name and options, of objectives that compare the features of pairs; InfoNCE by
    default. dims: widths, each above 0 and at most the model's; by default the model's own, its half, and so on to 32.
    """

    reads_labels = False

    def __init__(self, *, inner: Spec = "infonce", dims: Sequence[int] | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.base: Objective = build("objective", inner)
        if "pairs" not in self.base.needs:
            raise RecipeError(
                f"`{name_of(self.base)}` does not compare the features of pairs, which is all that a narrower vector has: choose another `inner`, such as `infonce`"
            )
        self.dims = None if dims is None else sorted({check_count("dims", each) for each in dims}, reverse=True)
        self.needs = self.base.needs

    def setup(self, context: Context) -> None:
        self.base.setup(context)
        width = context.model.dim
        self.widths_ = halves(width) if self.dims is None else self.dims
        if self.widths_[0] > width:
            raise RecipeError(f"`dims` asks for {self.widths_[0]} numbers, and a vector of the model has {width}")

    def update(self, step: Step) -> None:
        self.base.update(step)

    def loss(self, step: Step, *, layer: int | None = None, dim: int | None = None) -> Tensor:
        """The inner objective of a smaller model: a scalar."""
        smaller: Any = SmallerStep(step, layer=layer, dim=dim)
        found: Tensor = self.base(smaller)
        return found

    def members(self, step: Step) -> list[str]:
        """Which texts of a pair the data have, beside the anchor."""
        return list(step.pairs.encoded)

    def features(self, step: Step, *, layer: int | None = None) -> Tensor:
        """Features of all texts of the batch's pairs: (M B, D)."""
        smaller = SmallerStep(step, layer=layer)
        return torch.cat([smaller.output.features, *(smaller.pair(name).features for name in self.members(step))])


class Layered(Nested):
    """A nested objective that reads lower layers too."""

    def __init__(self, *, inner: Spec = "infonce", dims: Sequence[int] | None = None) -> None:
        super().__init__(inner=inner, dims=dims)
        self.needs = self.base.needs | {"hidden_states", "layers"}

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.layers_ = len(context.layer_names)
        if self.layers_ < 2:
            raise RecipeError("the model has one layer, and no lower one to train: use `matryoshka`")


def halves(width: int) -> list[int]:
    """The width, its half, the half of that, to `NARROWEST`.

    >>> halves(384)
    [384, 192, 96, 48]
    """
    found = [width]
    while found[-1] // 2 >= NARROWEST:
        found.append(found[-1] // 2)
    return found


def check_count(name: str, value: int) -> int:
    """A whole number above zero."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RecipeError(f"`{name}` has {value!r}: whole numbers above zero are wanted")
    return value
