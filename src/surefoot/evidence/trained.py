"""A model that an arm has trained, with what its quantities are measured from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from surefoot.data.examples import Examples, concatenate
from surefoot.models.additions import remove
from surefoot.models.model import Model
from surefoot.models.precision import autocast, resolve
from surefoot.models.predict import Prediction, encode_inputs, predict
from surefoot.models.prefix import cached_prefix
from surefoot.tune.fit import Fit

if TYPE_CHECKING:
    from surefoot.evidence.classification import World


@dataclass
class Trained:
    """`fit`: the (last) training; `start`: weights before it, by name; `depth`: how many lowest layers stayed as they
    were; `predicted`: on every test and on `train`; `seconds`: computing time of the training from nothing."""

    world: World
    fit: Fit
    model: Model
    start: dict[str, Tensor]
    depth: int
    predicted: dict[str, Prediction]
    seconds: float

    @cached_property
    def at_start(self) -> dict[str, Prediction]:
        """The same predictions by the model as it was before training, with the head that training began with."""
        from copy import deepcopy

        before = deepcopy(self.model)
        remove(before)
        before.load_state_dict(self.start)
        before.normalize = self.world.model.normalize
        sets = {**self.world.tests, "train": self.world.train}
        return predictions(before, sets, depth=len(before.layers) + 1 if before.layers else 0)

    @property
    def home(self) -> Prediction:
        """On the test at home."""
        return self.predicted[self.world.home]

    @property
    def home_labels(self) -> np.ndarray:
        """(N,) of the test at home."""
        return np.asarray(self.world.tests[self.world.home].labels)

    @property
    def labels(self) -> np.ndarray:
        """(N,) of the training set, as they were given."""
        return np.asarray(self.world.train.labels)

    def moves(self) -> list[tuple[str, Tensor, Tensor]]:
        """(name, weight before, weight after) of every parameter that the pretrained model has."""
        known = [(name, each.detach()) for name, each in self.model.named_parameters() if name in self.start]
        return [(name, self.start[name], each) for name, each in known]


def predictions(model: Model, sets: Mapping[str, Examples], *, depth: int = 0) -> dict[str, Prediction]:
    """Features and logits of every set in one pass; the lowest `depth` layers must be the pretrained ones, and what
    they give is cached."""
    bare = [Examples(each.inputs, None, model.classes, each.modality, source=each.source) for each in sets.values()]
    together = concatenate(bare)
    encoded = encode_inputs(model, together.inputs, together.modality, source=together.source)
    prefix = None
    model.freeze(depth)
    try:
        if depth:
            dtype = resolve(model.precision, model.device)
            run = autocast(dtype, model.device)
            prefix = cached_prefix(model, encoded, depth=depth, dtype=dtype, autocast=run)
        whole = predict(model, encoded, prefix=prefix)
    finally:
        model.freeze(0)
    ends = np.cumsum([len(each) for each in sets.values()])[:-1]
    parts = zip(np.split(whole.features, ends), np.split(whole.logits, ends), strict=True)
    return {name: Prediction(*part) for name, part in zip(sets, parts, strict=True)}
