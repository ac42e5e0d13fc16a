"""Weights rounded to few bits, row by row: the steps by which selections that train under noise measure it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.models.modes import evaluating

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.step import Batch

#: Clips that are tried for a row: its largest magnitude times 1.00, 0.99, ..., 0.21.
GRID, SHRINKS = 100, 80


@torch.no_grad()
def steps(weight: Tensor, bits: int) -> Tensor:
    """The step between levels of each row of `weight` (out, in): clip / (2^(bits - 1) - 1), (out, 1), where the clip is
    the one of the grid that rounds the row with the least squared error."""
    most = 2 ** (bits - 1) - 1
    largest = weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    best: Tensor = largest / most
    least = torch.full_like(largest, torch.inf)
    for i in range(SHRINKS):
        step = (1 - i / GRID) * largest / most
        error = (rounded(weight, step, bits) - weight).square().sum(1, keepdim=True)
        best = torch.where(error < least, step, best)
        least = torch.minimum(error, least)
    return best


def rounded(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """The nearest of 2^bits levels, `step` (out, 1) apart."""
    levels = (weight / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return levels * step


def rows(module: nn.Module) -> Tensor:
    """The weight of a linear layer as (out, in); `Conv1D` is GPT-2's transposed one."""
    weight = module.get_parameter("weight").detach()
    return weight if isinstance(module, nn.Linear) else weight.T


def check_bits(bits: int) -> int:
    """Raises RecipeError unless it is a whole number from 2 to 16."""
    if not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= 16:
        raise RecipeError(f"`bits` is {bits}: it must be a whole number from 2 to 16")
    return bits


@torch.no_grad()
def watch(
    model: Model, names: Iterable[str], batches: Iterable[Batch], see: Callable[[str, Tensor, Tensor], None]
) -> None:
    """Run the model over the batches in eval mode; `see` is given the name, inputs (N, in) and outputs (N, out) of those
    linear layers, padding left out."""
    mask: list[Tensor | None] = [None]

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def look(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x, kept = args[0].detach(), mask[0]
            if kept is not None and x.shape[:-1] == kept.shape:
                see(name, x[kept], output.detach()[kept])
            else:
                see(name, x.flatten(0, -2), output.detach().flatten(0, -2))

        return look

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with evaluating(model):
            for batch in batches:
                given = batch.inputs.get("attention_mask")
                mask[0] = given.bool() if given is not None else None
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
