"""How much of the labels some features explain, without fitting a model to them; and which features explain most.

Sheth and Fusi 2019, "Feature Gradients: Scalable Feature Selection via Discrete Relaxation" (arXiv 1908.10382), on the
estimator of Kong and Valiant 2018, "Estimating Learnability in the Sublinear Data Regime" (arXiv 1805.01626).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surefoot.errors import DataError, RecipeError

#: c_1, ..., c_m of a polynomial sum_k c_k t^k that is close to 1 between 0 and 1, by its order m: so that
#: sum_k c_k b' S^(k-1) b is close to b' S^-1 b. The authors' table, from Kong and Valiant's code.
COEFFICIENTS = {
    1: (0.60355337,),
    2: (1.52705001, -0.34841729),
    3: (2.90254224, -1.87216745, 0.0),
    4: (4.63445685, -5.19936195, 0.0, 1.50391676),
    5: (6.92948049, -14.12216211, 9.4475009, 0.0, -1.21093546),
    6: (9.54431082, -28.09414643, 31.84703652, -11.18763791, -1.14175281, 0.0),
}
#: Slope of the loss by z outside of [0, 1], back towards it.
SLOPE = 1e-2


def explained(features: Tensor, targets: Tensor, weights: Tensor, *, order: int = 4) -> Tensor:
    """z = sum_{k=1..m} c_k / C(N, k+1) y' up(K)^k y,  K = X diag(s) X': an estimate of the variance explained, a scalar.

    features X (N, D), centred, their covariance's largest eigenvalue at most 1; targets y (N,) of variance 1; weights s
    (D,) in [0, 1]; up: the part above the diagonal, so that y' up(K)^k y sums y_i0 K_i0i1 ... K_ik-1ik y_ik over i0 < i1
    < ... < ik: every term has independent examples, and z no bias. Linear in N and D: up(K) r is a cumulative sum from
    below. Raises RecipeError for an order without coefficients.
    """
    if order not in COEFFICIENTS:
        raise RecipeError(f"`order` is {order}: there are coefficients for 1 to {max(COEFFICIENTS)}")
    if len(features) <= order:
        raise DataError(f"{len(features)} examples are too few for order {order}: its terms have {order + 1} each")
    scaled, reached, total = features * weights, targets, features.new_zeros(())
    for k, coefficient in enumerate(COEFFICIENTS[order], 1):
        own = features * reached[:, None]
        below = own.flip(0).cumsum(0).flip(0) - own
        reached = (scaled * below).sum(1)
        if coefficient:
            total = total + coefficient / math.comb(len(features), k + 1) * (targets @ reached)
    return total


@dataclass(frozen=True)
class FeatureScores:
    """`scores` (D,) in (0, 1), 0.5 where the search began; `explained`: z of all features, the mean over classes."""

    scores: np.ndarray
    explained: float

    def best(self, count: int | None = None) -> np.ndarray:
        """Ascending indices of so many features with the highest scores; None: of those with at least 0.5."""
        if count is None:
            return np.flatnonzero(self.scores >= 0.5)
        return np.sort(np.argsort(-self.scores, kind="stable")[:count])


def feature_gradients(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    order: int = 4,
    penalty: float = 1.0,
    lr: float = 0.1,
    steps: int = 100,
    batch: int = 1000,
    seed: int = 0,
) -> FeatureScores:
    """Score features (N, D) by how much they explain of class labels (N,), together: interactions up to `order` count.

    Minimises (1 - w) F(s) + w mean(s) over s = sigmoid(2 x) by Adam from x = 0, w = penalty / (penalty + 1), with F =
    (1 - sqrt(z)) / 2, the mean over classes of one against the rest (y = 1 or -1) of `explained`; gradient norm at most
    1. Features are standardised and divided by the largest singular value of X / sqrt(N).

    order 4, penalty 1, lr 0.1, batch 1000: the authors' defaults. steps: 100 batches, drawn with the seed; theirs are one
    pass, made for millions of examples. Where z is outside of [0, 1] its gradient is 0.01 back towards it.
    Raises DataError for features that are not finite, labels that do not fit, or too few examples; RecipeError for an
    order without coefficients.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 400)
    >>> features = rng.normal(size=(400, 6)); features[:, 2] += 2 * labels
    >>> feature_gradients(features, labels).best(1)
    array([2])
    """
    inputs, classes = _checked(features, labels, order)
    w = penalty / (penalty + 1)
    x = torch.zeros(inputs.shape[1], dtype=inputs.dtype, requires_grad=True)
    adam = torch.optim.Adam([x], lr=lr)
    rng = np.random.default_rng(seed)
    size = min(batch, len(inputs))
    for _ in range(steps):
        drawn = rng.permutation(len(inputs))[:size]
        given, own = inputs[drawn], classes[:, drawn]
        s = torch.sigmoid(2 * x)
        losses = [_loss(explained(given, y, s, order=order)) for y in own if y.min() != y.max()]
        if not losses:
            continue
        adam.zero_grad()
        ((1 - w) * torch.stack(losses).mean() + w * s.mean()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([x], 1.0)
        adam.step()
    with torch.no_grad():
        ones = torch.ones(inputs.shape[1], dtype=inputs.dtype)
        whole = torch.stack([explained(inputs, y, ones, order=order) for y in classes]).mean()
        return FeatureScores(torch.sigmoid(2 * x).numpy(), whole.item())


def _loss(z: Tensor) -> Tensor:
    found: Tensor = _Loss.apply(z)  # type: ignore[no-untyped-call]
    return found


class _Loss(torch.autograd.Function):
    """(1 - sqrt(z)) / 2 for z in [0, 1]."""

    @staticmethod
    def forward(context, z):  # type: ignore[no-untyped-def]
        context.save_for_backward(z)
        return 0.5 * (1 - z.clamp(0, 1).sqrt())

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def]
        (z,) = context.saved_tensors
        inside = -0.25 / (z.clamp(0, 1).sqrt() + 1e-8)
        return gradient * torch.where(z < 0, -SLOPE, torch.where(z > 1, SLOPE, inside))


def _checked(features: np.ndarray, labels: np.ndarray, order: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) as `explained` wants them, and y (C, N) of 1 and -1 for each class that is there."""
    given, kinds = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if given.ndim != 2 or kinds.shape != (len(given),):
        raise DataError(f"features of shape {given.shape} and labels of shape {kinds.shape}: give (N, D) and (N,)")
    bad = np.flatnonzero(~np.isfinite(given).all(1))
    if len(bad):
        raise DataError(f"the features of example {bad[0] + 1} are not finite: leave it out or mend it")
    known = np.unique(kinds)
    if len(known) < 2:
        raise DataError("all examples are of one class: there is nothing to explain")
    if len(given) <= order:
        raise DataError(f"{len(given)} examples are too few for order {order}: its terms have {order + 1} each")
    spread = given.std(0)
    centred = (given - given.mean(0)) / np.where(spread > 0, spread, 1.0)
    largest = np.linalg.svd(centred / math.sqrt(len(given)), compute_uv=False)[0]
    scaled = torch.from_numpy(centred / (largest or 1.0))
    # Of two classes, one against the other and the other against the one are the same question.
    chosen = known[1:] if len(known) == 2 else known
    return scaled, torch.from_numpy(np.where(kinds == chosen[:, None], 1.0, -1.0))
