"""Straggler layers: barriers, sharpness and sparse moves, against closed forms and finite computations in float64."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import chain

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.assess.analyses.straggler_layers import StragglerLayers
from surefoot.assess.stragglers import barriers, interpolated_losses, layers_of, mean_loss, profile, sharpness
from surefoot.errors import DataError, RecipeError
from surefoot.merge.straggler_pruning import StragglerPruning
from surefoot.merge.wise_ft import WiSEFT
from surefoot.models.model import Model
from surefoot.tune.step import Batch


def network(seed: int) -> Model:
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()]
    model = Model.from_module(nn.Sequential(*layers), dim=5, classes=("a", "b", "c"))
    nn.init.normal_(model.head.weight)
    return model.eval()


def batches(count: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(9)
    return [
        Batch({"features": torch.randn(8, 4, generator=generator)}, torch.arange(8) % 3, torch.arange(8))
        for _ in range(count)
    ]


class Trained:
    """A `Training` of those batches."""

    def batches(self, examples: int, *, size: int = 32) -> Iterator[Batch]:
        return iter(batches())


def loss(weights: dict[str, Tensor]) -> float:
    """Mean cross-entropy of the network, written again in float64."""
    total = []
    for batch in batches():
        w = {name: value.double() for name, value in weights.items()}
        h = torch.tanh(batch.inputs["features"].double() @ w["backbone.0.weight"].T + w["backbone.0.bias"])
        h = torch.tanh(h @ w["backbone.2.weight"].T + w["backbone.2.bias"])
        total.append(F.cross_entropy(h @ w["head.weight"].T + w["head.bias"], batch.labels))
    return float(torch.stack(total).mean())


def test_losses_of_one_layer_between_the_weights() -> None:
    model, base = network(1), {name: value.clone() for name, value in network(2).state_dict().items()}
    tuned = {name: value.clone() for name, value in model.state_dict().items()}
    layers, found = interpolated_losses(model, base, batches(), (0.0, 0.4, 1.0))
    assert layers == ("backbone.0", "backbone.2")
    for row, layer in zip(found, layers, strict=True):
        for value, alpha in zip(row, (0.0, 0.4, 1.0), strict=True):
            mixed = {n: (1 - alpha) * base[n] + alpha * v if n.startswith(layer) else v for n, v in tuned.items()}
            assert value == pytest.approx(loss(mixed), rel=1e-5)
    assert all(torch.equal(value, tuned[name]) for name, value in model.state_dict().items())


def test_a_barrier_is_what_lies_above_the_line() -> None:
    """Of a parabola c a (1 - a) on a line the barrier is c / 4; of what sags below it is nothing."""
    alphas = np.linspace(0, 1, 21)
    curves = np.stack([2 - alphas + c * alphas * (1 - alphas) for c in (0.8, -0.8)])
    np.testing.assert_allclose(barriers(curves, alphas.tolist()), [0.2, 0.0], atol=1e-12)


def test_sharpness_is_the_rise_at_the_worst_adaptive_step() -> None:
    """Float64: e = rho T^2 g / ||T g||, and no other step of that length by T^-1 e rises more, to first order."""
    model = network(1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    groups = layers_of(model, list(state))
    found, total = sharpness(model, batches(), groups, rho=0.01)
    generator = torch.Generator().manual_seed(0)
    for value, names in [*zip(found, groups.values(), strict=True), (total, [*chain(*groups.values())])]:
        scale = {name: state[name].abs() + 0.01 for name in names}
        best = -1.0
        for _ in range(200):
            drawn = {name: torch.randn(state[name].shape, generator=generator) for name in names}
            length = torch.cat([each.flatten() for each in drawn.values()]).norm()
            moved = {n: v + 0.01 * scale[n] * drawn[n] / length if n in scale else v for n, v in state.items()}
            best = max(best, loss(moved) - loss(state))
        assert value > best > 0
    assert found.max() <= total < found.sum() + 1e-3
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_largest_moves_of_the_worst_layer_stay() -> None:
    model, base = network(1), {name: value.clone() for name, value in network(2).state_dict().items()}
    tuned = {name: value.clone() for name, value in model.state_dict().items()}
    method = StragglerPruning(density=0.25, alpha=1.0)
    method.setup(model, Trained(), base)
    assert method.layers_ == [max(method.barriers_, key=lambda layer: method.barriers_[layer])]
    merged, worst = method([tuned], base), method.layers_[0]
    moves = {name: (tuned[name] - base[name]).abs() for name in tuned}
    inside = [name for name in tuned if name.startswith(worst)]
    kept = torch.cat([(merged[name] != base[name]).flatten() for name in inside])
    sizes = torch.cat([moves[name].flatten() for name in inside])
    assert int(kept.sum()) == round(0.25 * len(sizes))
    assert sizes[kept].min() >= sizes[~kept].max()
    assert all(torch.equal(merged[name], tuned[name]) for name in tuned if name not in inside)
    whole = StragglerPruning(density=1.0)
    whole.setup(model, Trained(), base)
    plain = WiSEFT()([tuned], base)
    assert all(torch.equal(value, plain[name]) for name, value in whole([tuned], base).items())
    with pytest.raises(RecipeError, match="a recipe's `after`"):
        StragglerPruning()([tuned], base)


def test_what_sharpness_tells_is_spearmans() -> None:
    """scipy's correlation; a straggler whose sharpness orders the runs, and a total that says nothing; a real profile fits."""
    rng = np.random.default_rng(0)
    away = rng.random(12)
    alphas = [0.0, 0.5, 1.0]
    losses = np.ones((12, 2, 3))
    losses[:, 1, 1] += 0.5
    layer = np.stack([rng.random(12), 2 - away**3], 1)
    found = StragglerLayers()(losses=losses, alphas=alphas, sharpness=layer, total=layer[:, 0], away=away)
    assert found.stragglers == (1,)
    assert found.straggling is not None
    assert found.straggling["value"] == pytest.approx(-1)
    assert found.total == pytest.approx(stats.spearmanr(layer[:, 0], away).statistic)
    assert found.low < found.total < found.high
    base = network(2).state_dict()
    profiles = [profile(deepcopy(network(seed)), base, batches()) for seed in range(3, 7)]
    real = StragglerLayers()(
        losses=[each.losses for each in profiles],
        alphas=(0.0, 0.25, 0.5, 0.75, 1.0),
        sharpness=[each.sharpness for each in profiles],
        total=[each.total for each in profiles],
        away=[-mean_loss(network(seed), batches()) for seed in range(3, 7)],
    )
    assert real.barrier.shape == (2,)
    with pytest.raises(DataError, match="rise from 0 to 1"):
        StragglerLayers()(losses=losses, alphas=[0.0, 0.5, 0.9], sharpness=layer, total=away, away=away)
    with pytest.raises(DataError, match="one row for each run"):
        StragglerLayers()(losses=losses[:5], alphas=alphas, sharpness=layer, total=away, away=away)
