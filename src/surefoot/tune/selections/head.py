"""Linear probing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.registry import Paper, register
from surefoot.tune.selection import Selection
from surefoot.tune.selections import head_names, train_only

if TYPE_CHECKING:
    from surefoot.models.model import Model


@register(
    "head",
    kind="selection",
    family="depth",
    papers=[
        Paper(
            "Understanding intermediate layers using linear classifier probes",
            "Alain and Bengio",
            2016,
            arxiv="1610.01644",
        )
    ],
)
class Head(Selection):
    """Only the head trains: a linear probe of the pretrained features.

    Nothing of the backbone moves, so features are computed once. The first half of LP-FT.
    """

    def apply(self, model: Model) -> None:
        train_only(model, head_names(model))

    def __repr__(self) -> str:
        return "Head()"
