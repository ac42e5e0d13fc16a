"""Any optimizer of torch.optim by its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from surefoot.registry import Paper, register
from surefoot.tune.objective import Space
from surefoot.tune.optimizers import Parameters
from surefoot.tune.optimizers.selected import Selected


@register(
    "torch_optim",
    kind="optimizer",
    family="library",
    papers=[Paper("On the Variance of the Adaptive Learning Rate and Beyond", "Liu et al.", 2020, arxiv="1908.03265")],
)
class TorchOptim(Selected):
    """Any optimizer of torch, by name: theta <- theta - lr * (what `algorithm` makes of the gradient).

        optimizer: {name: torch_optim, algorithm: radam, lr: 5.0e-5, weight_decay: 0.01}

    algorithm: a class of torch.optim in small letters; `radam` by default (rectified Adam, whose paper is the one
    named here), and adadelta, adagrad, adam, adamax, asgd, nadam, rmsprop, rprop and others. `adamw` and `sgd` have
    entries of their own, fused. lr and all other options are the algorithm's, with its own defaults and names.

    A rehearsal on a few numbers finds out when the recipe is made whether the algorithm can run here: LBFGS calls the
    model itself, Muon takes matrices only. Raises RecipeError for those, for unknown names and for options out of range.

    >>> optimizer = TorchOptim([torch.nn.Parameter(torch.ones(2))], algorithm="nadam", lr=1e-3)
    >>> type(optimizer.inner).__name__
    'NAdam'
    >>> TorchOptim([torch.nn.Parameter(torch.ones(2))], algorithm="nadm")
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `torch_optim` has no algorithm `nadm`: did you mean `nadam` or `adam` or `radam`?
    """

    called = "torch_optim"

    def __init__(
        self, parameters: Parameters, *, algorithm: str = "radam", lr: float | None = None, **options: Any
    ) -> None:
        super().__init__(parameters, algorithm=algorithm, lr=lr, **options)

    @classmethod
    @cache
    def library(cls) -> Mapping[str, type[torch.optim.Optimizer]]:
        base = torch.optim.Optimizer
        found = [each for each in vars(torch.optim).values() if isinstance(each, type) and issubclass(each, base)]
        return {each.__name__.lower(): each for each in found if each is not base}

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {}
