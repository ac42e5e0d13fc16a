"""ELR+: early-learning regularisation with two networks, averaged weights and mixup."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction, positive
from surefoot.tune.step import Batch, Output, Step


@register(
    "elr_plus",
    kind="objective",
    family="noisy_labels",
    papers=[
        Paper(
            "Early-Learning Regularization Prevents Memorization of Noisy Labels",
            "Liu et al.",
            2020,
            arxiv="2007.00151",
        )
    ],
)
class ELRPlus(Objective):
    """ELR+, where each of two networks takes its targets from the other: CE(z, y~) + r(t) strength log(1 - <t~_i, p_i>).

    z: logits (B, C) of a mixture x~ = m x_i + (1 - m) x_j with m = max(m', 1 - m'), m' ~ Beta(alpha, alpha), j another
    order of the batch; y~ and t~ are mixed alike; p = softmax(z), clamped to [1e-4, 1 - 1e-4]. t_i: as in ELR, t_i <-
    beta t_i + (1 - beta) q_i, but q is what the other network's averaged weights make of x_i itself. Averages: theta_bar
    <- a theta_bar + (1 - a) theta, a = min(1 - 1 / (s + 1), decay) at step s. r(t) = exp(-5 (1 - s / ramp)^2) up to step
    `ramp`, then 1. Texts are mixed by their word embeddings, each as long as the longer one. Gives (B,) in nats, both
    networks' terms together; it holds the cross-entropy and takes its place.

    The second network is the objective's own: it starts as a copy, sees other mixtures and other dropout, and is dropped
    at the end (the authors average both answers). The averages answer in eval mode. Costs a pass with gradient of each
    network and a pass of each average; four times the memory of the weights that train.

    beta: 0.7 and strength: 3, the authors' for CIFAR-10 (0.9 and 7 for CIFAR-100). alpha: 1, theirs; 0 mixes nothing.
    decay: 0.997, theirs. ramp: in steps, 0, none, theirs for CIFAR-10. State: `targets` (2, N, C), the averages, the
    second network. Raises RecipeError for values out of range, or inputs that cannot be mixed. Reference: Liu et al.
    2020, appendix; shengliu66/ELR, ELR_plus/trainer and model/loss.py.

    >>> ELRPlus(strength=1.0).beta
    0.7
    """

    needs = frozenset({"inputs", "index"})
    targets: Tensor
    count: Tensor

    def __init__(
        self, *, beta: float = 0.7, strength: float = 3.0, alpha: float = 1.0, decay: float = 0.997, ramp: int = 0
    ) -> None:
        super().__init__()
        self.beta = fraction("beta", beta)
        self.strength = positive("strength", strength, zero=True)
        self.alpha = positive("alpha", alpha, zero=True)
        self.decay = fraction("decay", decay)
        if not isinstance(ramp, int) or isinstance(ramp, bool) or ramp < 0:
            raise RecipeError(f"`ramp` is {ramp}: it must be a whole number of steps")
        self.ramp = ramp

    def setup(self, context: Context) -> None:
        self.register_buffer("targets", torch.zeros(2, context.examples, len(context.classes)))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.peer = deepcopy(context.model)
        self.names_ = [name for name, each in context.trained.items() if each.requires_grad]
        for network in range(2):
            for name in self.names_:
                self.register_buffer(_buffer(network, name), context.trained[name].detach().clone())

    @torch.no_grad()
    def update(self, step: Step) -> None:
        self.count += 1
        share = min(1 - 1 / (int(self.count) + 1), self.decay)
        index = step.batch.index
        answers = []
        for network, model in enumerate((step.model, self.peer)):
            parameters = dict(model.named_parameters())
            averages = {name: self.get_buffer(_buffer(network, name)) for name in self.names_}
            for name, average in averages.items():
                average.lerp_(parameters[name], 1 - share)
            answers.append(_answer(step, model, averages).softmax(1))
        for network, answer in enumerate(reversed(answers)):  # each from the other
            before = self.targets[network, index]
            self.targets[network, index] = self.beta * before + (1 - self.beta) * answer

    def per_example(self, step: Step) -> Tensor:
        # One number after another from the step's generator: the second pass of SAM draws the same.
        return self._loss(step, step.model, 0) + self._loss(step, self.peer, 1)

    def _loss(self, step: Step, model: Model, network: int) -> Tensor:
        share, other = self._mixture(len(step.batch), step.generator)
        own = F.one_hot(step.labels, self.targets.shape[2]).float()
        targets = self.targets[network, step.batch.index]
        labels, targets = (share * each + (1 - share) * each[other] for each in (own, targets))
        logits = mixed_pass(step, model, share, other).logits
        p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        pull = torch.log(1 - (targets * p).sum(1))
        return -(labels * logits.log_softmax(1)).sum(1) + self._ramped() * self.strength * pull

    def _mixture(self, size: int, generator: torch.Generator) -> tuple[float, Tensor]:
        """m, and whom each example is mixed with: (B,)."""
        device = generator.device
        if not self.alpha:
            return 1.0, torch.arange(size, device=device)
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
        share = float(np.random.default_rng(seed).beta(self.alpha, self.alpha))
        return max(share, 1 - share), torch.randperm(size, generator=generator, device=device)

    def _ramped(self) -> float:
        step = int(self.count)
        return math.exp(-5 * (1 - step / self.ramp) ** 2) if step < self.ramp else 1.0

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"beta": Space(0.3, 0.95), "strength": Space(0.3, 10.0, log=True), "alpha": Space(0.1, 4.0, log=True)}


def mixed_pass(step: Step, model: Model, share: float, other: Tensor) -> Output:
    """A pass over share x_i + (1 - share) x_other(i); RecipeError for inputs that are neither words nor numbers."""
    inputs = step.batch.inputs
    if share == 1:
        return step.again(model=model)
    if "input_ids" in inputs:
        words = model.embed_inputs(step.batch).float()
        mask = torch.maximum(inputs["attention_mask"], inputs["attention_mask"][other])
        seen = inputs["attention_mask"][:, :, None] * words
        mixed = share * seen + (1 - share) * seen[other]
        return step.again(inputs={**inputs, "attention_mask": mask}, embeddings=mixed, model=model)
    name = next((name for name in ("pixel_values", "features") if name in inputs), None)
    if name is None:
        raise RecipeError(f"elr_plus cannot mix inputs of {sorted(inputs)}: use elr")
    values = share * inputs[name] + (1 - share) * inputs[name][other]
    return step.again(inputs={**inputs, name: values}, model=model)


def _answer(step: Step, model: Model, weights: Mapping[str, Tensor]) -> Tensor:
    """Logits on the batch with other weights, in eval mode."""

    def averaged(batch: Batch, **options: Any) -> Any:
        return functional_call(model, dict(weights), (batch,), options)

    with evaluating(model):
        return step.again(model=cast(Model, averaged)).logits


def _buffer(network: int, name: str) -> str:
    """Names of buffers hold no dots."""
    return f"average/{network}/{name.replace('.', '/')}"
