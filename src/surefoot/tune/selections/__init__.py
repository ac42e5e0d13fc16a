"""Selections: what trains, and through what; one file each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from surefoot.errors import RecipeError
from surefoot.models.additions import inside

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: What runs after the last layer, by the names that models give it. A list of names and not the order of registration:
#: MPNet's and DeBERTa's relative positions are registered after the layers and run in every one of them. Poolers are
#: missing because features are pooled from the last hidden state, so that nothing would reach them.
ABOVE = re.compile(r"((^|.*\.)(final_\w*|ln_f|norm_f|post_layernorm)|^(norm|layernorm|LayerNorm|layer_norm|ln))\.\w+$")


def train_only(model: Model, names: Iterable[str]) -> None:
    """Let exactly the parameters with these names train; RecipeError if there are none."""
    chosen = set(names)
    trained = 0
    for name, parameter in model.named_parameters():
        trains = name in chosen and (parameter.is_floating_point() or parameter.is_complex())
        parameter.requires_grad_(trains)
        if not trains:
            parameter.grad = None
        trained += trains
    if not trained:
        raise RecipeError("nothing trains: the selection holds no parameter of the model")


def head_names(model: Model) -> list[str]:
    """Names of the head's parameters."""
    return [f"head.{name}" for name, _ in model.head.named_parameters()]


def top_names(model: Model, k: int) -> list[str]:
    """Names of the parameters of the `k` top layers, of what runs above them and of the head; of the head if k is 0."""
    chosen = highest(model, k)
    if not chosen:
        return head_names(model)
    names = [name for name, _ in model.named_parameters()]
    layers = [f"{name}." for name in model.layer_names]
    outside = [name for name in names if name.startswith("backbone.") and not name.startswith(tuple(layers))]
    above = [name for name in outside if ABOVE.match(name.removeprefix("backbone."))]
    inside = [name for name in names if name.startswith(tuple(f"{layer}." for layer in chosen))]
    return inside + above + head_names(model)


def highest(model: Model, k: int) -> list[str]:
    """Names of the `k` top layers, lowest first; RecipeError if there are fewer."""
    names = list(model.layer_names)
    if k > len(names):
        known = ", ".join(f"`{name}`" for name in names) or "none found"
        raise RecipeError(f"{k} top layers are to train, but the model has {len(names)}: {known}")
    return names[len(names) - k :]


def whole(name: str, value: Any, *, least: int = 0) -> int:
    """Validate a count.

    >>> whole("k", 1.5)
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `k` is 1.5: it must be a whole number of at least 0
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RecipeError(f"`{name}` is {value}: it must be a whole number of at least {least}")
    return value


def linear_layers(model: Model, within: Iterable[str]) -> dict[str, nn.Module]:
    """The linear layers under the modules of those names, by name; `Conv1D` is GPT-2's transposed linear layer.

    Those of adapters that the model keeps are not among them.
    """
    from transformers.pytorch_utils import Conv1D

    prefixes = tuple(f"{name}." for name in within)
    added = inside(model, [name for name, _ in model.named_modules()])
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(prefixes) and name not in added and isinstance(module, nn.Linear | Conv1D)
    }


def check_plain(model: Model, what: str) -> None:
    """RecipeError if a selection already wraps the model's layers."""
    names = [name for name, _ in model.named_parameters()]
    if any(".base_layer." in name or (".parametrizations." in name and name.endswith(".original")) for name in names):
        raise RecipeError(f"{what} cannot wrap layers that another selection wraps: finish that one first")
