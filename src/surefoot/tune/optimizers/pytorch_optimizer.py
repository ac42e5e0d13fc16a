"""Any optimizer of the library pytorch_optimizer by its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from surefoot.errors import require
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space
from surefoot.tune.optimizers import Parameters
from surefoot.tune.optimizers.selected import Selected


@register(
    "pytorch_optimizer",
    kind="optimizer",
    family="library",
    papers=[
        Paper(
            "pytorch_optimizer: optimizer & lr scheduler & loss function collections in PyTorch",
            "Kim",
            2021,
            link="https://github.com/kozistr/pytorch_optimizer",
        ),
        Paper(
            "Stable and low-precision training for large-scale vision-language models",
            "Wortsman et al.",
            2023,
            arxiv="2304.13013",
        ),
    ],
)
class PytorchOptimizer(Selected):
    """Any of a hundred published optimizers, by name: theta <- theta - lr * (what `algorithm` makes of the gradient).

        optimizer: {name: pytorch_optimizer, algorithm: adan, lr: 1.0e-4, weight_decay: 0.02}

    algorithm: as the library names it (`pytorch_optimizer.get_supported_optimizers()`), in small letters; `stableadamw`
    by default (whose paper is named here), and adabelief, adan, adopt, came, lamb, madgrad, mars, prodigy, shampoo, sm3, tiger, yogi and others. lr and all other options are the algorithm's, with its own defaults and names. Wrap it as any other:
    {name: sam, inner: {name: pytorch_optimizer, algorithm: lamb}}.

    A rehearsal on a few numbers finds out when the recipe is made whether the algorithm can run here, and with the same
    bytes after a crash. Refused are those that call the model themselves, wrap another optimizer, need what a recipe
    cannot give, evaluate other weights than they train, or do not save their state.
    Needs `pip install 'surefoot[optimizers]'`. Raises RecipeError for those, for unknown names and for options out of
    range.

    >>> optimizer = PytorchOptimizer([torch.nn.Parameter(torch.ones(2))], algorithm="adan", lr=1e-3)
    >>> type(optimizer.inner).__name__
    'Adan'
    """

    called = "pytorch_optimizer"

    def __init__(
        self, parameters: Parameters, *, algorithm: str = "stableadamw", lr: float | None = None, **options: Any
    ) -> None:
        super().__init__(parameters, algorithm=algorithm, lr=lr, **options)

    @classmethod
    @cache
    def library(cls) -> Mapping[str, type[torch.optim.Optimizer]]:
        library = require("pytorch_optimizer", extra="optimizers", why="optimizer `pytorch_optimizer`")
        return {name: library.load_optimizer(name) for name in library.get_supported_optimizers()}

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {}
