"""ITTA's parts: mixed styles, the learned function and the new layers, each against the paper's formula."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import small_streams
from surefoot.adapt.itta import ITTA
from surefoot.tune.objectives.learnable_consistency import (
    consistency,
    identity,
    misalignment,
    mix_style,
    mixed_style,
    sites,
)


def test_styles_are_mixed_as_in_the_authors_code() -> None:
    """Reference: the formula of liangchen527/ITTA, in numpy and float64, with the same draws; and tokens that are not there."""
    x = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    found = mix_style(x, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    seed = int(torch.randint(2**31, (), generator=generator))
    share = np.random.default_rng(seed).beta(0.1, 0.1, 6)[:, None, None, None]
    order = torch.randperm(6, generator=generator).numpy()
    y = x.double().numpy()
    mu, sigma = y.mean((2, 3), keepdims=True), np.sqrt(y.var((2, 3), ddof=1, keepdims=True) + 1e-6)
    expected = (y - mu) / sigma * (sigma * share + sigma[order] * (1 - share)) + mu * share + mu[order] * (1 - share)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    states = x.flatten(2).mT  # (B, T, D): the same positions as tokens, and two that the mask hides
    longer, mask = F.pad(states, (0, 0, 0, 2), value=9.0), F.pad(torch.ones(6, 20), (0, 2))
    tokens = mix_style(longer, torch.Generator().manual_seed(7), mask=mask)[:, :20]
    torch.testing.assert_close(tokens.mT.reshape(x.shape), found, rtol=1e-4, atol=1e-5)


def test_the_function_learns_down_its_misalignment() -> None:
    """Finite differences of 0.1 mean (g_c(w) - g_ce)^2 by some of w, its means and deviations held as they are."""
    model = small_streams.network()
    batch = small_streams.batches(model, small_streams.pictures(16, 3))[0]
    parameters = [each.requires_grad_() for each in model.backbone.parameters()]
    w = identity(8)
    w[1] = 0.05 * torch.randn(10, 8, generator=torch.Generator().manual_seed(2))
    found = misalignment(model, batch, w, parameters, generator=torch.Generator().manual_seed(4))
    plain = model(batch)
    with mixed_style(sites(model), batch, torch.Generator().manual_seed(4)):
        other = model(batch)
    right = F.cross_entropy(plain.logits, batch.labels) + F.cross_entropy(other.logits, batch.labels)

    def flat(loss: Tensor) -> Tensor:
        parts = torch.autograd.grad(loss, parameters, retain_graph=True)
        return torch.cat([each.flatten() for each in parts]).double()

    def gradient(at: Tensor) -> Tensor:
        return flat(consistency(other.features - plain.features, at).mean())

    wanted, centre = flat(right), gradient(w)
    wanted = (wanted - wanted.mean()) / wanted.std()

    def penalty(at: Tensor) -> float:
        return 0.1 * float((((gradient(at) - centre.mean()) / centre.std() - wanted) ** 2).mean())

    assert found.abs().max() > 1e-4
    for place in torch.topk(found.flatten().abs(), 5).indices:
        step = torch.zeros(w.numel())
        step[place] = 3e-3
        ends = [penalty(w + sign * step.view_as(w)) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 6e-3
        assert abs(slope - float(found.flatten()[place])) < 0.05 * float(found.abs().max())
    assert all(parameter.grad is None for parameter in parameters)


def test_the_new_layers_take_the_consistency_down() -> None:
    """On one batch again and again L_c falls, by the new layers alone; a rate of zero is the model to the bit (contract)."""
    model, home = small_streams.network(), small_streams.pictures(60, 6)
    batch = small_streams.batches(model, small_streams.pictures(32, 5, brighter=0.3), size=32)[0]
    losses = {}
    for lr in (1e-9, 3e-3):
        adapter = ITTA(lr=lr, steps=2).begin(model, home=small_streams.home_of(model, home))
        for _ in range(40):
            adapter(batch)
        with torch.no_grad():
            plain = adapter.model(batch).features
            gaps = []
            for number in range(8):
                adapter._mixed = 0
                adapter.generator.manual_seed(number)
                gaps.append(consistency(adapter.model(batch).features - plain, adapter.w).mean())
        losses[lr] = float(torch.stack(gaps).mean())
        kept = adapter.model.state_dict()
        assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
        assert len(adapter.layers[0].factors) == 5
        assert adapter.layers[0].factors[0].shape == (8, 8, 8)
    assert losses[3e-3] < 0.9 * losses[1e-9]
