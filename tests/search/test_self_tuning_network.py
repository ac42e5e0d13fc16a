"""Self-tuning networks: layers against the paper's formula, and hyperparameters that go where they should."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from command_line import one_thread
from conftest import examples
from surefoot import Recipe
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.search.best_response import BestResponse, Hypers, probability, unbounded
from surefoot.search.strategies.self_tuning_network import SelfTuningNetwork
from surefoot.tune.fit import Fit

SMALL = Recipe(epochs=2, batch_size=8, precision="float32", optimizer={"name": "adamw", "lr": 1e-3})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def responding(*, dropout: int | None = None) -> BestResponse:
    """A layer in float64 whose response is not zero."""
    torch.manual_seed(0)
    hypers = Hypers({"first": 0.3, "second": -1.0}, scale=0.5, seed=4)
    hypers.values = hypers.values.detach().double().requires_grad_()
    hypers.scales = hypers.scales.detach().double().requires_grad_()
    layer = BestResponse(nn.Linear(5, 3).double(), hypers, dropout=dropout, number=0)
    nn.init.normal_(layer.to_scales)
    return layer


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 5)])
def test_each_example_sees_the_weights_that_answer_its_own_hyperparameters(shape: tuple[int, ...]) -> None:
    """Against W(h_i) = W0 + diag(V_w h_i) W1 and b(h_i) = b0 + diag(V_b h_i) b1, written out for every example."""
    layer = responding()
    x = torch.randn(shape, dtype=torch.float64)
    found = layer(x)
    h = layer.hypers.draw(6, x.device)
    assert len({tuple(row) for row in h.tolist()}) == 6
    for i in range(6):
        v_weight, v_bias = layer.to_scales.split(3)
        weight = layer.weight + torch.diag(v_weight @ h[i]) @ layer.response_weight
        bias = layer.bias + torch.diag(v_bias @ h[i]) @ layer.response_bias
        assert torch.allclose(found[i], F.linear(x[i], weight, bias), rtol=1e-12)
        assert layer.squared(h, None)[i].item() == pytest.approx(weight.square().sum().item(), rel=1e-12)
        start = torch.ones(3, 5, dtype=torch.float64)
        moved = (weight - start).square().sum().item()
        assert layer.squared(h, start)[i].item() == pytest.approx(moved, rel=1e-12)


def test_folding_keeps_what_the_layer_computes() -> None:
    layer = responding().eval()
    layer.hypers.perturbed = False
    x = torch.randn(7, 5, dtype=torch.float64)
    plain = layer.folded()
    assert type(plain) is nn.Linear
    assert torch.allclose(plain(x), layer(x), rtol=1e-12)


def test_the_entropy_is_that_of_a_normal_distribution() -> None:
    """Against torch.distributions."""
    hypers = Hypers({"a": 0.0, "b": 0.0}, scale=0.5, seed=0)
    expected = torch.distributions.Normal(torch.zeros(2), 0.5).entropy().sum()
    assert hypers.entropy.item() == pytest.approx(expected.item(), rel=1e-6)


def test_inputs_are_dropped_with_each_examples_own_probability() -> None:
    layer = responding(dropout=0).train()
    layer.hypers.perturbed = False
    layer.hypers.values = torch.tensor([unbounded(0.4), 0.0], dtype=torch.float64)
    assert probability(layer.hypers.values[:1]).item() == pytest.approx(0.4)
    p = torch.tensor([0.1] * 500 + [0.7] * 500, dtype=torch.float64)
    dropped = layer._dropped(torch.ones(1000, 40, dtype=torch.float64), p)
    assert (dropped[:500] == 0).double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (dropped[500:] == 0).double().mean().item() == pytest.approx(0.7, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


def test_without_dropout_and_updates_it_begins_as_the_pretrained_model(tiny_bert: Model) -> None:
    """The limit: V is zero at the start, so that what is folded before any step is the model as the recipe starts it."""
    strategy = SelfTuningNetwork(dropout=None, weight_decay=0.01)
    snapshot = strategy.fit(SMALL, tiny_bert, examples(48), {"shop": examples(16, 5)}).snapshot()
    plain = Fit(SMALL, tiny_bert, examples(48)).snapshot()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in snapshot.state_dict().items())


def test_every_layer_that_trains_has_its_dropout(tiny_bert: Model) -> None:
    recipe = SMALL.changed(selection={"name": "top_layers", "k": 1})
    fit = SelfTuningNetwork().fit(recipe, tiny_bert, examples(48), {"shop": examples(16, 5)})
    assert len(fit.hyperparameters) == 7, "six linear layers in the top block, and the head"
    assert "dropout.head" in fit.hyperparameters
    assert all(value == pytest.approx(0.05) for value in fit.hyperparameters.values())
    fit.run()
    assert any(value != pytest.approx(0.05) for value in fit.hyperparameters.values())
    one = SelfTuningNetwork(each_layer=False, weight_decay=0.01)
    assert set(one.fit(recipe, tiny_bert, examples(48), {"shop": examples(16, 5)}).hyperparameters) == {
        "dropout",
        "weight_decay",
    }


def clouds(count: int, seed: int, *, wrong: float) -> Examples:
    """Two overlapping clouds in twenty dimensions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    inputs = (rng.normal(size=(count, 20)) + 0.5 * labels[:, None]).astype(np.float32)
    turned = rng.random(count) < wrong
    return Examples(inputs, np.where(turned, 1 - labels, labels), ("low", "high"), modality="features", source="clouds")


@pytest.mark.parametrize(("start", "wrong"), [(1e-4, 0.4), (3.0, 0.0)])
def test_weight_decay_goes_where_the_judge_wants_it(start: float, wrong: float) -> None:
    """Up from next to nothing where labels are wrong and examples few, down from far too much where they are right."""
    train, judge = clouds(40, 0, wrong=wrong), clouds(400, 1, wrong=0.0)
    model = Model.from_module(nn.Identity(), dim=20, classes=train.classes)
    recipe = SMALL.changed(
        head="zero", epochs=60, schedule="constant", optimizer={"name": "adamw", "lr": 0.03, "weight_decay": 0.0}
    )
    strategy = SelfTuningNetwork(dropout=None, weight_decay=start, lr=0.05, batch=400)
    fit = strategy.fit(recipe, model, train, {"judge": judge})
    fit.run()
    found = math.log10(fit.hyperparameters["weight_decay"] / start)
    assert found > 0.5 if wrong else found < -0.5
    tuned = np.mean([row["judge_loss"] for row in fit.moved[-10:]])
    fixed = Fit(
        recipe.changed(objectives={"cross_entropy": 1.0, "l2_sp": {"weight": 1.0, "alpha": 0.0, "beta": start}}),
        model,
        train,
    ).run()
    logits = fixed.head(torch.from_numpy(judge.inputs))
    assert tuned < F.cross_entropy(logits, torch.from_numpy(np.asarray(judge.labels))).item()


def test_what_cannot_be_is_refused(tiny_bert: Model) -> None:
    for options in ({"dropout": 0.95}, {"dropout": None}, {"train_steps": 0}, {"lr": 0.0}, {"warmup": 1.0}):
        with pytest.raises(RecipeError):
            SelfTuningNetwork(**options)
    wrapped = SMALL.changed(selection={"name": "mixout"})
    with pytest.raises(RecipeError, match="choose a selection of plain weights"):
        SelfTuningNetwork().fit(wrapped, tiny_bert, examples(16), {"shop": examples(16, 5)})
