"""A real model small enough for exact checks: two layers, three classes, two groups, numbers for inputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.models.model import Model
from surefoot.models.processor import EncodedFeatures
from surefoot.tune.objective import Context
from surefoot.tune.optimizer import Passes
from surefoot.tune.pairs import Pairs
from surefoot.tune.step import Batch, Step

CLASSES = ("bad", "fair", "good")
INPUTS, HIDDEN, FEATURES, EXAMPLES = 5, 8, 6, 12


def tiny_model(seed: int = 0, *, dropout: float = 0.0) -> Model:
    torch.manual_seed(seed)
    layers = [nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Dropout(dropout), nn.Linear(HIDDEN, FEATURES)]
    model = Model.from_module(nn.Sequential(*layers), dim=FEATURES, classes=CLASSES)
    nn.init.normal_(model.head.weight)
    nn.init.normal_(model.head.bias)
    return model


def tiny_batch(seed: int = 1, size: int = EXAMPLES) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(EXAMPLES, generator=generator)[:size]
    return Batch(
        inputs={"features": torch.randn(size, INPUTS, generator=generator)},
        labels=torch.arange(size) % len(CLASSES),
        index=index,
        group=index % 2,
    )


def tiny_pairs() -> Pairs:
    """A positive and a negative of each example; the first two examples have the same positive."""
    rng = np.random.default_rng(11)
    encoded = {
        name: EncodedFeatures(rng.normal(size=(EXAMPLES, INPUTS)).astype(np.float32))
        for name in ("positive", "negative")
    }
    encoded["positive"].values[1] = encoded["positive"].values[0]
    ids = {name: torch.arange(EXAMPLES) + EXAMPLES * i for i, name in enumerate(("anchor", *encoded))}
    ids["positive"][1] = ids["positive"][0]
    return Pairs(encoded, ids, torch.linspace(0.0, 1.0, EXAMPLES))


def tiny_context(model: Model) -> Context:
    trained = dict(model.named_parameters())
    return Context(
        model=model,
        labels=torch.arange(EXAMPLES) % len(CLASSES),
        classes=CLASSES,
        start={name: parameter.detach().clone() for name, parameter in trained.items()},
        trained=trained,
        groups=torch.tensor([0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
        group_names=("rare", "common"),
        label_inputs={"features": torch.randn(len(CLASSES), INPUTS, generator=torch.Generator().manual_seed(7))},
        pairs=tiny_pairs(),
        steps=10,
        head_names=frozenset({"head.weight", "head.bias"}),
    )


def tiny_step(model: Model, batch: Batch, *, progress: float = 0.0, seed: int = 0) -> Step:
    """A step whose reference is another model of the same kind."""
    with torch.no_grad():
        reference = tiny_model(5)(batch)
    generator = torch.Generator().manual_seed(seed)
    return Step(
        batch=batch, model=model, progress=progress, generator=generator, autocast=nullcontext, reference=reference,
        pairs=tiny_pairs(),
    )  # fmt: skip


def take(batch: Batch, order: Tensor) -> Batch:
    """The examples of `batch` in another order, or some of them."""

    def pick(value: Tensor | Mapping[str, Tensor] | None) -> Tensor | dict[str, Tensor] | None:
        if isinstance(value, Mapping):
            return {name: tensor[order] for name, tensor in value.items()}
        return None if value is None else value[order]

    return Batch(**{name: pick(value) for name, value in vars(batch).items()})  # type: ignore[arg-type]


def move(model: nn.Module, seed: int = 3, scale: float = 0.1) -> None:
    """Move every weight, as a step of training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)


def passes(model: Model, *, seed: int = 0, seen: list[Tensor] | None = None) -> Passes:
    """The closure of one step of cross-entropy; `seen` collects the weights at which it is called, end to end."""
    batch = tiny_batch(seed)

    def run(first: bool) -> tuple[Tensor, Step]:
        if seen is not None:
            seen.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
        torch.manual_seed(seed)
        model.zero_grad()
        generator = torch.Generator().manual_seed(seed)
        step = Step(batch=batch, model=model, progress=0.0, generator=generator, autocast=nullcontext)
        loss = F.cross_entropy(step.output.logits, batch.labels)
        loss.backward()
        return loss.detach(), step

    return Passes(run)
