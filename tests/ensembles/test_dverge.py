"""DVERGE: distilled inputs against scipy's bounded least squares, and attacks that no longer carry over."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import nn

from command_line import one_thread
from surefoot import Recipe, evaluate
from surefoot.attacks.attack import Target
from surefoot.attacks.pgd import PGD
from surefoot.data.examples import Examples
from surefoot.ensembles.dverge import DVERGE
from surefoot.errors import ModelError
from surefoot.models.model import Model
from surefoot.tune.step import Batch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def digits(begin: int, count: int) -> Examples:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    part = slice(begin, begin + count)
    return Examples((pixels[part] / 16).astype(np.float32), labels[part], tuple("0123456789"), modality="features")


@pytest.fixture(scope="module")
def members() -> list[Model]:
    """Three two-layer nets that were trained on digits, each from its own start."""
    recipe = Recipe(head="random", optimizer={"name": "adamw", "lr": 3e-3}, epochs=8, precision="float32")
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU())
        found.append(recipe.fit(Model.from_module(layers, dim=24), digits(0, 800), seed=seed).model)
    return found


def batch_of(examples: Examples) -> Batch:
    labels = torch.from_numpy(np.asarray(examples.labels))
    return Batch({"features": torch.from_numpy(examples.inputs)}, labels, torch.arange(len(labels)))


def test_distilled_inputs_are_the_nearest_in_features(members):
    """Against scipy's bounded least squares, ||W z - W x||^2 within the ball and [0, 1], for the first, linear layer."""
    batch, other = batch_of(digits(0, 8)), batch_of(digits(100, 8))
    dverge = DVERGE(epsilon=0.1, step_size=0.002, steps=200, momentum=0.5)
    z = dverge.distilled(members[0], batch, other, depth=0.0)
    source = batch.inputs["features"]
    assert (z - source).abs().max() <= 0.1 + 1e-6
    assert z.min() >= 0
    assert z.max() <= 1
    weight = members[0].backbone[0].weight.detach().double().numpy()
    for row in range(8):
        x, goal = source[row].double().numpy(), weight @ other.inputs["features"][row].double().numpy()
        low, high = np.maximum(x - 0.1, 0), np.minimum(x + 0.1, 1)
        best = 2 * lsq_linear(weight, goal, (low - 1e-9, high + 1e-9)).cost
        start, found = (float(((weight @ each - goal) ** 2).sum()) for each in (x, z[row].double().numpy()))
        assert found >= best - 1e-6
        assert found <= best + 0.05 * (start - best)


def test_attacks_on_one_member_carry_over_less(members):
    """The quantity that it trains falls, and PGD examples of one member fool the others less; accuracy stays."""
    train, test = digits(0, 800), digits(1200, 300)
    dverge, trained = DVERGE(epsilon=0.15, step_size=0.015, epochs=5), copy.deepcopy(members)
    dverge.fit(trained, train)
    assert dverge.diversity(trained, test) < 0.8 * dverge.diversity(members, test)
    assert carried_over(trained, test) < carried_over(members, test)
    before, after = (evaluate(dverge.combine(each), test)[1].accuracy.value for each in (members, trained))
    assert after > before - 0.03


def carried_over(members: list[Model], examples: Examples) -> float:
    """Of what PGD moves against one member, the share that another gets wrong, over ordered pairs."""
    wrong, batch = [], batch_of(examples)
    for i, first in enumerate(members):
        target = Target(first.eval(), batch, "values", torch.Generator().manual_seed(0))
        moved = PGD(epsilon=0.1, steps=10).perturb(target)
        for j, second in enumerate(members):
            if i != j:
                with torch.no_grad():
                    logits = second.eval()(Batch({"features": moved}, batch.labels, batch.index)).logits
                wrong.append(float((logits.argmax(1) != batch.labels).double().mean()))
    return float(np.mean(wrong))


def test_the_average_is_of_probabilities_and_radius_zero_moves_nothing(members):
    batch, other = batch_of(digits(0, 8)), batch_of(digits(100, 8))
    with torch.no_grad():
        expected = torch.stack([model(batch).logits.double().softmax(1) for model in members]).mean(0)
        torch.testing.assert_close(DVERGE().combine(members)(batch).logits.double().exp(), expected)
    assert torch.equal(DVERGE(epsilon=0).distilled(members[0], batch, other, depth=0.5), batch.inputs["features"])


def test_one_member_is_no_ensemble(members):
    with pytest.raises(ModelError, match="two at least"):
        DVERGE().fit(members[:1], digits(0, 20))
