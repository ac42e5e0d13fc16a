"""Feasible learning."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_problem import EXAMPLES, take, tiny_batch, tiny_context, tiny_model, tiny_step

from surefoot.errors import RecipeError
from surefoot.tune.reducers.feasible_learning import FeasibleLearning


def reducer(**options):
    term = FeasibleLearning(**options)
    term.setup(tiny_context(tiny_model()))
    return term


def test_resilient_saddle_point_of_a_quadratic():
    """Closed form: two losses (w - a_i)^2 with a = 0 and 2 meet at w = 1, and each multiplier at alpha (1 - epsilon)."""
    term = reducer(p_min=0.8, eta=0.05, alpha=1.5)
    batch = take(replace(tiny_batch(), index=torch.arange(EXAMPLES)), torch.tensor([0, 1]))
    step = tiny_step(tiny_model(), batch)
    w, targets = torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    for _ in range(4000):
        leaf = w.clone().requires_grad_()
        losses = (leaf - targets).square()
        term.update(losses.detach().float(), step)
        term(losses, step).backward()
        w = w - 0.05 * leaf.grad
    torch.testing.assert_close(w, torch.tensor(1.0, dtype=torch.float64), atol=1e-3, rtol=0)
    expected = 1.5 * (1 + math.log(0.8))
    torch.testing.assert_close(term.multipliers[:2], torch.full((2,), expected), atol=1e-3, rtol=0)
    assert not term.multipliers[2:].any()


def test_dual_before_primal_and_never_below_zero():
    term = reducer(p_min=0.5, eta=0.1)
    step = tiny_step(tiny_model(), tiny_batch())
    losses = torch.linspace(0.0, 2.0, EXAMPLES)
    assert float(term(losses, step)) == 0
    term.update(losses, step)
    expected = (0.1 * (losses - math.log(2))).clamp_min(0)
    torch.testing.assert_close(term.multipliers[step.batch.index], expected)
    torch.testing.assert_close(term(losses, step), (expected * losses).mean())
    for _ in range(50):
        term.update(torch.zeros(EXAMPLES), step)
    assert not term.multipliers.any()


def test_equal_multipliers_are_the_mean():
    """Where all examples violate alike, the step is that of the mean, scaled."""
    term = reducer(eta=0.5)
    step = tiny_step(tiny_model(), tiny_batch())
    term.update(torch.full((EXAMPLES,), 2.0), step)
    losses = torch.linspace(0.1, 1.0, EXAMPLES)
    torch.testing.assert_close(term(losses, step), 0.5 * (2 + math.log(0.6)) * losses.mean())


@pytest.mark.parametrize(
    "options", [{"p_min": 0.0}, {"p_min": 1.0}, {"eta": 0.0}, {"alpha": 0.0}, {"eta": 2.0, "alpha": 1.0}]
)
def test_values_out_of_range(options):
    with pytest.raises(RecipeError):
        FeasibleLearning(**options)
