"""Learning rates and decays of their own for each layer.

`layerwise: {lr: [1, 0.9, 0.81]}` in a recipe multiplies the learning rate: of the head and what runs after the layers by
the first factor, of the topmost layer by the second, and so on downwards; the last factor holds for everything below.
`layerwise: {lr: [1, 1, 0]}` therefore trains the head and the topmost layer alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from surefoot.errors import RecipeError, nearest
from surefoot.tune.objective import positive

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: What optimizers keep for each group of parameters and a factor makes sense for.
KEYS = ("lr", "weight_decay")


def check_factors(name: str, factors: object) -> list[float]:
    """Validate factors from the head downwards: at least one, finite, at least 0.

    >>> check_factors("layerwise.lr", [1, -1])
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `layerwise.lr[1]` is -1: it must be a finite number of at least zero
    """
    if not isinstance(factors, list | tuple) or not factors:
        raise RecipeError(f"`{name}` is {factors!r}: list factors from the head downwards, such as [1.0, 0.9, 0.81]")
    return [positive(f"{name}[{i}]", factor, zero=True) for i, factor in enumerate(factors)]


def check_layerwise(value: object) -> dict[str, list[float]]:
    """Validate a recipe's `layerwise`."""
    if not isinstance(value, Mapping):
        raise RecipeError(
            f"`layerwise` is {value!r}: write factors from the head downwards, such as {{lr: [1.0, 0.9]}}"
        )
    for key in value:
        if key not in KEYS:
            raise RecipeError(f"`layerwise` has no `{key}`: {nearest(str(key), KEYS)}")
    return {key: check_factors(f"layerwise.{key}", factors) for key, factors in value.items()}


def factor_at(factors: Sequence[float], height: int) -> float:
    """The factor that far below the top; see `Model.height`.

    >>> [factor_at([1.0, 0.5], height) for height in range(3)]
    [1.0, 0.5, 0.5]
    """
    return factors[min(height, len(factors) - 1)]


def parameter_groups(
    model: Model, trained: Mapping[str, nn.Parameter], extra: Iterable[nn.Parameter], layerwise: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """torch's parameter groups, one for every layer that trains; `extra` (an objective's own) join the head's.

    What is the same for all is left out: without `layerwise` there is one group.
    """
    depth = max((len(factors) for factors in layerwise.values()), default=1) - 1
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        groups.setdefault(min(model.height(name), depth), []).append(parameter)
    groups.setdefault(0, []).extend(extra)
    return [{"params": each, "height": height} for height, each in sorted(groups.items()) if each]


def scale_groups(groups: Iterable[dict[str, Any]], layerwise: Mapping[str, Sequence[float]]) -> None:
    """Multiply what the optimizer set for each group by its layer's factors; RecipeError for what it does not have."""
    for group in groups:
        for key, factors in layerwise.items():
            if key not in group:
                raise RecipeError(f"`layerwise` scales `{key}`, which this optimizer does not have: leave it out")
            group[key] *= factor_at(factors, group["height"])
