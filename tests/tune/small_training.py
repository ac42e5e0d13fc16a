"""A training of two steps on one batch, in memory: what selections that look at data are shown, and what trains them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import nn

from surefoot.models.model import Model
from surefoot.tune.optimizers.adamw import AdamW
from surefoot.tune.selection import Selection
from surefoot.tune.step import Batch


def train(model: Model, batch: Batch, *, steps: int = 2, lr: float = 1e-2) -> None:
    """Steps of AdamW on what trains, all on the one batch."""
    model.train()
    optimizer = AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=lr)
    for step in range(steps):
        torch.manual_seed(step)

        def closure(first: bool) -> torch.Tensor:
            model.zero_grad()
            loss = nn.functional.cross_entropy(model(batch).logits, batch.labels)
            loss.backward()
            return loss.detach()

        optimizer.step(closure)


class SmallTraining:
    """A `Training` of the model on one batch."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model = model
        self.batch = batch

    def batches(self, examples: int, *, size: int = 32) -> Iterator[Batch]:
        for index in torch.arange(min(examples, len(self.batch))).split(size):
            inputs = {name: value[index] for name, value in self.batch.inputs.items()}
            yield Batch(inputs=inputs, labels=self.batch.labels[index], index=index)

    @property
    def examples(self) -> int:
        return len(self.batch)

    def rehearse(self, selection: Selection) -> Model:
        model = deepcopy(self.model)
        choose(selection, model, self.batch)
        train(model, self.batch)
        selection.finish(model)
        return model


def choose(selection: Selection, model: Model, batch: Batch, seed: int = 0) -> None:
    """`setup` and `apply`, each with the random state that the training loop would give it."""
    torch.manual_seed(seed)
    selection.setup(model, SmallTraining(model, batch))
    torch.manual_seed(seed)
    selection.apply(model)
