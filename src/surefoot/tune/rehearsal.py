"""What a selection sees of the training that it is made for: some examples, or a whole training before the training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from surefoot.tune.seeds import SELECTION, seed_of
from surefoot.tune.step import Batch

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.fit import Fit
    from surefoot.tune.selection import Selection


class Rehearsal:
    """A `Training` of a Fit whose head has started and that has not chosen yet what trains.

    Both ways of looking depend on the seed alone, so that a resumed training sees what the killed one saw.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def batches(self, examples: int, *, size: int = 32) -> Iterator[Batch]:
        """Batches of at most `size` of so many training examples (all, if there are fewer), drawn with the seed."""
        fit = self._fit
        order = np.random.default_rng(seed_of(fit.seed, SELECTION)).permutation(len(fit.train_set))[:examples]
        for first in range(0, len(order), size):
            index = order[first : first + size]
            where = torch.from_numpy(index)
            yield Batch(
                inputs={name: value.to(fit.device) for name, value in fit.encoded.collate(index).items()},
                labels=fit.labels[where].to(fit.device),
                index=where.to(fit.device),
            )

    @property
    def examples(self) -> int:
        """How many training examples there are."""
        return len(self._fit.train_set)

    def rehearse(self, selection: Selection) -> Model:
        """The same training of a copy of the model through another selection, to its end, without what follows it."""
        fit = self._fit
        recipe = fit.recipe.changed(head="keep", after=[])
        again = type(fit)(recipe, fit.model, fit.train_set, seed=fit.seed, progress=fit.progress, selection=selection)
        return again.run()
