"""Adaptive smoothing: an accurate and a robust classifier, mixed in probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.attacks.attack import Target, modality_of
from surefoot.attacks.pgd import EPSILON, PGD, whole
from surefoot.data.examples import Examples
from surefoot.ensembles.ensemble import Ensemble, Members
from surefoot.errors import ModelError, RecipeError
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, positive
from surefoot.tune.step import Batch, Output

#: Weights of BCE and of BCE * CE in the mixing network's loss: the authors' settings for CIFAR-100.
BCE, PRODUCT = 1.5, 0.2
BATCH = 64


class MixingNetwork(nn.Module):
    """gamma (B, 1) from the features of both members; its scale is batch normalisation's, without weights."""

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, 1))
        self.normalisation = nn.BatchNorm1d(1, affine=False, momentum=0.01)

    def forward(self, features: Tensor) -> Tensor:
        gamma: Tensor = self.normalisation(self.layers(features))
        return gamma


class Mixture(Members):
    """log((1 - alpha) softmax(s_g g(x)) + alpha softmax(s_h h(x))), alpha a number or the mixing network's."""

    def __init__(self, members: Sequence[Model], options: AdaptiveSmoothing) -> None:
        super().__init__(members, name="adaptive-smoothing")
        self.options = options
        self.mixing = options.mixing_

    def log_probabilities(self, outputs: Sequence[Output]) -> Tensor:
        options = self.options
        g, h = (
            F.log_softmax(scale * each.logits, dim=1)
            for scale, each in zip((options.accurate_scale, options.robust_scale), outputs, strict=True)
        )
        if self.mixing is None:
            alpha = torch.full_like(g[:, :1], options.alpha)
        else:
            share = torch.sigmoid(self.gamma(outputs))
            # In training the network's own share; afterwards squeezed into the interval.
            alpha = share if self.mixing.training else options.low + (options.high - options.low) * share
        return torch.logaddexp((1 - alpha).log() + g, alpha.log() + h)

    def gamma(self, outputs: Sequence[Output]) -> Tensor:
        """(B, 1); above 0 where an attack is suspected."""
        assert self.mixing is not None
        gamma: Tensor = self.mixing(torch.cat([each.features for each in outputs], dim=1))
        return gamma


