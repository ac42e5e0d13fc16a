"""Limits of all wrappers, and what is particular to AMP, FSAM, GAM and GMT, against something that is not this package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_problem import passes, tiny_context, tiny_model
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.build import build_optimizer
from surefoot.tune.optimizers.adamw import AdamW
from surefoot.tune.optimizers.amp import AMP
from surefoot.tune.optimizers.fsam import FSAM
from surefoot.tune.optimizers.gam import GAM
from surefoot.tune.optimizers.gmt import GMT
from surefoot.tune.optimizers.sam import SAM
from surefoot.tune.optimizers.sgd import SGD


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CURVATURE = torch.tensor([1.0, 4.0, 0.5, 2.0, 3.0], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 3.0, 0.25, -0.7], dtype=torch.float64)


def quadratic(*weights: nn.Parameter, seen: list[Tensor] | None = None):
    """L = w'Aw / 2 over the weights put end to end, A diagonal."""

    def closure(first: bool) -> Tensor:
        flat = torch.cat([weight.flatten() for weight in weights])
        if seen is not None:
            seen.append(flat.detach().clone())
        for weight in weights:
            weight.grad = None
        loss = (CURVATURE * flat**2).sum() / 2
        loss.backward()
        return loss.detach()

    return closure


def split(*, at: int = 2) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(START[:at].clone()), nn.Parameter(START[at:].clone())


def plain(weights) -> SGD:
    return SGD(weights, lr=0.1, momentum=0.0)


def joined(weights) -> Tensor:
    return torch.cat([weight.detach() for weight in weights])


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# --- limits: without radius, weight or mask each is the method that it extends, to the bit


def trained(make, steps: int = 6) -> list[Tensor]:
    """Weights after some steps of a model with dropout, by an optimizer that `make` gives for its parameters."""
    model = tiny_model(dropout=0.3).train()
    optimizer = make(model.parameters())
    optimizer.setup(tiny_context(model))
    for number in range(steps):
        optimizer.step(passes(model, seed=number))
    return [parameter.detach() for parameter in model.parameters()]


def inner(parameters) -> AdamW:
    return AdamW(parameters, lr=1e-2, weight_decay=0.1)


@pytest.mark.parametrize(
    ("without", "with_it", "base"),
    [
        ({"name": "fsam", "rho": 0.0}, {"name": "fsam", "rho": 0.1}, inner),
        ({"name": "fsam", "keep_ratio": 1.0}, {"name": "fsam", "keep_ratio": 0.2}, lambda p: SAM(inner(p))),
        ({"name": "amp", "epsilon": 0.0}, {"name": "amp"}, inner),
        ({"name": "amp", "inner_lr": 0.0, "inner_steps": 3}, {"name": "amp", "inner_steps": 3}, inner),
        ({"name": "gam", "rho": 0.0, "r": 0.0, "gamma": 0.0}, {"name": "gam", "gamma": 0.0}, inner),
        ({"name": "gam", "r": 0.05, "alpha": 1.0, "gamma": 0.0}, {"name": "gam"}, lambda p: SAM(inner(p), rho=0.05)),
        ({"name": "gmt", "keep_ratio": 1.0}, {"name": "gmt", "keep_ratio": 0.5}, inner),
        ({"name": "gmt", "keep_ratio": 1.0, "scope": "global"}, {"name": "gmt", "scope": "global"}, inner),
        ({"name": "tram", "logit_scale": 0.0}, {"name": "tram", "logit_scale": 10.0}, inner),
        ({"name": "tram", "logit_scale": 0.0, "target": "start"}, {"name": "tram", "target": "start"}, inner),
    ],
    ids=lambda each: str(each) if isinstance(each, dict) else "around",
)
def test_limits(without, with_it, base):
    expected = trained(base)
    options = {"inner": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1}}
    limit = trained(lambda p: build_optimizer({**without, **options}, p))
    beyond = trained(lambda p: build_optimizer({**with_it, **options}, p))
    assert all(torch.equal(a, b) for a, b in zip(expected, limit, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(expected, beyond, strict=True))


# --- FSAM


def test_fsam_on_a_quadratic():
    """Closed form: g = Aw, e = rho m g / ||g|| with m the two largest g^2 over both tensors; the gradient is A (w + e)."""
    weights = split()
    FSAM(plain(weights), rho=0.3, keep_ratio=0.4).step(quadratic(*weights))
    gradient = CURVATURE * START
    mask = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0], dtype=torch.float64)  # |g| is 1, 8, 1.5, 0.5, 2.1
    close(joined(weights), START - 0.1 * CURVATURE * (START + 0.3 * mask * gradient / gradient.norm()))


