"""T3A: the head's rows become means of what the stream has shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.adapt.adapter import TestTimeAdapter
from surefoot.registry import Paper, register
from surefoot.tune.selections import whole
from surefoot.tune.step import Batch, Output


@register(
    "t3a",
    kind="test_time_adapter",
    family="prototypes",
    papers=[
        Paper(
            "Test-Time Classifier Adjustment Module for Model-Agnostic Domain Generalization",
            "Iwasawa and Matsuo",
            2021,
            link="https://openreview.net/forum?id=e_yvNqkJKAW",
        )
    ],
)
class T3A(TestTimeAdapter):
    """Logits z_c = f . w_c, w_c the direction of the sum of the unit features that were surely taken for class c.

    Supports begin as the head's rows, each as an example of the class that the head gives it; each batch's features f
    (B, D) join them under the head's predictions, and of each class the `supports` with the lowest entropy of the head's
    prediction stay. w_c = sum_s s / ||s|| over the class's supports, made a unit vector. No gradient, no norm layer. The
    head's bias counts for predictions and entropies alone, as in the authors' code. A class without supports gets 0.

    supports: 100 a class, the largest number of the authors' grid (1, 5, 20, 50, 100, all), of which they choose by
    validation; 0 leaves the head as it is. Gives logits (B, C), at most ||f||: of another scale than the head's.
    Raises RecipeError if supports is below 0. Reference: Iwasawa and Matsuo 2021, matsuolab/T3A.
    """

    still: ClassVar[dict[str, Any]] = {"supports": 0}
    stays = True

    def __init__(self, *, supports: int = 100) -> None:
        self.supports = whole("supports", supports)

    @torch.no_grad()
    def prepare(self) -> None:
        head = self.model.head
        self.kept = head.weight.detach().clone()
        self.classes, self.entropies = _predicted(head(self.kept))

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Output:
        found = self.output(batch)
        if not self.supports:
            return found
        classes, entropies = _predicted(found.logits)
        self.kept = torch.cat([self.kept, found.features])
        self.classes, self.entropies = torch.cat([self.classes, classes]), torch.cat([self.entropies, entropies])
        self._drop()
        count = len(self.model.classes)
        sums = self.kept.new_zeros(count, self.kept.shape[1])
        sums.index_add_(0, self.classes, F.normalize(self.kept, dim=1))
        return replace(found, logits=found.features @ F.normalize(sums, dim=1).T)

    def _drop(self) -> None:
        """Keep the surest of each class."""
        chosen = []
        for label in range(len(self.model.classes)):
            own = (self.classes == label).nonzero().flatten()
            chosen.append(own[self.entropies[own].argsort(stable=True)][: self.supports])
        index = torch.cat(chosen)
        self.kept, self.classes, self.entropies = self.kept[index], self.classes[index], self.entropies[index]


def _predicted(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Class (B,) and entropy (B,) of each prediction."""
    log_p = logits.log_softmax(1)
    return logits.argmax(1), -(log_p.exp() * log_p).sum(1)
