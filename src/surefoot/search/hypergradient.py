"""Gradients of a validation loss by hyperparameters of the training loss, by the implicit function theorem.

Where the weights w minimise L_tr(w, h), dw/dh = -H^-1 d2L_tr/dw dh with H = d2L_tr/dw2, so that

    dL_val/dh = (direct) - v H^-1 d2L_tr/dw dh,   v = dL_val/dw

H^-1 is never formed: v H^-1 is approximated by a sum_{i=0..k} v (I - a H)^i, a Neumann series that converges where
a ||H|| < 2 and H has no negative curvature; with few terms it is what unrolling k steps of gradient descent with the
rate a would give at the minimum. Lorraine, Vicol and Duvenaud 2020, "Optimizing Millions of Hyperparameters by Implicit
Differentiation" (arXiv 1911.02590).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Multiplications by H with which its largest eigenvalue is looked for, and the share of the rate so found that is used:
#: a few multiplications find less than the largest.
POWER, SAFE = 6, 0.8


def hypergradient(
    inner: Tensor,
    outer: Tensor,
    weights: Sequence[Tensor],
    hypers: Sequence[Tensor],
    *,
    terms: int = 20,
    rate: float | None = None,
) -> list[Tensor]:
    """d outer / d hypers in the hypers' shapes, through the weights that minimise `inner`; see the module.

    inner, outer: scalars with their graphs, of training and validation, at the weights and hypers as they are. terms: k;
    each costs a multiplication by H, about two backward passes. rate: a; None finds 0.8 over H's largest eigenvalue by 6
    power iterations. The graph of `inner` has to allow second derivatives.
    """
    direct = torch.autograd.grad(outer, hypers, retain_graph=True, allow_unused=True, materialize_grads=True)
    vector = torch.autograd.grad(outer, weights, allow_unused=True, materialize_grads=True)
    slopes = torch.autograd.grad(inner, weights, create_graph=True, allow_unused=True, materialize_grads=True)
    if rate is None:
        rate = safe_rate(slopes, weights, vector)
    product = neumann(slopes, weights, vector, terms=terms, rate=rate)
    mixed = _pulled(slopes, hypers, product)
    return [one - other for one, other in zip(direct, mixed, strict=True)]


def neumann(
    slopes: Sequence[Tensor], weights: Sequence[Tensor], vector: Sequence[Tensor], *, terms: int, rate: float
) -> list[Tensor]:
    """a sum_{i=0..k} v (I - a H)^i, in the weights' shapes; `slopes`: dL_tr/dw with its graph."""
    power, total = list(vector), list(vector)
    for _ in range(terms):
        curved = _pulled(slopes, weights, power)
        power = [each - rate * other for each, other in zip(power, curved, strict=True)]
        total = [each + other for each, other in zip(total, power, strict=True)]
    return [rate * each for each in total]


def safe_rate(slopes: Sequence[Tensor], weights: Sequence[Tensor], vector: Sequence[Tensor]) -> float:
    """0.8 over |eigenvalue of H| that power iteration from `vector` comes to; 1 where H or `vector` is zero."""
    direction, curvature = list(vector), 0.0
    for _ in range(POWER):
        length = float(_length(direction))
        if not length:
            break
        direction = _pulled(slopes, weights, [each / length for each in direction])
        curvature = float(_length(direction))
    return SAFE / curvature if curvature else 1.0


def _pulled(slopes: Sequence[Tensor], by: Sequence[Tensor], vector: Sequence[Tensor]) -> list[Tensor]:
    """sum_j vector_j d slopes_j / d by: a product with the Hessian where `by` are the weights."""
    pairs = [(slope, each) for slope, each in zip(slopes, vector, strict=True) if slope.requires_grad]
    if not pairs:
        return [torch.zeros_like(each) for each in by]
    outputs, given = zip(*pairs, strict=True)
    return list(
        torch.autograd.grad(
            outputs, by, grad_outputs=given, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


def _length(tensors: Sequence[Tensor]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(torch.stack([each.norm() for each in tensors]))
    return length