@register(
    "adaptive_smoothing",
    kind="ensemble",
    family="adversarial",
    papers=[
        Paper(
            "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
            "Bai et al.",
            2023,
            arxiv="2301.12554",
        )
    ],
)
class AdaptiveSmoothing(Ensemble):
    """Mixes an accurate g with a robust h: log((1 - alpha) softmax(s_g g(x)) + alpha softmax(s_h h(x))).

    `combine([g, h])` gives the mixture as a model, with log-probabilities (B, C) for logits. With a fixed alpha of at
    least 1/2 its prediction is h's wherever h's two largest probabilities lie (1 - alpha) / alpha apart or more
    (`margin`): where that is so in a whole ball, it is certified there, whatever g does.

    `fit([g, h], examples)` trains a mixing network on the features of both, which are frozen: gamma (B, 1), batch-
    normalised, alpha = sigmoid(gamma), on clean examples and as many that PGD has moved against the mixture itself,
    by 1.5 BCE(gamma, attacked?) + 0.2 BCE * CE. Afterwards alpha lies in [low, high]. The authors' network reads maps
    of inner layers and is trained against AutoPGD; here it reads the pooled features.

    alpha: 0.85 while nothing is fitted. low, high: 0.84 and 0.99, accurate_scale s_g: 2, robust_scale s_h: 1, the
    authors' for CIFAR-100. epsilon: 8/255 and steps: 10, of PGD in `fit`. epochs: 3. lr: 1e-3, Adam's, for a network
    this small. Raises RecipeError for values out of range; ModelError unless there are two members of the same
    classes. Reference: Bai et al. 2023, equation 4 and theorem 3.2; Bai-YT/AdaptiveSmoothing, models/comp_model.py.

    >>> AdaptiveSmoothing(alpha=0.8).margin
    0.25
    """

    def __init__(
        self,
        *,
        alpha: float = 0.85,
        low: float = 0.84,
        high: float = 0.99,
        accurate_scale: float = 2.0,
        robust_scale: float = 1.0,
        epsilon: float = EPSILON,
        steps: int = 10,
        epochs: int = 3,
        lr: float = 1e-3,
    ) -> None:
        self.alpha = fraction("alpha", alpha, one=True)
        self.low, self.high = fraction("low", low, one=True), fraction("high", high, one=True)
        if low > high:
            raise RecipeError(f"`low` is {low} and `high` {high}: the first must not be the larger")
        self.accurate_scale = positive("accurate_scale", accurate_scale)
        self.robust_scale = positive("robust_scale", robust_scale)
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.steps = whole("steps", steps)
        self.epochs = whole("epochs", epochs)
        self.lr = positive("lr", lr)
        self.mixing_: MixingNetwork | None = None

    @property
    def margin(self) -> float:
        """(1 - alpha) / alpha, rounded to nine places."""
        return round((1 - self.alpha) / self.alpha, 9)

    def combine(self, members: Sequence[Model]) -> Mixture:
        if len(members) != 2:
            raise ModelError(
                f"adaptive smoothing mixes two models, the accurate and the robust one, not {len(members)}"
            )
        found = Mixture(members, self)
        found.eval()
        return found

    def fit(self, members: Sequence[Model], examples: Examples, *, seed: int = 0) -> AdaptiveSmoothing:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.mixing_ = MixingNetwork(sum(member.dim for member in members))
            self._train(self.combine(members), examples, np.random.default_rng(seed))
        return self

    def _train(self, mixture: Mixture, examples: Examples, rng: np.random.Generator) -> None:
        assert self.mixing_ is not None
        examples = examples.with_classes(mixture.classes)
        encoded, labels = encode_inputs(mixture, examples.inputs, examples.modality), np.asarray(examples.labels)
        optimizer = torch.optim.Adam(self.mixing_.parameters(), lr=self.lr)
        attack = PGD(epsilon=self.epsilon, steps=self.steps)
        for _ in range(self.epochs):
            for index in np.array_split(rng.permutation(len(labels)), -(-len(labels) // BATCH)):
                y = torch.from_numpy(labels[index])
                batch = Batch(encoded.collate(index), y, torch.from_numpy(index))
                if modality_of(batch) == "text":
                    raise ModelError(
                        "the mixing network learns from pixels that were moved: use a fixed alpha for texts"
                    )
                generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
                target = Target(mixture.eval(), batch, "values", generator)
                both = torch.cat([target.x, attack.perturb(target)])
                moved = torch.cat([torch.zeros(len(y)), torch.ones(len(y))])
                loss = self._loss(mixture, target, both, y.repeat(2), moved)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        mixture.eval()

    def _loss(self, mixture: Mixture, target: Target, x: Tensor, labels: Tensor, moved: Tensor) -> Tensor:
        assert self.mixing_ is not None
        batch = Batch(target.inputs(x), labels, torch.arange(len(labels)))
        with torch.no_grad():
            outputs = [member(batch) for member in mixture.members]
        self.mixing_.train()
        gamma = mixture.gamma(outputs)[:, 0]
        alpha = torch.sigmoid(gamma)[:, None]
        g, h = (
            F.softmax(scale * each.logits, dim=1)
            for scale, each in zip((self.accurate_scale, self.robust_scale), outputs, strict=True)
        )
        suspicion = F.binary_cross_entropy_with_logits(gamma, moved, reduction="none")
        losses = F.nll_loss(((1 - alpha) * g + alpha * h).clamp_min(1e-12).log(), labels, reduction="none")
        return (BCE * suspicion + PRODUCT * suspicion * losses).mean()