def test_fsam_keeps_its_mask_for_so_many_steps():
    """The mask of step 0 serves steps 0 to 2, whatever the gradients there; step 3 draws its own."""
    weights, seen = split(), []
    optimizer = FSAM(plain(weights), rho=1.0, keep_ratio=0.2, every=3)
    closure = quadratic(*weights, seen=seen)
    moved = []
    for step in range(4):
        if step == 1:
            with torch.no_grad():
                weights[1][0] = 100.0  # now the largest gradient is elsewhere
        optimizer.step(closure)
        moved.append(int((seen[-1] - seen[-2]).abs().argmax()))
    assert moved == [1, 1, 1, 2]


def test_fsam_masks_neither_biases_nor_embeddings_nor_batch_norm():
    model = tiny_model()
    optimizer = FSAM(SGD(model.parameters()), rho=0.5, keep_ratio=0.0)
    optimizer.setup(tiny_context(model))
    seen: list[Tensor] = []
    optimizer.step(passes(model, seen=seen))
    names = [name for name, each in model.named_parameters() for _ in range(each.numel())]
    stepped = {name for name, shift in zip(names, (seen[1] - seen[0]).tolist(), strict=True) if shift}
    assert stepped == {name for name in names if name.endswith("bias")}


# --- AMP


@pytest.mark.parametrize("epsilon", [100.0, 1.5])
def test_amp_on_a_quadratic(epsilon):
    """Closed form: D <- D + z A (w + D), each tensor's own D cut to norm epsilon, twice; the gradient is A (w + D)."""
    weights = split()
    AMP(plain(weights), epsilon=epsilon, inner_lr=0.5, inner_steps=2).step(quadratic(*weights))
    shift = np.zeros(5)
    a, w = CURVATURE.numpy(), START.numpy()
    for _ in range(2):
        shift = shift + 0.5 * a * (w + shift)
        for part in (slice(0, 2), slice(2, 5)):
            shift[part] *= min(1.0, epsilon / np.linalg.norm(shift[part]))
    close(joined(weights), torch.from_numpy(w - 0.1 * a * (w + shift)))


# --- GMT


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_gmt_is_a_quantile_of_the_gradient(scope):
    """theta - lr M(g, k) with the threshold from numpy's sort."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(40, generator=generator), 3 * torch.randn(7, 5, generator=generator)]
    weights = [nn.Parameter(torch.zeros_like(each)) for each in found]

    def closure(first: bool) -> Tensor:
        for weight, gradient in zip(weights, found, strict=True):
            weight.grad = gradient.clone()
        return torch.zeros(())

    GMT(SGD(weights, lr=1.0, momentum=0.0), keep_ratio=0.2, scope=scope).step(closure)
    sizes = [np.abs(each.numpy().ravel()) for each in found]
    together = np.sort(np.concatenate(sizes))[::-1]
    for weight, gradient, own in zip(weights, found, sizes, strict=True):
        threshold = together[14] if scope == "global" else np.sort(own)[::-1][len(own) // 5 - 1]
        expected = np.where(np.abs(gradient.numpy()) >= threshold, -gradient.numpy(), 0)
        assert np.array_equal(weight.detach().numpy(), expected)
    assert scope == "tensor" or sum(int((weight != 0).sum()) for weight in weights) == 15


# --- GAM


def two_layers(seed: int = 0):
    """A two-layer net in float64 as a function of one vector: the loss that exact Hessians are taken of."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (20,), generator=generator)
    start = torch.randn(3 * 4 + 4 * 2, generator=generator, dtype=torch.float64)

    def loss(weight: Tensor) -> Tensor:
        hidden = torch.tanh(x @ weight[:12].view(3, 4))
        return F.cross_entropy(hidden @ weight[12:].view(4, 2), y)

    return loss, start


