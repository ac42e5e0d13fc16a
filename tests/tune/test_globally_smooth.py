"""Globally smooth functions on manifolds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_problem import EXAMPLES, move, tiny_batch, tiny_context, tiny_model, tiny_step
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objectives.globally_smooth import GloballySmooth, distances, steepest


def objective(**options):
    term = GloballySmooth(**options)
    term.setup(tiny_context(tiny_model()))
    return term


def test_no_smoothness_is_cross_entropy_to_the_bit():
    step = tiny_step(tiny_model(), tiny_batch())
    term = objective(smoothness=0.0, eta=0.0)
    term.update(step)
    assert torch.equal(term.per_example(step), F.cross_entropy(step.output.logits, step.labels, reduction="none"))


def test_the_plain_laplacian_is_its_trace():
    """Against numpy in float64: with equal multipliers the penalty is 2 tr(p^T L p) / (B (B - 1)), L = diag(W 1) - W."""
    step = tiny_step(tiny_model(), tiny_batch())
    term = objective(eta=0.0, t=0.1, smoothness=3.0)
    p = step.output.logits.detach().double().softmax(1).numpy()
    features = step.reference.features.double().numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    squared = ((unit[:, None] - unit) ** 2).sum(2)
    kernel = np.exp(-squared / 0.4) - np.eye(EXAMPLES)
    laplacian = np.diag(kernel.sum(1)) - kernel
    penalty = 2 * np.trace(p.T @ laplacian @ p) / (EXAMPLES * (EXAMPLES - 1))
    losses = F.cross_entropy(step.output.logits, step.labels)
    assert float(term(step) - losses) == pytest.approx(3.0 * penalty, rel=1e-4)


def test_duals_by_hand():
    """Against loops in float64 from the docstring's formulas, over three steps."""
    model, term = tiny_model(), objective(eta=0.7, epsilon=0.2)
    multipliers, mu = np.full(EXAMPLES, 1 / EXAMPLES), 1.0
    for seed in range(3):
        batch = tiny_batch(seed, size=8)
        step = tiny_step(model, batch)
        term.update(step)
        p = step.output.logits.detach().double().softmax(1).numpy()
        mu = np.clip(mu + 0.7 / 10 * (float(F.cross_entropy(step.output.logits, step.labels)) - 0.2), 0, 2)
        unit = F.normalize(step.reference.features.double(), dim=1).numpy()
        slopes = [
            max(np.abs(p[i] - p[j]).sum() / np.linalg.norm(unit[i] - unit[j]) for j in range(8) if j != i)
            for i in range(8)
        ]
        rise = 1 + 0.7 * EXAMPLES * np.mean(slopes)
        for i, slope in zip(batch.index.tolist(), slopes, strict=True):
            multipliers[i] = (multipliers[i] + 0.7 * slope) / rise
        multipliers /= multipliers.sum()
        move(model, seed)
    np.testing.assert_allclose(term.multipliers.numpy(), multipliers, rtol=1e-4)
    assert float(term.mu) == pytest.approx(mu, rel=1e-5)


def test_weight_goes_where_the_slope_is_steepest():
    model, term = tiny_model(), objective()
    step = tiny_step(model, tiny_batch())
    for _ in range(20):
        term.update(step)
    slopes = steepest(step.output.logits.softmax(1), distances(step.reference.features))
    torch.testing.assert_close(
        term.multipliers[step.batch.index], (slopes / slopes.sum()).detach(), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("options", [{"t": 0.0}, {"eta": -1.0}, {"epsilon": -0.1}, {"smoothness": -1.0}])
def test_out_of_range(options):
    with pytest.raises(RecipeError):
        GloballySmooth(**options)
