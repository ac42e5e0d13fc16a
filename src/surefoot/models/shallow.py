"""A model of another's first layers, with its weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from surefoot.errors import ModelError
from surefoot.models.layers import keep_layers
from surefoot.models.model import Model


def first_layers(model: Model, count: int) -> Model:
    """The model of its first `count` layers; its weights are the model's own, not copies.

    Where layers end in a norm of their own (BERT) its features are those that `matryoshka_2d` and `starbucks` train; a
    causal model's last norm stays behind the last layer that is left. Raises ModelError for a count out of range.
    """
    if not 1 <= count <= len(model.layers):
        raise ModelError(f"layers {count}: `{model.name}` has {len(model.layers)}: choose from 1 to that")
    shared: dict[int, Any] = {id(each): each for each in [*model.parameters(), *model.buffers()]}
    smaller = deepcopy(model, shared)
    keep_layers(smaller.backbone, smaller.stack, list(range(count)))
    return smaller