def watched(loss, weight: nn.Parameter, seen: list[Tensor]):
    def closure(first: bool) -> Tensor:
        seen.append(weight.detach().clone())
        weight.grad = None
        value = loss(weight)
        value.backward()
        return value.detach()

    return closure


def test_gam_climbs_along_the_exact_hessian_times_the_gradient():
    """On a two-layer net with its exact Hessian H: the third pass is at w + rho H g / ||H g||, to first order in r, and
    the norm of the gradient grows there by rho ||H g|| / ||g|| (H g . H g) / ||H g||^2, to first order in rho."""
    loss, start = two_layers()
    hessian = torch.autograd.functional.hessian(loss, start)
    gradient = torch.autograd.functional.jacobian(loss, start)
    weight, seen = nn.Parameter(start.clone()), []
    rho = 1e-3
    GAM(plain([weight]), rho=rho, r=1e-6).step(watched(loss, weight, seen))
    growth = hessian @ gradient / gradient.norm()
    close((seen[2] - start) / rho, growth / growth.norm(), 1e-5)
    rise = torch.autograd.functional.jacobian(loss, seen[2]).norm() - gradient.norm()
    torch.testing.assert_close(rise / rho, growth.norm(), rtol=2e-2, atol=0)


def test_gam_is_the_papers_algorithm():
    """Algorithm 2 in float64, line by line, with gradients from torch.autograd.functional."""
    loss, start = two_layers(1)
    weight = nn.Parameter(start.clone())
    rho, r, alpha, beta, gamma = 0.3, 0.05, 0.6, 0.3, 0.4
    GAM(plain([weight]), rho=rho, r=r, alpha=alpha, beta=beta, gamma=gamma).step(watched(loss, weight, []))

    def grad(at: Tensor) -> Tensor:
        return torch.autograd.functional.jacobian(loss, at)

    g0 = grad(start)
    g1 = grad(start + r * g0 / g0.norm())
    second = start + rho * (g1 - g0) / (g1 - g0).norm()
    g2 = grad(second)
    g3 = grad(second + r * g2 / g2.norm())
    plus, minus = alpha * g1 + (1 - alpha) * g3, beta * g0 + (1 - beta) * g2
    across = minus - (minus @ plus) / (plus @ plus) * plus
    close(weight.detach(), start - 0.1 * (plus - gamma * across), 1e-9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "fsam", "keep_ratio": 1.5}, "`keep_ratio` is 1.5"),
        ({"name": "fsam", "every": 0}, "`every` is 0"),
        ({"name": "fsam", "rho": -1}, "`rho` is -1"),
        ({"name": "amp", "epsilon": float("inf")}, "`epsilon` is inf"),
        ({"name": "amp", "inner_steps": 1.5}, "`inner_steps` is 1.5"),
        ({"name": "gam", "alpha": 2}, "`alpha` is 2"),
        ({"name": "gam", "gamma": -0.1}, "`gamma` is -0.1"),
        ({"name": "gmt", "keep_ratio": -0.1}, "`keep_ratio` is -0.1"),
        ({"name": "gmt", "scope": "tensr"}, "did you mean `tensor`"),
        ({"name": "tram", "target": "prev"}, "`target` is `prev`"),
        ({"name": "tram", "logit_scale": float("nan")}, "`logit_scale` is nan"),
    ],
)
def test_errors(spec, message):
    with pytest.raises(RecipeError, match=message):
        build_optimizer(spec, None)
