"""The contract of a pooling: how the states of a text's tokens become its one feature vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from surefoot.errors import ModelError, RecipeError
from surefoot.models.template import Template
from surefoot.registry import methods
from surefoot.tune.build import build

#: A name, or a mapping with a `name` and options, as cards and recipes write it.
PoolingSpec = str | Mapping[str, Any]


class Pooling:
    """States and mask to features. A pooling with parameters of its own is an `nn.Module` too, and trains with the head.

    `forward` is called with float32 states, in which a sum of thirty bfloat16 states does not lose a percent.
    """

    #: Whether it reads the states of every layer: then nothing below may be cached.
    every_layer: ClassVar[bool] = False
    #: Whether it needs a model whose tokens see only what is before them.
    causal: ClassVar[bool] = False

    @property
    def learns(self) -> bool:
        """Whether parameters of its own train."""
        return False

    @property
    def template(self) -> Template | None:
        """What is written around a text before the model reads it; None for the text as it is."""
        return None

    def bind(self, *, layers: int) -> None:
        """Allocate what depends on the model: called once, with its number of transformer blocks."""

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        """hidden: (B, T, D), or with `every_layer` a tuple of them, input embeddings first. mask: (B, T), 1 where a token
        is pooled: the attention mask, or the part of it that the template names. Returns (B, D)."""
        raise NotImplementedError


class Prompted(Pooling):
    """A plain pooling of what a causal model reads inside a template."""

    causal: ClassVar[bool] = True

    def __init__(self, template: Template, pool: str) -> None:
        self._template, self._pool = template, make_pooling(pool)

    @property
    def template(self) -> Template:
        return self._template

    def __call__(self, hidden: Any, mask: Tensor) -> Tensor:
        return self._pool(hidden, mask)


def make_pooling(spec: PoolingSpec) -> Pooling:
    """The pooling that `spec` names. Raises ModelError for a name or an option that is unknown."""
    try:
        made: Pooling = build("pooling", spec)
    except RecipeError as error:
        raise ModelError(str(error)) from error
    return made


def poolings() -> list[str]:
    """Their names."""
    return [method.name for method in methods("pooling")]
