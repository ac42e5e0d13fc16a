"""What is specific to each reducer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_problem import EXAMPLES, take, tiny_batch, tiny_context, tiny_model, tiny_step

from surefoot.errors import DataError, RecipeError
from surefoot.tune.reducers.doubly_robust import DoublyRobust
from surefoot.tune.reducers.group_dro import GroupDRO
from surefoot.tune.reducers.mean import Mean

LOSSES = torch.linspace(0.5, 3.0, EXAMPLES)


@pytest.fixture
def step():
    return tiny_step(tiny_model(), tiny_batch())


def with_weight(step, weight):
    return tiny_step(step.model, replace(step.batch, weight=weight))


def test_mean_weighs_examples(step):
    assert torch.equal(Mean()(LOSSES, step), LOSSES.mean())
    weight = torch.arange(EXAMPLES).float()
    expected = np.average(LOSSES.numpy(), weights=weight.numpy())
    assert Mean()(LOSSES, with_weight(step, weight)).item() == pytest.approx(expected, rel=1e-6)
    assert Mean()(LOSSES, with_weight(step, torch.zeros(EXAMPLES))) == 0


def group_dro(**options):
    reducer = GroupDRO(**options)
    reducer.setup(tiny_context(tiny_model()))
    return reducer


def group_means(step):
    groups = step.batch.group.numpy()
    return np.array([LOSSES.double().numpy()[groups == g].mean() for g in range(2)])


def test_group_dro_without_steps_is_the_group_balanced_mean(step):
    reducer = group_dro(eta=0.0)
    for _ in range(3):
        reducer.update(LOSSES, step)
    assert reducer(LOSSES, step).item() == pytest.approx(group_means(step).mean(), rel=1e-6)


def test_group_dro_follows_algorithm_1(step):
    reducer = group_dro(eta=0.3, adjustment=2.0)
    q = np.array([0.5, 0.5])
    for _ in range(4):
        reducer.update(LOSSES, step)
        q = q * np.exp(0.3 * (group_means(step) + 2.0 / np.sqrt([2, 10])))
        q /= q.sum()
    np.testing.assert_allclose(reducer.q.numpy(), q, rtol=1e-5)
    assert reducer(LOSSES, step).item() == pytest.approx(q @ group_means(step), rel=1e-5)


def test_group_dro_turns_to_the_worst_group(step):
    reducer = group_dro(eta=100.0)
    losses = torch.where(step.batch.group == 0, 4.0, 1.0)
    reducer.update(losses, step)
    assert reducer.q.argmax() == 0
    assert reducer(losses, step).item() == pytest.approx(4.0)
    reducer.update(2000 * (5 - losses), step)  # Far beyond what exp would hold, and back from a q of zero.
    assert reducer.q.isfinite().all()
    assert reducer.q.argmax() == 1


def test_group_dro_counts_an_absent_group_as_zero(step):
    only_common = take(step.batch, torch.nonzero(step.batch.group == 1).flatten())
    step = tiny_step(step.model, only_common)
    assert group_dro()(torch.full((len(only_common),), 3.0), step).item() == pytest.approx(1.5)


def test_group_dro_gradient_does_not_reach_q(step):
    losses = LOSSES.clone().requires_grad_()
    reducer = group_dro(eta=0.1)
    reducer.update(losses.detach(), step)
    reducer(losses, step).backward()
    counts = torch.bincount(step.batch.group)
    torch.testing.assert_close(losses.grad, (reducer.q / counts)[step.batch.group])


@pytest.mark.parametrize("options", [{"eta": -0.1}, {"adjustment": float("nan")}, {"eta": "high"}])
def test_group_dro_refuses(options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        GroupDRO(**options)


def test_group_dro_needs_every_group():
    context = tiny_context(tiny_model())
    with pytest.raises(DataError, match="group column"):
        GroupDRO().setup(replace(context, groups=None))
    with pytest.raises(DataError, match="no example of group `rare`"):
        GroupDRO().setup(replace(context, groups=torch.ones(EXAMPLES, dtype=torch.long)))


def test_doubly_robust_is_the_gradient_of_the_closed_form(step):
    """Against autograd of r log mean exp(l / r) in float64, and its dual: max over w of w l - r KL(w || uniform)."""
    for r in (0.3, 2.0):
        reducer, losses = doubly_robust(r=r, eta=1.0), LOSSES.clone().requires_grad_()
        reducer.update(losses, step)
        value = reducer(losses, step)
        value.backward()
        exact = LOSSES.double().requires_grad_()
        expected = r * (torch.logsumexp(exact / r, 0) - np.log(len(exact)))
        expected.backward()
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(losses.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)
        w = exact.grad
        dual = (w * exact).sum() - r * (w * (w * len(w)).log()).sum()
        assert value.item() == pytest.approx(dual.item(), rel=1e-5)


def test_doubly_robust_averages_over_batches(step):
    """Against the moving average written out; a large r is the mean."""
    reducer, u = doubly_robust(r=1.0, eta=0.25), None
    for scale in (1.0, 2.0, 0.5):
        reducer.update(scale * LOSSES, step)
        here = np.exp(scale * LOSSES.double().numpy()).mean()
        u = here if u is None else 0.75 * u + 0.25 * here
    assert reducer.log_u.item() == pytest.approx(np.log(u), rel=1e-5)
    flat, losses = doubly_robust(r=1e6, eta=1.0), LOSSES.clone().requires_grad_()
    flat.update(losses, step)
    flat(losses, step).backward()
    torch.testing.assert_close(losses.grad, torch.full_like(losses, 1 / EXAMPLES), rtol=1e-4, atol=0)
    weighted = with_weight(step, torch.arange(EXAMPLES).float())
    single = with_weight(step, torch.eye(EXAMPLES)[3])
    assert doubly_robust()(LOSSES, single).item() == pytest.approx(LOSSES[3].item(), rel=1e-5)
    assert doubly_robust()(LOSSES, weighted) > doubly_robust()(LOSSES, step)


def doubly_robust(**options):
    reducer = DoublyRobust(**options)
    reducer.setup(tiny_context(tiny_model()))
    return reducer
