"""DE-ELBo against the Kullback-Leibler divergence of torch's distributions, in float64, and a sum by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from tiny_problem import EXAMPLES, move, tiny_batch, tiny_context, tiny_model, tiny_step
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call
from torch.nn import functional as F

from surefoot.tune.objectives.de_elbo import DEELBo, best_divergence


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0])
def test_the_best_prior_variance_is_found_in_closed_form(sigma: float) -> None:
    """Against the minimum over tau of torch.distributions' KL between diagonal normals, found by Brent's method."""
    mean = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def divergence(log_tau: float) -> float:
        prior = Normal(torch.zeros_like(mean), math.exp(log_tau / 2))
        return float(kl_divergence(Normal(mean, sigma), prior).sum())

    best = minimize_scalar(divergence, bounds=(-10, 10), method="bounded", options={"xatol": 1e-10})
    tau = (float(mean.square().sum()) + 50 * sigma**2) / 50
    assert math.exp(best.x) == pytest.approx(tau, rel=1e-4)
    found = best_divergence(mean.square().sum(), torch.tensor(sigma, dtype=torch.float64), 50)
    assert float(found) == pytest.approx(divergence(math.log(tau)), rel=1e-10)


@pytest.mark.parametrize("kappa", [None, 1.0, 7.0])
def test_it_is_the_papers_sum(kappa: float | None) -> None:
    """CE at w + sigma eps plus the KL of both blocks over kappa N, from torch.distributions in float64; its gradients
    by w and sigma too."""
    model = tiny_model()
    context = tiny_context(model)
    term = DEELBo(kappa=kappa, sigma=0.05)
    term.setup(context)
    move(model)
    batch = tiny_batch()
    found = term(tiny_step(model, batch, seed=3))

    generator = torch.Generator().manual_seed(3)
    sigma = F.softplus(term.raw)
    named = dict(model.named_parameters())
    noise = {name: torch.randn(each.shape, generator=generator, dtype=each.dtype) for name, each in named.items()}
    drawn = {name: each + sigma * noise[name] for name, each in named.items()}
    expected = F.cross_entropy(functional_call(model, drawn, (batch,)).logits, batch.labels)
    count = sum(each.numel() for each in named.values())
    for head in (True, False):
        moves = torch.cat([
            (each - (0.0 if head else context.start[name])).flatten()
            for name, each in named.items() if (name in context.head_names) is head
        ])  # fmt: skip
        tau = moves.square().mean() + sigma**2
        prior = Normal(torch.zeros_like(moves), tau.sqrt())
        total = kl_divergence(Normal(moves, sigma), prior).sum()
        expected = expected + total / (count if kappa is None else kappa * EXAMPLES)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    asked = [*named.values(), term.raw]
    for one, other in zip(torch.autograd.grad(found, asked), torch.autograd.grad(expected, asked), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_without_noise_and_prior_it_is_cross_entropy() -> None:
    model = tiny_model()
    term = DEELBo(kappa=1e12, sigma=1e-12)
    term.setup(tiny_context(model))
    step = tiny_step(model, tiny_batch())
    assert term(step).item() == pytest.approx(F.cross_entropy(step.output.logits, step.labels).item(), rel=1e-6)


def test_the_same_step_draws_the_same_weights_and_the_next_others() -> None:
    model = tiny_model()
    term = DEELBo(sigma=0.5)
    term.setup(tiny_context(model))
    values = [term(tiny_step(model, tiny_batch(), seed=seed)).item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_a_larger_kappa_pulls_less() -> None:
    """Gradient descent on the whole loss: with kappa = 1, D / N being large, weights end nearer to their start."""
    ends = {}
    for kappa in (0.05, None):
        model = tiny_model()
        context = tiny_context(model)
        term = DEELBo(kappa=kappa, sigma=0.01)
        term.setup(context)
        optimizer = torch.optim.SGD([*model.parameters(), term.raw], lr=0.1)
        for step in range(60):
            optimizer.zero_grad()
            term(tiny_step(model, tiny_batch(step), seed=step)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        ends[kappa] = np.sqrt(sum(
            (each - context.start[name]).square().sum().item() for name, each in model.named_parameters() if "head" not in name
        ))  # fmt: skip
    assert ends[0.05] < ends[None]
