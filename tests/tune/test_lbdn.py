"""Sandwich layers: the bound holds whatever the weights, and certified examples withstand the worst attack found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from command_line import one_thread
from surefoot import Recipe, evaluate, load
from surefoot.assess.robustness import resists
from surefoot.attacks.attack import Target
from surefoot.attacks.pgd import PGD
from surefoot.data.examples import Examples
from surefoot.models.additions import parts
from surefoot.models.model import Model
from surefoot.tune.selections.lbdn import LBDN, Sandwich, cayley, certified_radius
from surefoot.tune.step import Batch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_cayley_is_orthonormal_and_invertible_near_zero(shape):
    """Against Q Q^T = I in float64, and, square and skew, the matrix (I + Z)^-1 (I - Z) written with numpy."""
    torch.manual_seed(0)
    weight = 3 * torch.randn(shape, dtype=torch.float64)
    Q = cayley(weight)
    gram = Q @ Q.T if shape[0] <= shape[1] else Q.T @ Q
    torch.testing.assert_close(gram, torch.eye(min(shape), dtype=torch.float64))
    if shape[0] == shape[1]:
        W = weight.numpy()
        Z = W - W.T
        expected = np.linalg.inv(np.eye(5) + Z) @ (np.eye(5) - Z)
        np.testing.assert_allclose(Q.numpy(), expected, atol=1e-10)


def test_a_sandwich_layer_is_one_lipschitz_whatever_its_weights():
    """Against singular values of exact Jacobians at 200 random points, for weights of all sizes."""
    for seed in range(5):
        torch.manual_seed(seed)
        layer = Sandwich(6, 4).double()
        with torch.no_grad():
            for each in layer.parameters():
                each.add_(torch.randn_like(each) * 10 ** (seed - 2))
        jacobian = torch.func.vmap(torch.func.jacrev(lambda h, layer=layer: layer(h)))
        norms = torch.linalg.matrix_norm(jacobian(3 * torch.randn(200, 6, dtype=torch.float64)), ord=2)
        assert norms.max() <= 1 + 1e-9
        assert norms.max() > 0.05


@pytest.fixture(scope="module")
def trained() -> tuple[Model, Examples]:
    """Two clouds, a head of sandwich layers on the numbers themselves."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]], dtype=np.float32)
    data = Examples(
        (centres[labels] + 0.5 * rng.normal(size=(300, 4))).astype(np.float32), labels, tuple("abc"), "features"
    )
    model = Model.from_module(nn.Linear(4, 4, bias=False), dim=4)
    with torch.no_grad():
        model.backbone.weight.copy_(torch.eye(4))
    recipe = Recipe(
        head="random",
        selection={"name": "lbdn", "gamma": 4.0},
        optimizer={"name": "adamw", "lr": 0.02},
        epochs=20,
        precision="float32",
    )
    return recipe.fit(model, data).model, data


def test_certified_predictions_withstand_the_worst_attack_found(trained):
    """Against l2 PGD of 40 steps, 3 restarts, at each example's own certified radius; it learns, too."""
    model, data = trained
    batch = Batch({"features": torch.from_numpy(data.inputs)}, torch.from_numpy(data.labels), torch.arange(300))
    with torch.no_grad():
        logits = model(batch).logits
    assert (logits.argmax(1) == batch.labels).float().mean() > 0.9
    radius = certified_radius(logits, 4.0)
    right = logits.argmax(1) == batch.labels
    for share in (0.25, 0.5, 0.75):
        at = float(radius[right].quantile(share))
        target = Target(model, batch, "values", torch.Generator().manual_seed(0))
        resisting = resists(target, PGD(epsilon=at, norm="l2", steps=40, restarts=3))
        assert resisting[right & (radius > at)].all()
    assert not resists(target, PGD(epsilon=10.0, norm="l2", steps=40)).all()


def test_the_slope_of_the_logits_stays_below_gamma(trained):
    model, data = trained
    x = torch.from_numpy(data.inputs)
    jacobians = torch.stack([torch.autograd.functional.jacobian(model.head, row) for row in x[:50]])
    norms = torch.linalg.matrix_norm(jacobians, ord=2)
    assert norms.max() <= 4.0 * (1 + 1e-4)
    assert norms.max() > 1.0


def test_without_layers_it_is_a_linear_head_of_slope_gamma():
    """Depth 0 is the linear layer alone: orthogonal rows' part B, at most gamma long."""
    torch.manual_seed(0)
    model = Model.from_module(nn.Identity(), dim=6, classes=tuple("abc"))
    nn.init.normal_(model.head.weight)
    LBDN(depth=0, gamma=2.0).attach(model)
    (part,) = parts(model).values()
    jacobian = torch.autograd.functional.jacobian(model.head, torch.randn(6))
    torch.testing.assert_close(jacobian, torch.autograd.functional.jacobian(model.head, torch.randn(6)))
    assert torch.linalg.matrix_norm(jacobian, ord=2) <= 2.0 + 1e-5
    assert part.gamma == 2.0
    assert float(certified_radius(torch.tensor([[3.0, 1.0, 0.0]]), 2.0)) == pytest.approx(2 / (math.sqrt(2) * 2))


def test_it_is_saved_and_opened_with_its_layers(bert_folder, tmp_path):
    data = Examples(["a good film", "a bad film"] * 8, np.array([1, 0] * 8), ("negative", "positive"))
    recipe = Recipe(head="random", selection={"name": "lbdn", "depth": 1}, epochs=1, precision="float32")
    run = recipe.fit(load(bert_folder), data, out=tmp_path / "run")
    again = load(tmp_path / "run")
    first, second = (evaluate(model, data)[0].logits for model in (run.model, again))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)
    assert np.abs(first - evaluate(load(tmp_path / "run" / "model"), data)[0].logits).max() < 1e-6
    assert len(parts(again)) == 1
