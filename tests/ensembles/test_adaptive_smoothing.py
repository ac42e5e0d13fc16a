"""Adaptive smoothing: the mixture, its certificate by brute force, and a mixing network that tells attacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from command_line import one_thread
from surefoot import Recipe, evaluate
from surefoot.assess.robustness import resists
from surefoot.attacks.attack import Target
from surefoot.attacks.pgd import PGD
from surefoot.data.examples import Examples
from surefoot.ensembles.adaptive_smoothing import AdaptiveSmoothing
from surefoot.errors import ModelError, RecipeError
from surefoot.models.model import Model
from surefoot.tune.step import Batch

EPSILON = 0.08


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def halves(count: int, seed: int) -> Examples:
    """Numbers in [0, 1]: one that says the class by a hair and always, and some that say it by far and mostly."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    hair = 0.5 + 0.06 * (2 * labels - 1)
    far = np.where(rng.random((count, 3)) < 0.75, labels[:, None], 1 - labels[:, None]) * 0.6 + 0.2
    x = np.concatenate([hair[:, None], far], 1).astype(np.float32)
    return Examples(x, labels, ("no", "yes"), modality="features")


def network(seed: int) -> Model:
    torch.manual_seed(seed)
    return Model.from_module(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU()), dim=8)


@pytest.fixture(scope="module")
def pair() -> tuple[Model, Model]:
    """An accurate network and a robust one."""
    plain = {"head": "random", "optimizer": {"name": "adamw", "lr": 0.02}, "precision": "float32", "epochs": 60}
    accurate = Recipe(**plain).fit(network(0), halves(256, 0)).model
    robust = Recipe(**plain, objectives={"pgd_at": {"epsilon": EPSILON, "steps": 3}}).fit(network(1), halves(256, 0))
    return accurate, robust.model


def batch_of(examples: Examples) -> Batch:
    labels = torch.from_numpy(np.asarray(examples.labels))
    return Batch({"features": torch.from_numpy(examples.inputs)}, labels, torch.arange(len(labels)))


def share(model: Model, examples: Examples, epsilon: float) -> float:
    target = Target(model.eval(), batch_of(examples), "values", torch.Generator().manual_seed(0))
    return float(resists(target, PGD(epsilon=epsilon, steps=20)).double().mean())


def test_the_mixture_is_the_papers_and_its_ends_are_the_members(pair):
    """Against equation 4 in float64; alpha 0 and 1 are the members' own probabilities."""
    batch = batch_of(halves(64, 2))
    with torch.no_grad():
        g, h = (model(batch).logits.double() for model in pair)
        for alpha in (0.0, 0.3, 0.85, 1.0):
            found = AdaptiveSmoothing(alpha=alpha).combine(pair)(batch).logits.double()
            expected = ((1 - alpha) * (2.0 * g).softmax(1) + alpha * h.softmax(1)).log()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_certificate_holds_against_any_accurate_model():
    """By brute force: whatever probabilities g gives, h's prediction stands where its margin is (1 - alpha) / alpha."""
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.55, 0.7, 0.9):
        need = AdaptiveSmoothing(alpha=alpha).margin
        h = torch.randn(4000, 4, generator=generator, dtype=torch.float64).mul(4).softmax(1)
        top = h.topk(2, dim=1).values
        certified = (top[:, 0] - top[:, 1]) >= need
        assert 0 < certified.sum() < len(h)
        worst = torch.eye(4, dtype=torch.float64)
        for g in worst:
            mixed = (1 - alpha) * g + alpha * h
            assert (mixed.argmax(1) == h.argmax(1))[certified].all()
        broken = torch.stack([((1 - alpha) * g + alpha * h).argmax(1) != h.argmax(1) for g in worst]).any(0)
        assert broken[~certified].all(), "the margin is no larger than it has to be"


def test_a_mixture_is_a_model_between_its_members(pair):
    test = halves(200, 3)
    clean = [evaluate(model, test)[1].accuracy.value for model in pair]
    robust = [share(model, test, EPSILON) for model in pair]
    assert clean[0] > clean[1] + 0.05
    assert robust[1] > robust[0] + 0.2
    mixture = AdaptiveSmoothing(alpha=0.6).combine(pair)
    assert evaluate(mixture, test)[1].accuracy.value > clean[1]
    assert share(mixture, test, EPSILON) > robust[0]
    found = evaluate(mixture, test, attack={"name": "pgd", "epsilon": EPSILON, "steps": 20})[1].robust_accuracy
    assert found.value == pytest.approx(share(mixture, test, EPSILON), abs=0.05)


def test_the_mixing_network_suspects_attacks(pair):
    options = AdaptiveSmoothing(epsilon=EPSILON, steps=5, epochs=12, lr=0.01, low=0.5, high=1.0)
    before = {name: value.clone() for model in pair for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    mixture = options.fit(pair, halves(256, 0)).combine(pair)
    assert torch.equal(state, torch.random.get_rng_state())
    after = {name: value for model in pair for name, value in model.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    batch = batch_of(halves(128, 4))
    target = Target(pair[0].eval(), batch, "values", torch.Generator().manual_seed(0))
    moved = Batch({"features": PGD(epsilon=EPSILON).perturb(target)}, batch.labels, batch.index)
    with torch.no_grad():
        clean, attacked = (mixture.gamma([member(each) for member in mixture.members]) for each in (batch, moved))
    ranks = (attacked[:, 0][:, None] > clean[:, 0]).double().mean()
    assert ranks > 0.6, "the area under the curve of telling them apart"
    again = AdaptiveSmoothing(epsilon=EPSILON, steps=5, epochs=12, lr=0.01, low=0.5, high=1.0).fit(pair, halves(256, 0))
    assert torch.equal(again.combine(pair)(batch).logits, mixture(batch).logits)


def test_what_does_not_fit_is_refused(pair):
    with pytest.raises(ModelError, match="mixes two models"):
        AdaptiveSmoothing().combine(pair[:1])
    other = network(0)
    other.set_classes(("a", "b", "c"))
    with pytest.raises(ModelError, match="know other classes"):
        AdaptiveSmoothing().combine([pair[0], other])
    for options in ({"alpha": 1.2}, {"low": 0.9, "high": 0.5}, {"robust_scale": 0.0}):
        with pytest.raises(RecipeError):
            AdaptiveSmoothing(**options)
