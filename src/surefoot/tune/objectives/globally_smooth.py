"""Globally smooth functions on a manifold: a graph Laplacian whose weights go where the slope is steepest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.step import Step


@register(
    "globally_smooth",
    kind="objective",
    family="smoothness",
    papers=[Paper("Learning Globally Smooth Functions on Manifolds", "Cerviño et al.", 2023, arxiv="2210.00301")],
)
class GloballySmooth(Objective):
    """The smallest steepest slope along the data at a bounded loss: mu CE + smoothness sum_i lambda_i sum_j W_ij |p_i - p_j|^2.

    p: probabilities (B, C); W_ij = exp(-d_ij^2 / 4t) with d_ij the distance of examples i and j in the pretrained
    model's features, scaled to length 1: the manifold is what the pretrained model takes for near. The sum over j is a
    mean over the rest of the batch and that over i is taken N / B times, so that it estimates the sum over the data; it
    is symmetric, (lambda_i + lambda_j) / 2 a pair. Gives (B,) in nats; it holds the cross-entropy and takes its place.

    Once a step, without gradient: mu <- clip(mu + eta' (CE - epsilon), 0, 2), eta' = eta over the steps of an epoch,
    and for the batch's examples lambda_i <- lambda_i + eta s_i, then divided so that all sum to 1 (before that by what
    an epoch of such updates would add, 1 + eta N mean_i s_i), with s_i = max_j |p_i - p_j|_1 / d_ij the slope at i.
    The paper moves them once an epoch over the whole graph, and has a variant with a bound on the slope.

    epsilon: the loss that is good enough, in nats, at least 0; 0.01, the authors'. eta: at least 0; 0.5, the authors';
    0 keeps the plain Laplacian. t: width of the kernel, above 0; 0.25 for features of length 1 (the authors' 0.05 is
    for points in the plane). smoothness: at least 0; 1; 0 with eta 0 is cross-entropy. State: `multipliers` (N,), `mu` ().
    Raises RecipeError for other values. Reference: Cerviño et al. 2023; JuanCervino/smoothbench.

    >>> GloballySmooth(eta=0.0).t
    0.25
    """

    needs = frozenset({"index", "reference"})
    multipliers: Tensor
    mu: Tensor

    def __init__(self, *, epsilon: float = 0.01, eta: float = 0.5, t: float = 0.25, smoothness: float = 1.0) -> None:
        super().__init__()
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.eta = positive("eta", eta, zero=True)
        self.t = positive("t", t)
        self.smoothness = positive("smoothness", smoothness, zero=True)

    def setup(self, context: Context) -> None:
        self.register_buffer("multipliers", torch.full((context.examples,), 1 / context.examples))
        self.register_buffer("mu", torch.ones(()))
        self.per_step_ = self.eta * context.epochs / context.steps

    @torch.no_grad()
    def update(self, step: Step) -> None:
        logits, index = step.output.logits, step.batch.index
        loss = F.cross_entropy(logits, step.labels)
        self.mu.copy_((self.mu + self.per_step_ * (loss - self.epsilon)).clamp(0, 2))
        slopes = steepest(logits.softmax(1), distances(step.reference.features))
        rise = 1 + self.eta * len(self.multipliers) * slopes.mean()
        self.multipliers[index] = (self.multipliers[index] + self.eta * slopes) / rise
        self.multipliers /= self.multipliers.sum()

    def per_example(self, step: Step) -> Tensor:
        logits = step.output.logits
        losses = self.mu * F.cross_entropy(logits, step.labels, reduction="none")
        if not self.smoothness or len(logits) == 1:
            return losses
        p = logits.softmax(1)
        lengths = distances(step.reference.features)
        kernel = torch.exp(-lengths.square() / (4 * self.t)).fill_diagonal_(0)
        own = len(self.multipliers) * self.multipliers[step.batch.index]
        weights = kernel * (own[:, None] + own) / 2
        apart = (p[:, None] - p).square().sum(2)
        return losses + self.smoothness * (weights * apart).sum(1) / (len(p) - 1)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"eta": Space(0.05, 2.0, log=True), "smoothness": Space(0.01, 10.0, log=True)}


def distances(features: Tensor) -> Tensor:
    """Distances between rows scaled to length 1: (B, B)."""
    unit = F.normalize(features.float(), dim=1)
    # Not torch.cdist, whose product form loses what tells near points apart.
    return (unit[:, None] - unit).square().sum(2).sqrt()


def steepest(p: Tensor, lengths: Tensor) -> Tensor:
    """max_j |p_i - p_j|_1 / d_ij: (B,); pairs in one place have no slope."""
    apart = (p[:, None] - p).abs().sum(2)
    return torch.where(lengths > 1e-6, apart / lengths.clamp_min(1e-6), 0.0).amax(1)
