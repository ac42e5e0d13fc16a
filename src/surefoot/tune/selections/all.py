"""Full fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.registry import register
from surefoot.tune.selection import Selection
from surefoot.tune.selections import train_only

if TYPE_CHECKING:
    from surefoot.models.model import Model


@register("all", kind="selection", family="depth")
class All(Selection):
    """Everything trains: backbone and head.

    A pooler that no feature depends on is left out: weight decay alone would move it.
    """

    def apply(self, model: Model) -> None:
        unreached = set(model.unreached)
        train_only(model, [name for name, _ in model.named_parameters() if name not in unreached])

    def __repr__(self) -> str:
        return "All()"
