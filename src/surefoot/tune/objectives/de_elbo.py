"""DE-ELBo: the strength of the pull to the start, learned from the training set alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, positive
from surefoot.tune.step import Output, Step

if TYPE_CHECKING:
    from surefoot.models.model import Model


@register(
    "de_elbo",
    kind="objective",
    family="loss",
    papers=[
        Paper(
            "Learning Hyperparameters via a Data-Emphasized Variational Objective",
            "Harvey, Petrov and Hughes",
            2025,
            arxiv="2502.01861",
        )
    ],
)
class DEELBo(Objective):
    """Variational inference that weighs the data D / N times: CE at sampled weights + KL(q || p) / (kappa N).

    q = N(w, sigma^2 I) over all weights that train, with one learned sigma = softplus(raw); priors p = N(w0, tau_1 I) on
    the pretrained ones and N(0, tau_2 I) on the head; N: training examples; D: weights that train; kappa = D / N. In
    every pass the weights are drawn once, w + sigma eps with eps ~ N(0, I), and tau_b is the one that is best for them,
    tau_b = (||w_b - w0_b||^2 + D_b sigma^2) / D_b, at which KL_b = (D_b / 2) log(tau_b / sigma^2), so that there is no
    strength of regularisation to search for. What training leaves is w. Gives a scalar in nats; it takes the place of
    cross-entropy. It makes a pass of its own, the only one if no other objective reads the outputs.

    kappa: None for D / N, the paper's; 1 is the plain ELBo. sigma: where it starts, the authors' 1e-4. They train with
    SGD, Nesterov momentum 0.9, cosine decay from a rate of up to 0.1, `clip: 1`; Adam's small steps hardly move sigma.
    Their priors of low rank, which need more than the pretrained weights, are not here.
    Raises RecipeError if sigma or kappa is not above zero.
    Reference: Harvey et al. 2025; tufts-ml/data-emphasized-ELBo, src/losses.py and src/priors.py.

    >>> DEELBo(sigma=1e-3).kappa is None
    True
    """

    def __init__(self, *, kappa: float | None = None, sigma: float = 1e-4) -> None:
        super().__init__()
        self.kappa = None if kappa is None else positive("kappa", kappa)
        self.sigma = positive("sigma", sigma)
        self.raw = nn.Parameter(torch.tensor(math.log(math.expm1(self.sigma))))

    def setup(self, context: Context) -> None:
        self.weights_ = {name: each for name, each in context.trained.items() if each.requires_grad}
        self.start_ = {name: context.start[name] for name in self.weights_ if name not in context.head_names}
        count = sum(each.numel() for each in self.weights_.values())
        self.noise_: dict[str, Tensor] = {}
        self.share_ = 1 / count if self.kappa is None else 1 / (self.kappa * context.examples)

    def forward(self, step: Step) -> Tensor:
        sigma = F.softplus(self.raw)
        drawn = {name: torch.addcmul(each, self._noise(name, step), sigma) for name, each in self.weights_.items()}
        output = step.again(model=cast("Model", _At(step.model, drawn)))
        return F.cross_entropy(output.logits, step.labels) + self.share_ * self.divergence(sigma)

    def divergence(self, sigma: Tensor) -> Tensor:
        """KL(q || p) at the best prior variances: a scalar in nats."""
        blocks = []
        for pretrained in (True, False):
            names = [name for name in self.weights_ if (name in self.start_) is pretrained]
            if names:
                moves = [self._moved(name) for name in names]
                count = sum(self.weights_[name].numel() for name in names)
                blocks.append(best_divergence(torch.stack(moves).sum(), sigma, count))
        return torch.stack(blocks).sum()

    def _moved(self, name: str) -> Tensor:
        """||w - w0||^2, in one pass over the two."""
        weight, start = self.weights_[name], self.start_.get(name)
        return weight.square().sum() if start is None else F.mse_loss(weight, start, reduction="sum")

    def _noise(self, name: str, step: Step) -> Tensor:
        """Into the same memory every time: to ask for as much as the model is takes a third of what drawing it takes."""
        like = self.weights_[name]
        held = self.noise_.setdefault(name, torch.empty_like(like, requires_grad=False))
        return torch.randn(like.shape, generator=step.generator, out=held)


def best_divergence(squared: Tensor, sigma: Tensor, count: int) -> Tensor:
    """min over tau of KL(N(m, sigma^2 I) || N(0, tau I)) in `count` dimensions with ||m||^2 = squared: a scalar."""
    return count / 2 * torch.log1p(squared / (count * sigma.square()))


class _At:
    """The model with other values in place of its weights."""

    def __init__(self, model: Model, weights: Mapping[str, Tensor]) -> None:
        self.model, self.weights = model, weights

    def __call__(self, *args: Any, **options: Any) -> Output:
        found: Output = functional_call(self.model, dict(self.weights), args, options)
        return found
