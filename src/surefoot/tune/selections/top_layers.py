"""The top layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.registry import Paper, register
from surefoot.tune.selection import Selection
from surefoot.tune.selections import top_names, train_only, whole

if TYPE_CHECKING:
    from surefoot.models.model import Model


@register(
    "top_layers",
    kind="selection",
    family="depth",
    papers=[
        Paper(
            "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning",
            "Lee, Tang and Lin",
            2019,
            arxiv="1911.03090",
        )
    ],
)
class TopLayers(Selection):
    """The k top transformer blocks train, with the final norm above them and the head.

    k: 2; the paper finds that a quarter of the layers keeps 90 % of the quality. 0 is the head alone. What lies below
    runs once and is cached. Raises RecipeError, listing the layers, if the model has fewer than k.

    >>> TopLayers(k=2)
    TopLayers(k=2)
    """

    def __init__(self, *, k: int = 2) -> None:
        self.k = whole("k", k)

    def apply(self, model: Model) -> None:
        train_only(model, top_names(model, self.k))

    def __repr__(self) -> str:
        return f"TopLayers(k={self.k})"
