"""Layer by layer on the way from a pretrained to a tuned model: the loss in between, and how sharp it is at a point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.models.model import Model
from surefoot.tune.step import Batch

#: T = |w| + ETA of adaptive perturbations, ASAM's.
ETA = 0.01


@dataclass(frozen=True, eq=False)
class Profile:
    """`layers` (L): names; `losses` (L, A): mean cross-entropy in nats at each alpha of one layer, the others being tuned;
    `sharpness` (L,): its rise under the worst adaptive step of length rho in one layer; `total`: in all at once."""

    layers: tuple[str, ...]
    losses: np.ndarray
    sharpness: np.ndarray
    total: float


def barriers(losses: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
    """max over alpha of L(alpha) - (1 - alpha) L(0) - alpha L(1), of losses (..., A) at alphas that begin with 0 and end with 1.

    >>> barriers(np.array([[1.0, 2.0, 0.0]]), [0.0, 0.5, 1.0]).tolist()
    [1.5]
    """
    at = np.asarray(alphas)
    line = losses[..., :1] * (1 - at) + losses[..., -1:] * at
    found: np.ndarray = (losses - line).max(-1)
    return found


def layers_of(model: Model, moved: Sequence[str]) -> dict[str, list[str]]:
    """Names of weights by the transformer block that they are in, others by the module that owns them; no head's."""
    found: dict[str, list[str]] = {}
    for name in moved:
        if name.startswith("head."):
            continue
        block = next((each for each in model.layer_names if name.startswith(f"{each}.")), None)
        found.setdefault(block or name.rpartition(".")[0], []).append(name)
    return found


def interpolated_losses(
    model: Model, base: Mapping[str, Tensor], batches: Sequence[Batch], alphas: Sequence[float]
) -> tuple[tuple[str, ...], np.ndarray]:
    """The layers in which the model is not the base, and losses (L, A) of it with one layer at (1 - alpha) w_0 + alpha w_1."""
    tuned = {name: value.clone() for name, value in model.state_dict().items()}
    moved = [n for n, v in tuned.items() if n in base and v.is_floating_point() and not torch.equal(v, base[n])]
    groups = layers_of(model, moved)
    rows = []
    with elsewhere(model) as weights:
        end = mean_loss(model, batches)
        for names in groups.values():
            row = []
            for alpha in alphas:
                for name in names:
                    weights[name].copy_(torch.lerp(base[name].to(weights[name]), tuned[name], alpha))
                row.append(end if alpha == 1 else mean_loss(model, batches))
            for name in names:
                weights[name].copy_(tuned[name])
            rows.append(row)
    return tuple(groups), np.array(rows, dtype=np.float64).reshape(len(groups), len(alphas))


def sharpness(
    model: Model, batches: Sequence[Batch], groups: Mapping[str, Sequence[str]], *, rho: float = 0.05
) -> tuple[np.ndarray, float]:
    """L(w + e) - L(w) with e = rho T^2 g / ||T g||, T = |w| + 0.01: of each group's weights alone (L,), and of all at once."""
    known = {name: value for name, value in model.named_parameters() if value.is_floating_point()}
    names = [name for each in groups.values() for name in each if name in known]
    flags = {name: value.requires_grad for name, value in known.items()}
    for name, value in known.items():
        value.requires_grad_(name in names)
    with torch.enable_grad():
        loss = sum(F.cross_entropy(model(b).logits, b.labels, reduction="sum") for b in batches)
        assert isinstance(loss, Tensor)
        found = torch.autograd.grad(loss, [known[name] for name in names], allow_unused=True)
    for name, value in known.items():
        value.requires_grad_(flags[name])
    gradients = {name: each for name, each in zip(names, found, strict=True) if each is not None}
    before, rises = mean_loss(model, batches), []
    for chosen in (*groups.values(), names):
        with elsewhere(model) as weights:
            scale = {name: weights[name].abs() + ETA for name in chosen if name in gradients}
            length = torch.stack([(scale[name] * gradients[name]).norm() for name in scale]).norm().clamp_min(1e-20)
            for name, each in scale.items():
                weights[name].add_(rho * each.square() * gradients[name] / length)
            rises.append(mean_loss(model, batches) - before)
    return np.array(rises[:-1]), rises[-1]


def profile(
    model: Model,
    base: Mapping[str, Tensor],
    batches: Sequence[Batch],
    *,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    alpha: float = 0.75,
    rho: float = 0.05,
) -> Profile:
    """Of a tuned model and the weights it started from: losses between them, and sharpness at (1 - alpha) w_0 + alpha w_1."""
    layers, losses = interpolated_losses(model, base, batches, alphas)
    middle = deepcopy(model).eval()
    state = middle.state_dict()
    for name, value in state.items():
        if name in base and value.is_floating_point():
            value.copy_(torch.lerp(base[name].to(value), value, alpha))
    groups = {name: each for name, each in layers_of(model, list(state)).items() if name in layers}
    own, total = sharpness(middle, batches, groups, rho=rho)
    return Profile(layers, losses, own, total)


@contextmanager
def elsewhere(model: Model) -> Iterator[dict[str, Tensor]]:
    """The model's tensors by name, to be written to; afterwards they are as they were, to the bit."""
    live = {name: value.detach() for name, value in model.state_dict(keep_vars=True).items()}
    kept = {name: value.clone() for name, value in live.items()}
    with torch.no_grad():
        try:
            yield live
        finally:
            for name, value in live.items():
                value.copy_(kept[name])


@torch.no_grad()
def mean_loss(model: Model, batches: Sequence[Batch]) -> float:
    """Mean cross-entropy in nats."""
    losses = [F.cross_entropy(model(batch).logits.double(), batch.labels, reduction="none") for batch in batches]
    return float(torch.cat(losses).mean())
