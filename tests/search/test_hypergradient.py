"""Hypergradients against closed forms, finite differences and exact Hessians, all in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.search.hypergradient import hypergradient, neumann, safe_rate

X, Y, X_VAL, Y_VAL = (
    torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for seed, shape in enumerate([(30, 4), (30,), (20, 4), (20,)])
)


def ridge(logs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(w, H) of argmin sum_i a_i (x_i w - y_i)^2 / 2n + sum_j exp(h_j) w_j^2 / 2, in closed form."""
    hessian = X.T @ (weights[:, None] * X) / len(X) + torch.diag(logs.exp())
    return torch.linalg.solve(hessian, X.T @ (weights * Y) / len(X)), hessian


def losses(w: Tensor, logs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    inner = (weights * (X @ w - Y).square()).sum() / (2 * len(X)) + (logs.exp() * w.square()).sum() / 2
    return inner, (X_VAL @ w - Y_VAL).square().mean() / 2


@pytest.mark.parametrize("rate", [None, 0.2])
def test_of_ridge_regression_it_is_the_closed_form_and_finite_differences(rate: float | None) -> None:
    """dL_val/dh = -v H^-1 d2L_tr/dw dh by a linear solve, and by moving each hyperparameter and solving again: one
    weight decay for every weight, one weight for every example."""
    logs = torch.tensor([-2.0, -1.0, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(X), dtype=torch.float64, generator=torch.Generator().manual_seed(9)).requires_grad_()
    solution, hessian = ridge(logs.detach(), weights.detach())
    w = solution.clone().requires_grad_()
    inner, outer = losses(w, logs, weights)
    found = hypergradient(inner, outer, [w], [logs, weights], terms=400, rate=rate)

    v = X_VAL.T @ (X_VAL @ solution - Y_VAL) / len(X_VAL)
    product = torch.linalg.solve(hessian, v)
    by_logs = -product * logs.detach().exp() * solution
    by_weights = -(X @ solution - Y) * (X @ product) / len(X)
    assert torch.allclose(found[0], by_logs, rtol=1e-8)
    assert torch.allclose(found[1], by_weights, rtol=1e-8)

    def validation(h: Tensor, a: Tensor) -> Tensor:
        return losses(ridge(h, a)[0], h, a)[1]

    for number, (hyper, gradient) in enumerate(zip((logs.detach(), weights.detach()), found, strict=True)):
        for i in range(0, len(hyper), 7):
            move = torch.zeros_like(hyper)
            move[i] = 1e-6
            ends = []
            for sign in (1, -1):
                given = [logs.detach(), weights.detach()]
                given[number] = hyper + sign * move
                ends.append(validation(*given))
            assert float((ends[0] - ends[1]) / 2e-6) == pytest.approx(float(gradient[i]), rel=1e-5, abs=1e-9)


def net() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return model, X[:12], torch.arange(12) % 3


def exact_hessian(model: nn.Module, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    names = [name for name, _ in model.named_parameters()]
    values = tuple(each.detach() for each in model.parameters())

    def loss(*given: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, dict(zip(names, given, strict=True)), (x,))
        return (weights * F.cross_entropy(logits, y, reduction="none")).mean()

    blocks = torch.autograd.functional.hessian(loss, values)
    return torch.cat(
        [torch.cat([block.reshape(a.numel(), b.numel()) for block, b in zip(row, values, strict=True)], 1)
         for row, a in zip(blocks, values, strict=True)]
    )  # fmt: skip


@pytest.mark.parametrize("terms", [0, 1, 5])
def test_on_a_two_layer_net_the_series_is_that_of_the_exact_hessian(terms: int) -> None:
    """a sum_i v (I - a H)^i with H from `torch.autograd.functional.hessian`, negative curvature and all."""
    model, x, y = net()
    weights = torch.ones(12, dtype=torch.float64, requires_grad=True)
    parameters = list(model.parameters())
    per_example = F.cross_entropy(model(x), y, reduction="none")
    inner = (weights * per_example).mean()
    outer = F.cross_entropy(model(X_VAL[:6]), torch.tensor([2, 1, 0, 0, 1, 2]))
    found = hypergradient(inner, outer, parameters, [weights], terms=terms, rate=0.3)[0]

    hessian = exact_hessian(model, x, y, torch.ones(12, dtype=torch.float64))
    v = torch.cat([each.flatten() for each in torch.autograd.grad(
        F.cross_entropy(model(X_VAL[:6]), torch.tensor([2, 1, 0, 0, 1, 2])), parameters)])  # fmt: skip
    step = torch.eye(len(v), dtype=torch.float64) - 0.3 * hessian
    product = 0.3 * sum(torch.linalg.matrix_power(step, i) @ v for i in range(terms + 1))
    rows = [
        torch.cat([each.flatten() for each in torch.autograd.grad(one / 12, parameters, retain_graph=True)])
        for one in F.cross_entropy(model(x), y, reduction="none")
    ]
    assert torch.allclose(found, -torch.stack(rows) @ product, rtol=1e-8, atol=1e-12)


def test_the_rate_comes_from_the_largest_eigenvalue() -> None:
    """Against the eigenvalues of the exact Hessian: below 2 over the largest, so that the series converges."""
    logs = torch.tensor([-2.0, -1.0, 0.0, 0.5], dtype=torch.float64)
    weights = torch.ones(len(X), dtype=torch.float64)
    solution, hessian = ridge(logs, weights)
    w = solution.clone().requires_grad_()
    slopes = torch.autograd.grad(losses(w, logs, weights)[0], [w], create_graph=True)
    rate = safe_rate(slopes, [w], [torch.ones(4, dtype=torch.float64)])
    largest = float(torch.linalg.eigvalsh(hessian).max())
    assert 0.8 / largest <= rate * (1 + 1e-9)
    assert rate < 1.2 / largest
    whole = neumann(slopes, [w], [torch.ones(4, dtype=torch.float64)], terms=2000, rate=rate)[0]
    assert torch.allclose(whole, torch.linalg.solve(hessian, torch.ones(4, dtype=torch.float64)), rtol=1e-8)


def test_what_does_not_depend_gives_zero() -> None:
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    free = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(hypergradient(w.sum(), w.square().sum(), [w], [free])[0], torch.zeros(2, dtype=torch.float64))
