"""DVERGE: an ensemble whose members are fooled by different things."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.attacks.attack import Target
from surefoot.attacks.pgd import whole
from surefoot.data.examples import Examples
from surefoot.ensembles.ensemble import Ensemble, Members, check_members
from surefoot.errors import ModelError
from surefoot.models.model import Model
from surefoot.models.modes import evaluating
from surefoot.models.predict import encode_inputs
from surefoot.registry import Paper, register
from surefoot.tune.objective import positive
from surefoot.tune.step import Batch, Output


class Average(Members):
    """log of the mean of the members' probabilities."""

    def log_probabilities(self, outputs: Sequence[Output]) -> Tensor:
        found = torch.stack([F.log_softmax(each.logits, dim=1) for each in outputs])
        return torch.logsumexp(found, 0) - math.log(len(outputs))


@register(
    "dverge",
    kind="ensemble",
    family="adversarial",
    papers=[
        Paper(
            "DVERGE: Diversifying Vulnerabilities for Enhanced Robust Generation of Ensembles",
            "Yang et al.",
            2020,
            arxiv="2009.14720",
        )
    ],
)
class DVERGE(Ensemble):
    """Every member learns to be right where the others are led astray: min_j sum over i != j of CE(f_j(z_i), y_s).

    z_i = argmin ||f_i^l(z) - f_i^l(x)||^2 over ||z - x_s||_inf <= epsilon: looks like x_s, of class y_s, and has what
    member i's layer l sees in x, an example drawn without regard to y_s. Found from x_s in `steps` steps along the
    sign of a gradient with momentum, g <- momentum g + grad / ||grad||_1; l: the output of a convolution or linear
    layer, before its activation, drawn once an epoch, at the same relative depth in every member.

    `fit(members, examples)` trains the members themselves, one after the other on every batch, from where they are:
    they should know the task already. `combine(members)` averages their probabilities: a model with log-probabilities
    (B, C) for logits. `diversity(members, examples)` is the mean of the loss above over pairs (nats), less where what
    leads one astray leaves the others alone. Their adversarial training beside it, with a weight, is left to
    recipes with `pgd_at`.

    epsilon: 0.07, step_size: 0.007, steps: 10, momentum: 1, in units of pixels in [0, 1], the authors' code's. epochs:
    10, lr: 1e-3 of Adam and batch_size: 64 are this library's, for members that know the task; the authors train for
    200 epochs. A batch costs `steps` passes a member and K (K - 1) passes forwards and backwards. Raises RecipeError
    for values out of range; ModelError for fewer than two members, members of other classes, or models of texts.
    Reference: Yang et al. 2020, equations 1 to 4 and algorithm 1; zjysteven/DVERGE, train/train_dverge.py.

    >>> DVERGE().epsilon
    0.07
    """

    def __init__(
        self,
        *,
        epsilon: float = 0.07,
        step_size: float = 0.007,
        steps: int = 10,
        momentum: float = 1.0,
        epochs: int = 10,
        lr: float = 1e-3,
        batch_size: int = 64,
    ) -> None:
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.step_size = positive("step_size", step_size)
        self.steps = whole("steps", steps)
        self.momentum = positive("momentum", momentum, zero=True)
        self.epochs = whole("epochs", epochs)
        self.lr = positive("lr", lr)
        self.batch_size = whole("batch_size", batch_size, least=2)

    def combine(self, members: Sequence[Model]) -> Average:
        found = Average(members, name="dverge")
        found.eval()
        return found

    def fit(self, members: Sequence[Model], examples: Examples, *, seed: int = 0) -> DVERGE:
        _check(members)
        rng = np.random.default_rng(seed)
        optimizers = [torch.optim.Adam(member.parameters(), lr=self.lr) for member in members]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(self.epochs):
                depth = rng.random()
                for batch, other in self._pairs(members[0], examples, rng):
                    moved = [self.distilled(member, batch, other, depth=depth) for member in members]
                    for j, (member, optimizer) in enumerate(zip(members, optimizers, strict=True)):
                        member.train()
                        loss = self._cross_loss(member, batch, [z for i, z in enumerate(moved) if i != j])
                        optimizer.zero_grad()
                        loss.backward()  # type: ignore[no-untyped-call]
                        optimizer.step()
                        member.eval()
        return self

    def diversity(self, members: Sequence[Model], examples: Examples, *, seed: int = 0) -> float:
        """The mean over pairs of members and examples of CE(f_j(z_i), y_s), in nats."""
        _check(members)
        rng, losses = np.random.default_rng(seed), []
        for batch, other in self._pairs(members[0], examples, rng):
            depth = rng.random()
            moved = [self.distilled(member, batch, other, depth=depth) for member in members]
            for j, member in enumerate(members):
                with evaluating(member), torch.no_grad():
                    others = [z for i, z in enumerate(moved) if i != j]
                    losses.append(float(self._cross_loss(member, batch, others)) / len(others))
        return float(np.mean(losses))

    def distilled(self, member: Model, batch: Batch, other: Batch, *, depth: float) -> Tensor:
        """z: (B, ...) near the batch's inputs, with the features of the other's at a relative depth in [0, 1)."""
        layers = [each for each in member.backbone.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
        layer = layers[int(depth * len(layers))]
        source, wanted = (
            Target(member, each, "values", torch.Generator(member.device).manual_seed(0)) for each in (batch, other)
        )
        ball, z = source.ball("linf", self.epsilon), source.x.clone()
        if not self.epsilon:
            return z
        momentum = torch.zeros_like(z)
        with evaluating(member):
            goal = _seen(layer, wanted, wanted.x).detach()
            for _ in range(self.steps):
                z.requires_grad_()
                with torch.enable_grad():
                    distance = (_seen(layer, source, z) - goal).square().flatten(1).sum(1)
                    (gradient,) = torch.autograd.grad(distance.sum(), z)
                length = gradient.flatten(1).abs().sum(1).clamp_min(1e-12).view(-1, *[1] * (z.ndim - 1))
                momentum = self.momentum * momentum + gradient / length
                with torch.no_grad():
                    z = ball.project(source.x, z.detach() - self.step_size * momentum.sign())
        return z

    @staticmethod
    def _cross_loss(member: Model, batch: Batch, moved: Sequence[Tensor]) -> Tensor:
        target = Target(member, batch, "values", torch.Generator(member.device).manual_seed(0))
        return torch.stack([F.cross_entropy(target.logits(z), batch.labels) for z in moved]).sum()

    def _pairs(self, model: Model, examples: Examples, rng: np.random.Generator) -> list[tuple[Batch, Batch]]:
        """Every example once as a source, beside another drawn for it."""
        examples = examples.with_classes(model.classes)
        encoded, labels = encode_inputs(model, examples.inputs, examples.modality), np.asarray(examples.labels)

        def batch(index: np.ndarray) -> Batch:
            inputs = {name: value.to(model.device) for name, value in encoded.collate(index).items()}
            return Batch(inputs, torch.from_numpy(labels[index]).to(model.device), torch.from_numpy(index))

        count = -(-len(labels) // self.batch_size)
        sources, others = (np.array_split(rng.permutation(len(labels)), count) for _ in range(2))
        return [(batch(first), batch(second)) for first, second in zip(sources, others, strict=True)]


def _seen(layer: nn.Module, target: Target, x: Tensor) -> Tensor:
    """What the layer gives for x: (B, ...)."""
    found: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: found.append(output))
    try:
        target.logits(x)
    finally:
        handle.remove()
    return found[0]


def _check(members: Sequence[Model]) -> None:
    if len(members) < 2:
        raise ModelError(f"dverge tells members apart, and there is {len(members)}: give two at least")
    check_members(members)
    if members[0].processor.modality == "text":
        raise ModelError("dverge moves pixels, and the members read text: give it models of images or numbers")
