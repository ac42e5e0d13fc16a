"""Hyperparameters that follow the judge's gradient while a model trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from command_line import one_thread
from conftest import examples
from surefoot import Recipe
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.search.strategies.implicit_differentiation import ImplicitDifferentiation
from surefoot.tune.fit import Fit

SMALL = Recipe(epochs=2, batch_size=8, precision="float32", optimizer={"name": "adamw", "lr": 1e-3})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def test_before_the_first_update_it_is_plain_training_to_the_bit(tiny_bert: Model) -> None:
    half = SMALL.changed(epochs=0.5)
    plain = Fit(half, tiny_bert, examples(48)).run()
    fit = ImplicitDifferentiation().fit(half, tiny_bert, examples(48), {"shop": examples(16, 5)})
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in fit.run().state_dict().items())
    assert not fit.moved


def clouds(count: int, seed: int, *, wrong: float = 0.0) -> tuple[Examples, np.ndarray]:
    """Two clouds of points; a share of the labels is turned over. And where."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    inputs = (rng.normal(size=(count, 5)) + 1.5 * labels[:, None]).astype(np.float32)
    turned = rng.random(count) < wrong
    labels = np.where(turned, 1 - labels, labels)
    return Examples(inputs, labels, ("low", "high"), modality="features", source="clouds"), turned


def test_examples_with_wrong_labels_lose_weight() -> None:
    train, turned = clouds(80, 0, wrong=0.3)
    model = Model.from_module(nn.Identity(), dim=5, classes=train.classes)
    recipe = SMALL.changed(head="zero", epochs=12, optimizer={"name": "adamw", "lr": 0.05})
    fit = ImplicitDifferentiation(every=3).fit(recipe, model, train, {"clean": clouds(80, 1)[0]})
    fit.run()
    weights = fit.hyperparameters["weights"]
    assert weights.shape == (80,)
    assert weights[turned].mean() < weights[~turned].mean() - 0.2
    assert fit.moved[-1]["judge_loss"] < fit.moved[0]["judge_loss"]


def test_given_weights_still_count() -> None:
    train, _ = clouds(40, 0)
    weighted = replace(train, weight=np.where(np.arange(40) < 20, 1.0, 0.0))
    model = Model.from_module(nn.Identity(), dim=5, classes=train.classes)
    fit = ImplicitDifferentiation(every=2).fit(SMALL.changed(head="zero"), model, weighted, {"clean": clouds(40, 1)[0]})
    fit.run()
    assert (fit.hyperparameters["weights"][20:] == 1).all(), "an example of weight 0 has no gradient"
    assert (fit.hyperparameters["weights"][:20] != 1).any()


@pytest.mark.parametrize("tunes", ["layers", "weights"])
def test_pulls_to_the_start_are_tuned(tunes: str, tiny_bert: Model) -> None:
    strategy = ImplicitDifferentiation(tunes=tunes, every=4, terms=3, strength=0.05)
    fit = strategy.fit(SMALL, tiny_bert, examples(48), {"shop": examples(16, 5)})
    start = fit.hyperparameters["strength"]
    assert "head" not in start
    fit.run()
    found = fit.hyperparameters["strength"]
    assert set(found) == set(start)
    if tunes == "layers":
        assert {"backbone.encoder.layer.0", "backbone.encoder.layer.1"} <= set(found)
        assert all(value > 0 for value in found.values())
        assert any(abs(value - 0.05) > 1e-3 for value in found.values())
    else:
        name = "backbone.encoder.layer.0.output.dense.weight"
        assert found[name].shape == tiny_bert.get_parameter(name).shape


def test_a_fixed_pull_is_l2_sp(tiny_bert: Model) -> None:
    """A strength that is hardly moved against the objective `l2_sp` with the same alpha."""
    fit = ImplicitDifferentiation(tunes="layers", lr=1e-6, strength=0.3).fit(
        SMALL, tiny_bert, examples(48), {"shop": examples(16, 5)}
    )
    penalty = {"cross_entropy": 1.0, "l2_sp": {"weight": 1.0, "alpha": 0.3, "beta": 0.0}}
    against = Fit(SMALL.changed(objectives=penalty), tiny_bert, examples(48)).run().state_dict()
    for name, value in fit.run().state_dict().items():
        assert torch.allclose(value, against[name], atol=1e-4), name


def test_what_cannot_be_is_refused(tiny_bert: Model) -> None:
    for options in ({"tunes": "lr"}, {"every": 0}, {"lr": 0.0}, {"rate": -1.0}, {"strength": 0.0}):
        with pytest.raises(RecipeError):
            ImplicitDifferentiation(**options)
    head = SMALL.changed(selection={"name": "head"})
    with pytest.raises(RecipeError, match="only the head trains"):
        ImplicitDifferentiation(tunes="layers").fit(head, tiny_bert, examples(16), {"shop": examples(16, 5)})
