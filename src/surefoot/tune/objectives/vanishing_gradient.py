"""The regulariser against vanishing gradients: the error keeps its norm on its way down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective
from surefoot.tune.step import Step


@register(
    "vanishing_gradient",
    kind="objective",
    family="gradient",
    papers=[
        Paper(
            "On the difficulty of training Recurrent Neural Networks",
            "Pascanu, Mikolov and Bengio",
            2013,
            arxiv="1211.5063",
        )
    ],
)
class VanishingGradient(Objective):
    """Each block hands the error down with the norm that it got: Omega = sum_k (||g_k|| / ||g_k+1|| - 1)^2.

    g_k+1 = dE / dh_k+1 and g_k = g_k+1 dh_k+1 / dh_k; h_k (T, D): the state that enters block k; E: cross-entropy of
    the example. Norms are over an example's positions and units. Gives (B,), without units, at least 0, and 0 where
    nothing that trains lies within a block. As in the paper, only the immediate dependence on the block's weights is
    differentiated: g_k+1 and h_k count as constants.

    The paper's h_k are the states of a recurrent net in time, and its sum runs over time steps with shared weights;
    here they are the states between a transformer's blocks, which is our generalisation: the chain of products that
    makes gradients vanish or explode is the same, one factor a block. The paper's other half, clipping the gradient's
    norm, is the recipe's field `clip`.

    Costs a forward pass, and a backward pass that is differentiated again. Frozen blocks have no share in the sum.
    Has no hyperparameters beside the weight. Raises RecipeError if the model has no blocks. Reference: Pascanu, Mikolov
    and Bengio 2013, equations 9 and 10.

    >>> sorted(VanishingGradient.needs)
    ['layers']
    """

    needs = frozenset({"layers"})

    def setup(self, context: Context) -> None:
        if not context.layer_names:
            raise RecipeError(
                "vanishing_gradient compares the blocks of a transformer, and this model has none: leave it out"
            )

    def per_example(self, step: Step) -> Tensor:
        ratios = gradient_ratios(step.model, lambda: step.again().logits, step.labels)
        return (ratios - 1).square().sum(0)


def gradient_ratios(model: Model, run: Callable[[], Tensor], labels: Tensor) -> Tensor:
    """||g_k|| / ||g_k+1|| of every block that is not frozen: (K, B); differentiable in the blocks' own weights alone.

    run: a forward pass of the model that gives logits (B, C).
    """
    # Fused attention has no second derivative.
    with torch.enable_grad(), _apart(model.layers[model.frozen :]) as blocks, sdpa_kernel(SDPBackend.MATH):
        logits = run()
    if not blocks.inputs:
        return logits.new_ones(0, len(labels))
    error = F.cross_entropy(logits, labels, reduction="sum")
    (above,) = torch.autograd.grad(error, blocks.outputs[-1], retain_graph=True)
    ratios = []
    for entered, left in zip(reversed(blocks.inputs), reversed(blocks.outputs), strict=True):
        (below,) = torch.autograd.grad(left, entered, above, create_graph=True)
        ratios.append(_norms(below) / _norms(above).clamp_min(torch.finfo(torch.float32).tiny))
        above = below.detach()
    return torch.stack(ratios[::-1])


def _norms(states: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(states.float().flatten(1), dim=1)
    return norms


@dataclass
class _Blocks:
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


@contextmanager
def _apart(layers: list[nn.Module]) -> Iterator[_Blocks]:
    """Within, each block begins a graph of its own; what enters and leaves it is kept."""
    seen = _Blocks()

    def enter(
        module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not torch.is_grad_enabled():  # the frozen layers below run first, up to here
            return args, options
        state = (args[0] if args else options["hidden_states"]).detach().requires_grad_()
        seen.inputs.append(state)
        return ((state, *args[1:]), options) if args else (args, options | {"hidden_states": state})

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.is_grad_enabled():
            seen.outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in layers]
    hooks += [layer.register_forward_hook(leave) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
