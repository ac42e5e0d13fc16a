"""LAWN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_problem import passes, tiny_context, tiny_model
from torch import nn

from surefoot.errors import RecipeError
from surefoot.tune.optimizers.adamw import AdamW
from surefoot.tune.optimizers.lawn import LAWN
from surefoot.tune.optimizers.sgd import SGD


def trained(model, wrap, steps=6, inner=AdamW):
    optimizer = wrap(inner(list(model.parameters()), lr=0.05))
    if isinstance(optimizer, LAWN):
        optimizer.setup(tiny_context(model))
    norms = []
    for step in range(steps):
        optimizer.step(passes(model, seed=step))
        norms.append(model.head.weight.detach().norm())
    return norms


def test_free_to_the_end_is_the_inner_optimizer():
    one, other = tiny_model(), tiny_model()
    trained(one, lambda inner: LAWN(inner, free=1.0), steps=12)
    trained(other, lambda inner: inner, steps=12)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_norms_stay_from_the_end_of_the_free_start_on():
    model = tiny_model()
    norms = trained(model, lambda inner: LAWN(inner, free=0.3), steps=8)  # of the 10 steps of the context
    assert norms[0] != norms[1] != norms[2]
    torch.testing.assert_close(torch.stack(norms[2:]), norms[2].expand(6))


def test_one_step_is_the_formula():
    """Against numpy in float64, from the formula: project, step, rescale."""
    rng = np.random.default_rng(0)
    start, gradient = rng.normal(size=(2, 3, 4))
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = LAWN(SGD([weight], lr=0.1, momentum=0.0), free=0.0, scope="matrices")
    optimizer.constrained_, optimizer.norms_ = [weight], [torch.zeros((), dtype=torch.float64)]

    def closure(first):
        weight.grad = torch.from_numpy(gradient.copy())
        return weight.detach().sum()

    optimizer.step(closure)
    along = gradient - (gradient * start).sum() / (start**2).sum() * start
    moved = start - 0.1 * along
    np.testing.assert_allclose(weight.detach().numpy(), moved * np.linalg.norm(start) / np.linalg.norm(moved))


def test_it_finds_the_minimum_on_the_sphere():
    """Closed form: the point of the sphere that is nearest to t is t scaled to the radius."""
    target = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    weight = nn.Parameter(torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    optimizer = LAWN(SGD([weight], lr=0.2, momentum=0.0), free=0.0, scope="matrices")
    optimizer.constrained_, optimizer.norms_ = [weight], [torch.zeros((), dtype=torch.float64)]

    def closure(first):
        weight.grad = weight.detach() - target
        return weight.detach().sum()

    for _ in range(200):
        optimizer.step(closure)
    torch.testing.assert_close(weight.detach(), 2 * target / 5)


def test_scope():
    model = tiny_model()
    for scope, count in (("head", 1), ("matrices", 3)):
        optimizer = LAWN(SGD(list(model.parameters())), scope=scope)
        optimizer.setup(tiny_context(model))
        assert len(optimizer.constrained_) == count
    with pytest.raises(RecipeError, match="scope"):
        LAWN(SGD(list(model.parameters())), scope="tail")


def test_a_head_of_zeros_may_leave_zero():
    model = tiny_model()
    nn.init.zeros_(model.head.weight)
    norms = trained(model, lambda inner: LAWN(inner, free=0.0), steps=3)
    assert norms[0] > 0
    torch.testing.assert_close(norms[2], norms[0])
