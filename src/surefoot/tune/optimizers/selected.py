"""Any optimizer of a library by its name: what `torch_optim` and `pytorch_optimizer` share.

Some optimizers of such a library cannot run under the contract: they call the model themselves, wrap another optimizer,
evaluate at other weights than they train, or keep state that they do not save. A rehearsal on a few numbers finds that
out when the recipe is made.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError, nearest
from surefoot.tune.checkpoint import flatten, inflate
from surefoot.tune.objective import positive
from surefoot.tune.optimizer import TorchOptimizer
from surefoot.tune.optimizers import Parameters, groups

#: What **kwargs of such libraries reads; anything else would be a slip of the pen that nobody notices.
SWALLOWED = frozenset({"foreach", "maximize"})
Make = Callable[[list[Any]], torch.optim.Optimizer]


class Selected(TorchOptimizer):
    """One optimizer of a library, chosen by `algorithm`; a subclass gives `library` and its name in recipes."""

    called: ClassVar[str]

    def __init__(self, parameters: Parameters, *, algorithm: str, lr: float | None = None, **options: Any) -> None:
        known = self.library()
        if not isinstance(algorithm, str) or algorithm.lower() not in known:
            raise RecipeError(f"`{self.called}` has no algorithm `{algorithm}`: {nearest(str(algorithm), known)}")
        self.algorithm = algorithm.lower()
        if lr is not None:
            options["lr"] = positive("lr", lr)
        kind = known[self.algorithm]
        what = f"algorithm `{self.algorithm}` of optimizer `{self.called}`"
        _check_options(kind, options, what)

        def make(given: list[Any]) -> torch.optim.Optimizer:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return kind(given, **options)

        given = groups(parameters)
        rehearse(make, what, dimensions={1, 2, *(each.ndim for group in given for each in group["params"])})
        self.inner = make(given)
        self.param_groups = self.inner.param_groups

    @classmethod
    def library(cls) -> Mapping[str, type[torch.optim.Optimizer]]:
        """The library's optimizers by name, in small letters."""
        raise NotImplementedError


def _check_options(kind: type[torch.optim.Optimizer], options: Mapping[str, Any], what: str) -> None:
    accepted = list(inspect.signature(kind).parameters.values())[1:]
    names = {each.name for each in accepted if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    if any(each.kind is each.VAR_KEYWORD for each in accepted):
        names |= SWALLOWED
    for name in options:
        if name not in names:
            raise RecipeError(f"unknown option `{name}` of {what}: {nearest(name, names)}")
    missing = [each.name for each in accepted if each.name in names - {*options} and each.default is each.empty]
    if missing:
        raise RecipeError(
            f"{what} needs {', '.join(f'`{name}`' for name in missing)}, which a recipe may not be able to give: choose another"
        )


def rehearse(make: Make, what: str, *, dimensions: set[int]) -> None:
    """Three steps on a quadratic, the last two once more after saving and loading; RecipeError if that cannot be done.

    dimensions: of the parameters, as those of the model will have them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = [nn.Parameter(0.5 * torch.randn((4, 3, 2, 2, 2)[:each] or ())) for each in sorted(dimensions)]
        again = copy.deepcopy(weights)
        try:
            optimizer = make([{"params": weights}])
            _check_runs(optimizer, what)
            _descend(optimizer, weights, steps=range(1))
            tensors: dict[str, Tensor] = {}
            kept = json.loads(json.dumps(flatten(optimizer.state_dict(), tensors)))
            with torch.no_grad():
                for copied, weight in zip(again, weights, strict=True):
                    copied.copy_(weight)
            _descend(optimizer, weights, steps=range(1, 3))
            resumed = make([{"params": again}])
            resumed.load_state_dict(inflate(kept, tensors))
            _descend(resumed, again, steps=range(1, 3))
        except RecipeError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise RecipeError(
                f"{what} cannot be used here ({reason}): mend its options, or choose another algorithm"
            ) from error
    if not all(torch.isfinite(weight).all() for weight in weights):
        raise RecipeError(f"{what} diverges on a quadratic with these options: lower `lr`, or choose another algorithm")
    if not all(torch.equal(one, other) for one, other in zip(weights, again, strict=True)):
        raise RecipeError(
            f"{what} does not save all of its state, so that a training could not go on after a crash: choose another"
        )


def _check_runs(optimizer: torch.optim.Optimizer, what: str) -> None:
    if callable(getattr(optimizer, "eval", None)):
        raise RecipeError(f"{what} evaluates other weights than it trains, which a run does not keep: choose another")
    for group in optimizer.param_groups:
        rate = group.get("lr")
        if not isinstance(rate, int | float) or not math.isfinite(rate):
            raise RecipeError(f"{what} has no learning rate that a schedule could follow: choose another")


def _descend(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], *, steps: range) -> None:
    """Steps on ||w - 1||^2 / 2 with noise, the same for the same number of a step."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        torch.manual_seed(step)
        for weight in weights:
            noise: Tensor = torch.randn(weight.shape, generator=generator)
            weight.grad = (weight.detach() - 1) + 0.1 * noise
        optimizer.step()
