"""Weight compander."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from tiny_transformer import text_batch, text_model
from torch import nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.selections.weight_compander import WeightCompander


def layer(model):
    return model.layers[0].intermediate.dense


def descend(model, *, lr, steps=1):
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(text_batch()).logits, text_batch().labels).backward()
        optimizer.step()


def test_a_step_is_the_chain_rule():
    """Against numpy in float64: v moves by dw/dv times the plain gradient, and w is the arctangent of it."""
    model = text_model()
    plain = deepcopy(model)
    F.cross_entropy(plain(text_batch()).logits, text_batch().labels).backward()
    gradient = layer(plain).weight.grad.double().numpy()
    start = layer(plain).weight.detach().double().numpy()
    selection = WeightCompander(scale=1.3)
    selection.apply(model)
    np.testing.assert_allclose(layer(model).weight.detach().numpy(), start, atol=1e-6)
    descend(model, lr=0.5)
    selection.finish(model)
    a = b = 1.3 * np.abs(start).max()
    v = b * np.tan(start / a)
    v = v - 0.5 * gradient * (a / b) / (1 + (v / b) ** 2)
    np.testing.assert_allclose(layer(model).weight.detach().numpy(), a * np.arctan(v / b), atol=1e-5)


def test_weights_stay_bounded():
    model = text_model()
    bound = 0.8 * float(layer(model).weight.abs().max()) * math.pi / 2
    selection = WeightCompander(scale=0.8)
    selection.apply(model)
    with torch.no_grad():
        model.get_submodule("backbone.encoder.layer.0.intermediate.dense").parametrizations.weight.original.mul_(1e4)
    assert float(layer(model).weight.abs().max()) == pytest.approx(bound, rel=1e-3)


def test_a_large_scale_approaches_plain_training():
    model, plain = text_model(), text_model()
    selection = WeightCompander(scale=300.0)
    selection.apply(model)
    for each in (model, plain):
        descend(each, lr=0.1, steps=3)
    selection.finish(model)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_learned_bounds_train_and_fold():
    model = text_model()
    selection = WeightCompander(learn=True)
    selection.apply(model)
    names = [name for name, each in model.named_parameters() if each.requires_grad and "log_" in name]
    before = {name: model.get_parameter(name).clone() for name in names}
    descend(model, lr=0.1, steps=2)
    assert names
    assert all(not torch.equal(before[name], model.get_parameter(name)) for name in names)
    expected = layer(model).weight.detach().clone()
    selection.finish(model)
    assert torch.equal(layer(model).weight, expected)
    assert isinstance(layer(model).weight, nn.Parameter)


@pytest.mark.parametrize("options", [{"scale": 0.5}, {"scale": -1.0}, {"learn": 1}, {"layers": 0}])
def test_out_of_range(options):
    with pytest.raises(RecipeError):
        WeightCompander(**options)
