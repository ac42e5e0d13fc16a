"""Feature gradients: the estimator against sums over all tuples, its limit, and what it finds."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from conftest import examples
from surefoot import Recipe
from surefoot.assess.learnability import COEFFICIENTS, explained, feature_gradients
from surefoot.errors import DataError, RecipeError
from surefoot.models.model import Model
from surefoot.tune.fit import Fit


@pytest.mark.parametrize("order", list(COEFFICIENTS))
def test_it_is_the_sum_over_all_increasing_tuples(order: int) -> None:
    """Brute force over all O(N^(m+1)) tuples i0 < ... < ik, in float64: c_k times the mean of y_i0 K_i0i1 ... y_ik."""
    rng = np.random.default_rng(0)
    features, targets, weights = rng.normal(size=(9, 3)), rng.choice([-1.0, 1.0], 9), rng.random(3)
    kernel = features @ np.diag(weights) @ features.T
    total = 0.0
    for k, coefficient in enumerate(COEFFICIENTS[order], 1):
        chains = [
            targets[i[0]] * targets[i[-1]] * math.prod(kernel[a, b] for a, b in pairwise(i))
            for i in combinations(range(9), k + 1)
        ]
        total += coefficient * sum(chains) / math.comb(9, k + 1)
    found = explained(*(torch.from_numpy(each) for each in (features, targets, weights)), order=order)
    assert found.item() == pytest.approx(total, rel=1e-10)


def test_in_the_limit_it_is_the_variance_that_a_linear_model_explains() -> None:
    """Closed form: y = X beta + noise with covariance I has R^2 = ||beta||^2; z is that times sum c_k = 0.939."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20_000, 4))
    beta = np.array([0.5, -0.4, 0.3, 0.0])
    targets = features @ beta + math.sqrt(1 - beta @ beta) * rng.normal(size=20_000)
    ones = torch.ones(4, dtype=torch.float64)
    found = explained(torch.from_numpy(features), torch.from_numpy(targets), ones)
    assert found.item() == pytest.approx(beta @ beta * sum(COEFFICIENTS[4]), abs=0.03)
    without = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    less = explained(torch.from_numpy(features), torch.from_numpy(targets), without)
    assert less.item() == pytest.approx((0.4**2 + 0.3**2) * sum(COEFFICIENTS[4]), abs=0.03)


def test_the_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(2)
    features, targets = torch.from_numpy(rng.normal(size=(12, 4))), torch.from_numpy(rng.choice([-1.0, 1.0], 12))
    weights = torch.rand(4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: explained(features, targets, s), (weights,))


@pytest.mark.parametrize(("examples", "width"), [(600, 40), (100, 300)])
def test_it_finds_the_features_that_count(examples: int, width: int) -> None:
    """Among many, in more dimensions than examples too."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, examples)
    features = rng.normal(size=(examples, width))
    for feature, label in ((5, 0), (11, 1), (23, 2)):
        features[:, feature] += 2.0 * (labels == label)
    found = feature_gradients(features, labels)
    assert set(found.best(3)) == {5, 11, 23}
    assert found.scores.shape == (width,)
    few, again = (feature_gradients(features, labels, steps=3, seed=5) for _ in range(2))
    assert (few.scores == again.scores).all()


def test_a_constant_feature_and_one_class_do_no_harm() -> None:
    rng = np.random.default_rng(4)
    features, labels = rng.normal(size=(50, 3)), rng.integers(0, 2, 50)
    features[:, 1] = 7.0
    assert np.isfinite(feature_gradients(features, labels, steps=5).scores).all()
    for given, error in (
        ((features, np.zeros(50, dtype=int)), "one class"),
        ((np.full((50, 3), np.nan), labels), "not finite"),
        ((features[:3], np.array([0, 1, 0])), "too few"),
        ((features, labels[:10]), "shape"),
    ):
        with pytest.raises(DataError, match=error):
            feature_gradients(*given)
    with pytest.raises(RecipeError, match="coefficients"):
        explained(torch.ones(9, 2), torch.ones(9), torch.ones(2), order=7)


def test_as_a_selection_the_head_reads_the_chosen_and_no_others(tiny_bert: Model) -> None:
    recipe = Recipe(epochs=1, precision="float32", selection={"name": "feature_gradients", "share": 0.25})
    fit = Fit(recipe, tiny_bert, examples(64))
    model = fit.run()
    chosen = fit.selection.chosen_  # type: ignore[attr-defined]
    assert len(chosen) == 8
    assert set(np.flatnonzero((model.head.weight != 0).any(0).numpy())) == set(chosen)


def test_all_features_are_the_selection_head_to_the_bit(tiny_bert: Model) -> None:
    plain, whole = (
        Fit(Recipe(epochs=1, precision="float32", selection=selection), tiny_bert, examples(64)).run().state_dict()
        for selection in ("head", {"name": "feature_gradients", "share": 1.0})
    )
    assert all(torch.equal(value, whole[name]) for name, value in plain.items())
