"""LAME: neighbours in a batch agree."""

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
    "lame",
    kind="test_time_adapter",
    family="neighbours",
    papers=[Paper("Parameter-free Online Test-time Adaptation", "Boudiaf et al.", 2022, arxiv="2201.05718")],
)
class LAME(TestTimeAdapter):
    """Answers of a batch that keep to the model's probabilities and to each other where features are near.

    argmin_Y sum_i KL(y_i || p_i) - sum_ij w_ij y_i . y_j over probabilities Y (B, C), by y_i <- softmax(log p_i +
    sum_j w_ij y_j) from y = p, at most `steps` times, until the energy moves by less than 1e-8 of itself. p (B, C): the
    model's, 1e-10 added; w_ij is 1 where j is among the `neighbours` nearest of i by the distance of unit features, else
    0, not made symmetric. Nothing is remembered between batches and no weight moves.

    neighbours: 5 and the nearest-neighbour kernel, what the authors' tuning settled on; 0 is the frozen model. steps: 100,
    theirs. It is meant for streams in which classes come in runs. Gives log y (B, C); a batch of one has no neighbours.
    Raises RecipeError for options out of range. Reference: Boudiaf et al. 2022, fiveai/LAME.
    """

    still: ClassVar[dict[str, Any]] = {"neighbours": 0}
    stays = True

    def __init__(self, *, neighbours: int = 5, steps: int = 100) -> None:
        self.neighbours, self.steps = whole("neighbours", neighbours), whole("steps", steps, least=1)

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Output:
        found = self.output(batch)
        if not self.neighbours or len(batch) == 1:
            return found
        log_p = torch.log(found.logits.softmax(1) + 1e-10)
        return replace(found, logits=settled(log_p, self._kernel(found.features), steps=self.steps))

    def _kernel(self, features: Tensor) -> Tensor:
        """(B, B): 1 for the nearest neighbours of each row."""
        unit = F.normalize(features, dim=1)
        distance = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")
        count = min(self.neighbours + 1, len(unit))
        # The nearest is the example itself; where others lie in the same place any of them may be left out for it.
        nearest = distance.topk(count, dim=1, largest=False).indices[:, 1:]
        return torch.zeros_like(distance).scatter_(1, nearest, 1.0)


def settled(log_p: Tensor, kernel: Tensor, *, steps: int = 100) -> Tensor:
    """log y (B, C) where the iteration ends, from log p (B, C) and the kernel w (B, B)."""
    before, y = float("inf"), log_p.softmax(1)
    log_y = log_p
    for step in range(steps):
        pull = kernel @ y
        log_y = (log_p + pull).log_softmax(1)
        y = log_y.exp()
        energy = float((-log_p * y - pull * y + y * log_y.clamp(min=-46.0)).sum())
        if step > 1 and abs(energy - before) <= 1e-8 * abs(before):
            break
        before = energy
    return log_y
