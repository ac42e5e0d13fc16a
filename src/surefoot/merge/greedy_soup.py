"""Greedy soup: average in what does not hurt on held-out data, the best model first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from surefoot.merge.combine import Weights
from surefoot.merge.fit import Fit, Runner, Seen, floats
from surefoot.merge.uniform_soup import PAPER
from surefoot.models.model import Model
from surefoot.progress import Progress, Silent
from surefoot.registry import register
from surefoot.tune.selections import whole


@register("greedy_soup", kind="merge", family="averaging", papers=[PAPER])
class GreedySoup(Fit):
    """theta = mean of the members that were let in: in order of their accuracy on held-out data, each enters if the mean
    with it is at least as accurate as the mean without it.

    Accuracy is the mean over the judge's sets, of a model with its head; so the soup is never worse there than the best
    single model. Ties go to the model that was named first. Needs two models or more of one task; the base takes no
    part. `members_` holds the numbers of those that are in, `accuracies_` those of the single models.

    size: how many are let in at most, all where None; 1 gives the best single model. Raises RecipeError for a `size`
    below 1, or before `fit`. Reference: Wortsman et al. 2022, recipe 1; mlfoundations/model-soups.

    >>> GreedySoup().needs_base
    False
    """

    sees = "judge"
    needs_base = False
    least = 2

    def __init__(self, *, size: int | None = None) -> None:
        self.size = None if size is None else whole("size", size, least=1)
        self.members_: list[int] | None = None
        self.accuracies_: list[float] = []
        self.accuracy_: float | None = None

    def fit(
        self,
        model: Model,
        checkpoints: Sequence[Weights],
        base: Weights | None,
        seen: Sequence[Seen],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        run = Runner(model, checkpoints, None, seen)
        advance = (progress or Silent()).start("soup", 2 * len(checkpoints) - 1)

        def accuracy(members: Sequence[int]) -> float:
            advance(1)
            return run.accuracy(_mean([checkpoints[each] for each in members]), seen)

        self.accuracies_ = [accuracy([number]) for number in range(len(checkpoints))]
        order = sorted(range(len(checkpoints)), key=lambda number: -self.accuracies_[number])
        members, best = order[:1], self.accuracies_[order[0]]
        for number in order[1:]:
            if len(members) == self.size:
                break
            found = accuracy([*members, number])
            if found >= best:
                members, best = [*members, number], found
        self.members_, self.accuracy_ = members, best

    def merged(self, checkpoints: Sequence[Weights], base: Weights | None) -> dict[str, Tensor]:
        assert self.members_ is not None
        return _mean([checkpoints[each] for each in self.members_])

    def facts(self) -> dict[str, Any]:
        return {"members": self.members_, "judge_accuracy": self.accuracy_, "single": self.accuracies_}


def _mean(checkpoints: Sequence[Weights]) -> dict[str, Tensor]:
    first = checkpoints[0]
    if len(checkpoints) == 1:
        return dict(first)
    known = set(floats(first))
    return {
        name: torch.stack([each[name] for each in checkpoints]).mean(0) if name in known else value
        for name, value in first.items()
    }
