"""Adversarial objectives against closed forms: on a linear classifier the worst point of a ball is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_problem import tiny_context, tiny_model, tiny_step
from torch import nn
from torch.nn import functional as F

from command_line import one_thread
from conftest import examples
from surefoot import Recipe
from surefoot.data.examples import Examples
from surefoot.models.model import Model
from surefoot.tune.objectives.elle import ELLE
from surefoot.tune.objectives.perturbed import ball_of, target_of
from surefoot.tune.objectives.pgd_at import AdversarialTraining
from surefoot.tune.objectives.trades import TRADES
from surefoot.tune.step import Batch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def linear(dim=6, count=50, seed=0):
    """A linear classifier of two classes and a batch around its boundary."""
    torch.manual_seed(seed)
    model = Model.from_module(nn.Identity(), dim=dim, classes=("a", "b"))
    nn.init.normal_(model.head.weight)
    batch = Batch(
        inputs={"features": torch.randn(count, dim)}, labels=torch.arange(count) % 2, index=torch.arange(count)
    )
    return model, batch


def margin(model, batch):
    """z_y - z_other, and the weight that it hangs on, in float64."""
    weight = (model.head.weight[1] - model.head.weight[0]).detach().double()
    bias = (model.head.bias[1] - model.head.bias[0]).detach().double()
    sign = 2.0 * batch.labels - 1
    return sign * (batch.inputs["features"].double() @ weight + bias), weight


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.3)])
def test_adversarial_training_is_the_loss_at_the_worst_point(norm, epsilon):
    """Against the closed form for a linear classifier, log(1 + exp(epsilon ||w||_dual - margin)), in float64."""
    model, batch = linear()
    m, weight = margin(model, batch)
    dual = weight.norm(p=1 if norm == "linf" else 2)
    expected = F.softplus(epsilon * dual - m)
    found = AdversarialTraining(epsilon=epsilon, norm=norm, steps=30).per_example(tiny_two(model, batch))
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-3, atol=1e-4)
    weaker = AdversarialTraining(epsilon=epsilon, norm=norm, steps=1).per_example(tiny_two(model, batch))
    assert (weaker.double() <= expected + 1e-5).all()


def tiny_two(model, batch, seed=0):
    from contextlib import nullcontext

    from surefoot.tune.step import Step

    generator = torch.Generator().manual_seed(seed)
    return Step(batch=batch, model=model, progress=0.0, generator=generator, autocast=nullcontext)


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_trades_finds_the_largest_divergence_on_one_side(beta):
    """Against KL(f(x) || f(x')) at both ends of w's direction, where it is largest, in float64: the ascent takes one."""
    model, batch = linear()
    m, weight = margin(model, batch)
    reach = 0.1 * weight.abs().sum()

    def kl(here, there):
        p, q = torch.sigmoid(here), torch.sigmoid(there)
        return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()

    ends = torch.stack([kl(m, m + reach), kl(m, m - reach)], 1)
    found = TRADES(epsilon=0.1, beta=beta, steps=30).per_example(tiny_two(model, batch)).detach().double()
    divergence = (found - F.softplus(-m)) / beta
    distance = (divergence[:, None] - ends).abs()
    assert (distance.amin(1) < 1e-3 + 1e-2 * ends.amax(1)).all()
    assert (distance[:, 0] < distance[:, 1]).any()
    assert (distance[:, 0] > distance[:, 1]).any()


def test_elle_is_the_curvature_of_the_loss():
    """Against its expectation to second order in epsilon, (L'')^2 epsilon^4 * 16 / 1800, and 0 where the loss is linear.

    (L(x_c) - ...) = -a (1 - a) L'' (x_b - x_a)^2 / 2; E[a^2 (1 - a)^2] = 1/30; E[(x_b - x_a)^4] = 16/15 epsilon^4.
    """
    count, epsilon, w = 40_000, 0.2, 2.0
    model = Model.from_module(nn.Identity(), dim=1, classes=("a", "b"))
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[0.0], [w]]))
    at = {"features": torch.zeros(count, 1)}
    batch = Batch(inputs=at, labels=torch.ones(count).long(), index=torch.arange(count))
    found = float(ELLE(epsilon=epsilon).per_example(tiny_two(model, batch)).mean().detach())
    assert found == pytest.approx((w * w / 4) ** 2 * epsilon**4 * 16 / 1800, rel=0.08)
    far = Batch(inputs={"features": at["features"] - 40}, labels=batch.labels, index=batch.index)
    assert ELLE(epsilon=epsilon).per_example(tiny_two(model, far)).mean() < 1e-9


def test_elle_a_switches_as_the_authors_loop_does(monkeypatch):
    """Against the rule of LIONS-EPFL/ELLE, core/utils/train.py, with numpy's mean and deviation over the whole history."""
    series = [0.1, 0.12, 0.11, 0.1, 0.13, 0.9, 0.1, 0.11, 0.12, 2.0, 0.1]
    term, model = ELLE(adaptive=True), tiny_model()
    term.setup(tiny_context(model))
    errors = iter(series)
    monkeypatch.setattr(ELLE, "_errors", lambda self, step, generator: torch.full((4,), next(errors)))
    weight, history, expected, found = 0.0, [], [], []
    for error in series:
        expected.append(weight)
        weight = 1.0 if len(history) > 2 and error > np.mean(history) + 2 * np.std(history) else 0.99 * weight
        history.append(error)
        term.update(tiny_step(model, Batch({"features": torch.zeros(4, 5)}, torch.zeros(4).long(), torch.arange(4))))
        found.append(float(term.factor))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert max(found) == 1.0


@pytest.mark.parametrize(
    "objectives",
    [{"pgd_at": {"epsilon": 0}}, {"trades": {"epsilon": 0}}, {"trades": {"beta": 0}}],
    ids=["pgd_at", "trades", "trades without beta"],
)
def test_radius_zero_is_cross_entropy_to_the_bit(objectives, tiny_bert):
    weights = []
    for each in ({"cross_entropy": 1.0}, objectives):
        recipe = Recipe(objectives=each, epochs=1, batch_size=16, precision="float32", cache=False)
        weights.append(recipe.fit(tiny_bert, examples(32)).model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_texts_move_in_their_embeddings_token_by_token(tiny_bert):
    """x' of the loss: every token within epsilon mean norms of an embedding, and the loss larger than at x."""
    model = Recipe.named("linear_probe").fit(tiny_bert, examples(64)).model
    encoded = model.processor.encode(examples(16).inputs)
    batch = Batch(encoded.collate(np.arange(16)), torch.as_tensor(examples(16).labels), torch.arange(16))
    step = tiny_two(model, batch)
    term = AdversarialTraining(epsilon=0.2)
    seen, forward = [], model.forward
    model.forward = lambda *args, **options: (seen.append(options.get("embeddings")), forward(*args, **options))[1]
    clean, attacked = F.cross_entropy(step.output.logits, step.labels, reduction="none"), term.per_example(step)
    del model.forward
    norms = model.backbone.get_input_embeddings().weight.norm(dim=1).mean()
    moved = (seen[-1] - model.embed_inputs(batch)).norm(dim=-1)
    assert 0 < moved.max() <= 0.2 * norms * (1 + 1e-4)
    assert attacked.mean() > clean.mean()


def test_inputs_get_their_gradient_through_frozen_layers():
    """With a head alone to train the layers below are frozen: the attack must still see through them."""
    generator = np.random.default_rng(0)
    data = Examples(
        generator.random((64, 5), dtype=np.float32), np.arange(64) % 3, ("bad", "fair", "good"), modality="features"
    )
    recipe = Recipe(objectives={"pgd_at": {"epsilon": 0.1}}, selection="head", epochs=1, precision="float32")
    assert all(torch.isfinite(each).all() for each in recipe.fit(tiny_model(), data).model.parameters())
    model = tiny_model()
    model.freeze(1)
    x = torch.rand(4, 5)
    step = tiny_two(model, Batch({"features": x}, torch.zeros(4).long(), torch.arange(4)))
    target = target_of(step)
    assert ball_of(target, 0.1, "linf").low == 0.0
    frozen = AdversarialTraining(epsilon=0.1).per_example(step)
    model.freeze(0)
    again = tiny_two(model, step.batch)
    torch.testing.assert_close(frozen, AdversarialTraining(epsilon=0.1).per_example(again))
