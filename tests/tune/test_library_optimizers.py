"""Optimizers of other libraries, by name."""

from __future__ import annotations

import sys

import pytest
import pytorch_optimizer
import torch
from tiny_problem import passes, tiny_model
from torch import nn

from surefoot import Recipe
from surefoot.errors import MissingExtra, RecipeError
from surefoot.tune.build import build_optimizer
from surefoot.tune.optimizers.pytorch_optimizer import PytorchOptimizer
from surefoot.tune.optimizers.selected import rehearse
from surefoot.tune.optimizers.torch_optim import TorchOptim

LIBRARIES = {"torch_optim": TorchOptim, "pytorch_optimizer": PytorchOptimizer}


def trained(optimizer, model, *, steps=4):
    for step in range(steps):
        closure = passes(model, seed=step)
        if isinstance(optimizer, torch.optim.Optimizer):
            closure(True)
            optimizer.step()
        else:
            optimizer.step(closure)
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize(
    ("library", "algorithm", "kind", "options"),
    [
        ("torch_optim", "nadam", torch.optim.NAdam, {"lr": 0.02, "weight_decay": 0.1}),
        ("pytorch_optimizer", "adan", pytorch_optimizer.Adan, {"lr": 0.02, "weight_decay": 0.1}),
        ("pytorch_optimizer", "LAMB", pytorch_optimizer.Lamb, {"lr": 0.02, "betas": [0.9, 0.99]}),
    ],
)
def test_it_is_the_library_to_the_bit(library, algorithm, kind, options):
    """Against the public implementations, run side by side without surefoot."""
    ours, theirs = tiny_model(), tiny_model()
    spec = {"name": library, "algorithm": algorithm} | options
    expected = trained(kind(theirs.parameters(), **options), theirs)
    assert torch.equal(trained(build_optimizer(spec, list(ours.parameters())), ours), expected)


def test_adan_follows_the_paper():
    """Against a float64 reference written from the formula of Adan's paper (algorithm 1, without restart)."""
    lr, beta1, beta2, beta3, eps, decay = 0.01, 0.02, 0.08, 0.01, 1e-8, 0.02  # The paper's are one less the library's.
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = PytorchOptimizer([weight], algorithm="adan", lr=lr, weight_decay=decay, weight_decouple=False, eps=eps)
    theta, m, v, n, last = weight.detach().clone(), 0.0, 0.0, 0.0, None
    for step in range(1, 6):
        gradient = torch.sin(step + theta)

        def closure(first, step=step):
            weight.grad = torch.sin(step + weight.detach())
            return weight.detach().sum()

        optimizer.step(closure)
        change = gradient - last if last is not None else torch.zeros(3, dtype=torch.float64)
        m = (1 - beta1) * m + beta1 * gradient
        v = (1 - beta2) * v + beta2 * change
        n = (1 - beta3) * n + beta3 * (gradient + (1 - beta2) * change).square()
        corrected = [1 - (1 - beta) ** step for beta in (beta1, beta2, beta3)]
        update = m / corrected[0] + (1 - beta2) * v / corrected[1]
        theta = (theta - lr * update / ((n / corrected[2]).sqrt() + eps)) / (1 + lr * decay)
        last = gradient
    torch.testing.assert_close(weight.detach(), theta)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_algorithm_runs_or_says_at_recipe_time_why_not(library):
    """All of them, on the tiny net: what the rehearsal let through trains, and most do."""
    refused = {}
    for algorithm in LIBRARIES[library].library():
        try:
            Recipe(optimizer={"name": library, "algorithm": algorithm, "lr": 1e-3})
        except RecipeError as error:
            refused[algorithm] = str(error)
            continue
        model = tiny_model()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer = build_optimizer({"name": library, "algorithm": algorithm, "lr": 1e-3}, list(model.parameters()))
        after = trained(optimizer, model, steps=7)
        assert after.isfinite().all(), algorithm
        # These begin with steps below what float32 holds.
        assert algorithm.startswith(("dadapt", "sara")) or not torch.equal(before, after), algorithm
    assert len(refused) < len(LIBRARIES[library].library()) / 3
    assert all(f"`{algorithm}`" in text and "\n" not in text for algorithm, text in refused.items())
    assert "closure" in refused["lbfgs"]
    if library == "pytorch_optimizer":
        assert "num_data" in refused["bsam"]
        assert "evaluates other weights" in refused["schedulefreeadamw"]


def test_an_optimizer_that_forgets_is_refused():
    """SGD whose rate falls with a count that no state holds."""

    class Forgets(torch.optim.SGD):
        count = 0

        def step(self, closure=None):
            self.count += 1
            for group in self.param_groups:
                group["lr"] = 0.1 / self.count
            return super().step(closure)

    with pytest.raises(RecipeError, match="`forgets` does not save all of its state"):
        rehearse(lambda groups: Forgets(groups, lr=0.1), "`forgets`", dimensions={2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "adann"}, "did you mean `adan`"),
        ({"algorithm": "adan", "weight_deca": 0.1}, "unknown option `weight_deca` .* did you mean `weight_decay`"),
        ({"algorithm": "adan", "lr": -1.0}, "`lr` is -1.0"),
        ({"algorithm": "adan", "betas": [0.5, 2.0, 0.5]}, "algorithm `adan` .* cannot be used here"),
        ({"algorithm": "sgd", "lr": 1e30}, "diverges"),
        ({"algorithm": 3}, "no algorithm `3`"),
    ],
)
def test_bad_options_get_one_sentence(options, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(optimizer={"name": "pytorch_optimizer"} | options)


def test_a_missing_library_names_the_command(monkeypatch):
    PytorchOptimizer.library.cache_clear()
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(MissingExtra, match=r"surefoot\[optimizers\]"):
        Recipe(optimizer="pytorch_optimizer")
    PytorchOptimizer.library.cache_clear()


def test_rehearsing_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build_optimizer("pytorch_optimizer", None)
    assert torch.equal(torch.get_rng_state(), before)
