"""Linear layers that know how their best weights answer to hyperparameters, for self-tuning networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objective import Objective
from surefoot.tune.seeds import seed_of
from surefoot.tune.selection import Selection, Training
from surefoot.tune.step import Step

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: What draws of hyperparameters and of dropout are seeded by, beside the seed and the step.
PERTURB, DROP = 21, 22


class Hypers:
    """Unbounded hyperparameters `values` (H,) with the scales of their perturbation, softplus(`scales`) (H,).

    `draw` gives each example its own, values + softplus(scales) eps, the same in every pass of a step. `names`: of the
    hyperparameters; `index`: where each lies.
    """

    def __init__(self, start: dict[str, float], *, scale: float, seed: int) -> None:
        self.names = list(start)
        self.index = {name: number for number, name in enumerate(start)}
        self.values = torch.tensor(list(start.values()), requires_grad=True)
        self.scales = torch.full((len(start),), math.log(math.expm1(scale)), requires_grad=True)
        self.seed, self.step = seed, 0
        #: Whether `draw` perturbs: in training always, before the judge where scales are tuned.
        self.perturbed = True

    def draw(self, examples: int, device: torch.device) -> Tensor:
        """(B, H), with a graph to `values` and, where they are perturbed, to `scales`."""
        values = self.values.to(device)
        if not self.perturbed:
            return values.expand(examples, -1)
        generator = torch.Generator().manual_seed(seed_of(self.seed, PERTURB, self.step))
        noise = torch.randn(examples, len(self.names), generator=generator)
        return values + F.softplus(self.scales).to(device) * noise.to(device)

    @property
    def entropy(self) -> Tensor:
        """Of the perturbation, a normal distribution: sum_h log(scale_h sqrt(2 pi e)), in nats."""
        return torch.log(F.softplus(self.scales) * math.sqrt(2 * math.pi * math.e)).sum()


class BestResponse(nn.Linear):
    """W(h) = W0 + diag(V_w h) W1, b(h) = b0 + (V_b h) b1: a linear layer whose weights are linear in hyperparameters h.

    Each example has its own h, so that x (B, ..., in) gives W0 x + b0 + (V_w h) * (W1 x) + (V_b h) * b1, (B, ..., out),
    at the cost of two layers. `weight` and `bias` are W0 and b0; W1 and b1 start as a layer's usually do and V at zero:
    training begins with W0 as it is. dropout: which of h is the probability with which, in training, inputs are dropped.
    """

    def __init__(self, linear: nn.Linear, hypers: Hypers, *, dropout: int | None, number: int) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.to(linear.weight.device, linear.weight.dtype)
        self.response_weight = nn.Parameter(self.weight.detach().clone())  # drawn as torch draws a new layer's
        self.response_bias = None if linear.bias is None else nn.Parameter(self.bias.detach().clone())
        self.weight, self.bias = linear.weight, linear.bias
        rows = 1 if linear.bias is None else 2
        self.to_scales = nn.Parameter(linear.weight.new_zeros(rows * linear.out_features, len(hypers.names)))
        self.hypers, self.dropout, self.number = hypers, dropout, number
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        h = self.hypers.draw(len(input), input.device)
        if self.training and self.dropout is not None:
            input = self._dropped(input, probability(h[:, self.dropout]))
        shape = (len(input), *[1] * (input.ndim - 2), -1)
        scales = self.scales(h)
        found = F.linear(input, self.weight, self.bias)
        found = found + scales[0].view(shape) * F.linear(input, self.response_weight)
        if self.response_bias is not None:
            found = found + scales[1].view(shape) * self.response_bias
        return found

    def scales(self, h: Tensor) -> list[Tensor]:
        """V_w h, (B, out), and V_b h where there is a bias, for h (B, H)."""
        return list(torch.split(h @ self.to_scales.T.to(h.dtype), self.out_features, dim=1))

    def _dropped(self, input: Tensor, p: Tensor) -> Tensor:
        """Inputs kept with 1 - p_i, scaled by 1 / (1 - p_i); without gradient to p, (B,), as dropout has none."""
        generator = torch.Generator().manual_seed(seed_of(self.hypers.seed, DROP, self.hypers.step, self.number))
        kept = 1 - p.detach().view(-1, *[1] * (input.ndim - 1))
        draws = torch.rand(input.shape, generator=generator).to(input.device)
        return input * (draws < kept) / kept

    def squared(self, h: Tensor, start: Tensor | None) -> Tensor:
        """||W(h_i) - start||^2 for each h_i, (B,); without a start, from zero. Nothing of the size of B weights is made."""
        moved = self.weight if start is None else self.weight - start
        s, other = self.scales(h)[0], self.response_weight
        rows = moved.square().sum(1) + 2 * s * (moved * other).sum(1) + s.square() * other.square().sum(1)
        return rows.sum(1)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The plain layer at the hyperparameters as they are."""
        s = self.scales(self.hypers.values.detach()[None].to(self.weight.device))
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        plain.weight = nn.Parameter(self.weight + s[0][0][:, None] * self.response_weight)
        if self.response_bias is not None:
            plain.bias = nn.Parameter(self.bias + s[1][0] * self.response_bias)
        return plain.train(self.training)


