"""LBDN: a head of sandwich layers that no input can move faster than gamma."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.selections import whole
from surefoot.tune.selections.kept import Kept

if TYPE_CHECKING:
    from surefoot.models.model import Model


def cayley(weight: Tensor) -> Tensor:
    """A matrix with orthonormal rows, (m, n) from a free one (m, n) with n >= m, or orthonormal columns where m > n.

    Of the tall form [U; V]: Z = U - U^T + V^T V, [(I + Z)^-1 (I - Z); -2 V (I + Z)^-1].
    """
    rows, columns = weight.shape
    if columns > rows:
        return cayley(weight.T).T
    U, V = weight[:columns], weight[columns:]
    Z = U - U.T + V.T @ V
    eye = torch.eye(columns, dtype=weight.dtype, device=weight.device)
    inverse = torch.linalg.inv(eye + Z)
    return torch.cat([inverse @ (eye - Z), -2 * V @ inverse])


class Sandwich(nn.Module):
    """h -> sqrt2 A^T Psi relu(sqrt2 Psi^-1 B h + b), Psi = diag(exp(psi)), A A^T + B B^T = I: it is 1-Lipschitz."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs + outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.psi = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_normal_(self.weight)
        self.length = nn.Parameter(self.weight.detach().norm())

    def forward(self, h: Tensor) -> Tensor:
        A, B = blocks(self.weight, self.length)
        inner = math.sqrt(2) * F.linear(h, B) * (-self.psi).exp() + self.bias
        return math.sqrt(2) * F.linear(F.relu(inner) * self.psi.exp(), A.T)


def blocks(weight: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """A (m, m) and B (m, n) of a free matrix (m, m + n), whose length is a parameter of its own."""
    both = cayley(length * weight / weight.norm())
    return both[:, : len(weight)], both[:, len(weight) :]


class SandwichHead(Addition):
    """Sandwich layers before a model's head, and the head's own weight as the free matrix of the layer B h + b."""

    def __init__(self, dim: int, classes: int, *, depth: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.layers = nn.ModuleList(Sandwich(dim, dim) for _ in range(depth))
        # Half of [A B] of the last layer; the other is the head's weight.
        self.last = nn.Parameter(torch.empty(classes, classes))
        nn.init.xavier_normal_(self.last)
        self.length = nn.Parameter(torch.ones(()))

    def before(self, head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Hook: features to what the last layer sees."""
        h = math.sqrt(self.gamma) * args[0]
        for layer in self.layers:
            h = layer(h)
        return (math.sqrt(self.gamma) * h,)

    def instead(self, head: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Hook: B h + b in place of the head's W h + b."""
        free = torch.cat([self.last, head.weight], 1)
        return F.linear(args[0], blocks(free, self.length * math.sqrt(free.numel()))[1], head.bias)


@register(
    "lbdn",
    kind="selection",
    family="adversarial",
    papers=[
        Paper(
            "Direct Parameterization of Lipschitz-Bounded Deep Networks",
            "Wang and Manchester",
            2023,
            arxiv="2301.11526",
        )
    ],
)
class LBDN(Kept):
    """A head of sandwich layers trains that is gamma-Lipschitz whatever its weights are; the features stay.

    h <- sqrt2 A^T Psi relu(sqrt2 Psi^-1 B h + b), `depth` times; logits = B' h + b'; sqrt(gamma) times before and after

    [A B] = cayley(s W / ||W||_F) for a free W (out, in + out) and a length s, so that A A^T + B B^T = I and every layer
    is 1-Lipschitz; Psi = diag(exp(psi)), psi = 0 at first. The last layer's free matrix holds the head's weight. Then
    ||logits(f) - logits(f')|| <= gamma ||f - f'||, and a prediction whose two largest logits lie m apart holds for all
    features within m / (sqrt2 gamma): `certified_radius`. That is a radius in the features; where the backbone is the
    identity, in the inputs. Every layer has as many outputs as features. Convolutions are not here.

    depth: 2. gamma: the bound, above 0; 10, between the 1 and 100 that the paper's image networks have.

    The parts stay in the model (see `surefoot.models.additions`). The head starts anew: a probe's answers are not kept.
    Raises RecipeError for options out of range. Reference: Wang and Manchester 2023, section 3; acfr/LBDN, layer.py.

    >>> LBDN(gamma=2.0)
    LBDN(depth=2, gamma=2.0)
    """

    called = "lbdn"
    title = "a head of sandwich layers"
    starts_there = False

    def __init__(self, *, depth: int = 2, gamma: float = 10.0) -> None:
        self.depth = whole("depth", depth, least=0)
        self.gamma = positive("gamma", gamma)

    def attach(self, model: Model) -> None:
        head: Any = model.head
        part = SandwichHead(model.dim, head.out_features, depth=self.depth, gamma=self.gamma)
        head.add_module("lbdn", part.to(head.weight.device))
        head.register_forward_pre_hook(part.before)
        head.register_forward_hook(part.instead)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"gamma": Space(0.1, 100.0, log=True)}


def certified_radius(logits: Tensor, gamma: float) -> Tensor:
    """(N,): within which l2 distance of the features the prediction cannot change, from logits (N, C)."""
    top = logits.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]) / (math.sqrt(2) * gamma)
