"""Optimizers and wrappers around them: one file each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.modules.batchnorm import _NormBase

from surefoot.errors import RecipeError
from surefoot.tune.objective import fraction

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]

#: Devices with fused kernels for the optimizers that are used here; not for complex numbers.
FUSED = frozenset({"cpu", "cuda", "mps", "xpu"})


def groups(parameters: Parameters) -> list[dict[str, Any]]:
    """Parameters or torch's parameter groups, as a list of groups; RecipeError if there are none."""
    given: list[Any] = list(parameters)
    if not given:
        raise RecipeError("nothing trains: the optimizer was given no parameters")
    found = given if isinstance(given[0], dict) else [{"params": given}]
    return [group | {"params": list(group["params"])} for group in found]


def fused_or_not(
    optimizer: Callable[..., torch.optim.Optimizer], parameters: Parameters, **options: Any
) -> torch.optim.Optimizer:
    """torch's optimizer with its fused kernel where torch has one for the parameters' devices and types.

    Fused updates are one pass over the weights, on the CPU too: four times cheaper there than the plain loop.
    """
    given = groups(parameters)
    fused = all(
        parameter.is_floating_point() and parameter.device.type in FUSED
        for group in given
        for parameter in group["params"]
    )
    return optimizer(given, fused=fused, **options)


def check_betas(betas: Sequence[float]) -> tuple[float, float]:
    """Validate two decay rates, each in [0, 1).

    >>> check_betas([0.9, 1.5])
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `betas[1]` is 1.5: it must lie between 0 and 1, 1 excluded
    """
    if not isinstance(betas, list | tuple) or len(betas) != 2:
        raise RecipeError(f"`betas` is {betas}: it must be two numbers between 0 and 1, such as [0.9, 0.999]")
    return fraction("betas[0]", betas[0]), fraction("betas[1]", betas[1])


@contextmanager
def displaced(parameters: Iterable[nn.Parameter]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """For passes at weights that the model will not keep: yields the parameters that have a gradient, to be moved, and
    copies of what they were, to be read.

    However the context ends, they are put back bit for bit, and so are batch-norm's running statistics.
    """
    moved: list[Tensor] = [parameter for parameter in parameters if parameter.grad is not None]
    with torch.no_grad():
        before = [parameter.clone() for parameter in moved]
    try:
        with running_statistics_kept():
            yield moved, before
    finally:
        restore(moved, before)


@contextmanager
def instead(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """For passes at other weights that are there already: storages change hands, and nothing is copied."""
    own = [parameter.data for parameter in parameters]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    try:
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.data = value


@torch.no_grad()
def restore(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write the values into the parameters."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients of parameters that have one."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@contextmanager
def running_statistics_kept() -> Iterator[None]:
    """Batch-norm layers that run within normalise as always, but their running statistics end as they began.

    For passes at weights that the model will not keep. An optimizer does not see the model, so the layers are met
    as they run: by a hook of this thread, which lives as long as the context.
    """
    here = threading.get_ident()
    before: dict[Tensor, Tensor] = {}

    def remember(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, _NormBase) and threading.get_ident() == here:
            for buffer in module.buffers(recurse=False):
                if buffer not in before:
                    before[buffer] = buffer.clone()

    hook = hooks.register_module_forward_pre_hook(remember)
    try:
        yield
    finally:
        hook.remove()
        with torch.no_grad():
            for buffer, value in before.items():
                buffer.copy_(value)