#: Most that a probability of dropout becomes, for stability: the authors'.
MOST = 0.9


def probability(h: Tensor) -> Tensor:
    """MOST sigmoid(h)."""
    return MOST * torch.sigmoid(h)


def unbounded(p: float) -> float:
    """The h of a probability."""
    return math.log(p / MOST) - math.log1p(-p / MOST)


class Responding(Selection):
    """Another selection whose linear layers that train become `BestResponse` layers, and plain ones in the end."""

    wraps = True

    def __init__(self, inner: Selection, hypers: dict[str, float], *, scale: float, seed: int, each: bool) -> None:
        if inner.wraps:
            raise RecipeError(
                "a self-tuning network wraps linear layers itself: choose a selection of plain weights, such as all, top_layers or head"
            )
        self.inner, self.start, self.scale, self.seed, self.each = inner, hypers, scale, seed, each
        self.hypers = Hypers(hypers, scale=scale, seed=seed)

    def setup(self, model: Model, training: Training) -> None:
        self.inner.setup(model, training)

    def apply(self, model: Model) -> None:
        self.inner.apply(model)
        unreached = set(model.unreached)
        found = {
            name: module
            for name, module in model.named_modules()
            if type(module) is nn.Linear and module.weight.requires_grad and f"{name}.weight" not in unreached
        }
        if not found:
            raise RecipeError("no linear layer trains, and a self-tuning network needs some: choose another selection")
        start = dict(self.start)
        if self.each and "dropout" in start:
            shared = start.pop("dropout")
            start = {f"dropout.{name}": shared for name in found} | start
        self.hypers = Hypers(start, scale=self.scale, seed=self.seed)
        for number, (name, module) in enumerate(found.items()):
            dropout = self.hypers.index.get(f"dropout.{name}", self.hypers.index.get("dropout"))
            _replace(model, name, BestResponse(module, self.hypers, dropout=dropout, number=number))

    def finish(self, model: Model) -> None:
        for name, module in list(model.named_modules()):
            if isinstance(module, BestResponse):
                _replace(model, name, module.folded())
        self.inner.finish(model)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


class Decay(Objective):
    """Mean over the batch of exp(h_i) / 2 sum over layers of ||W(h_i) - W_start||^2, heads from zero."""

    def __init__(self, hypers: Hypers, layers: dict[str, BestResponse], heads: frozenset[str]) -> None:
        super().__init__()
        self.hypers, self.heads = hypers, heads
        self.layers_: Any = layers  # not registered: they are the model's
        self.start_ = {name: each.weight.detach().clone() for name, each in layers.items()}

    def forward(self, step: Step) -> Tensor:
        h = self.hypers.draw(len(step.batch), step.labels.device)
        squared = [
            layer.squared(h, None if f"{name}.weight" in self.heads else self.start_[name])
            for name, layer in self.layers_.items()
        ]
        return (h[:, self.hypers.index["weight_decay"]].exp() / 2 * torch.stack(squared).sum(0)).mean()
