"""Where a model's linear head starts."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.models.precision import autocast, resolve
from surefoot.models.predict import predict
from surefoot.models.prefix import cached_prefix
from surefoot.models.probe import fit_probe
from surefoot.models.processor import Encoded
from surefoot.progress import Progress
from surefoot.tune.recipe import Recipe
from surefoot.tune.seeds import HEAD, seed_of


def start_head(
    model: Model, recipe: Recipe, train: Examples, encoded: Encoded, *, seed: int, progress: Progress
) -> None:
    """Give `model` the classes of `train` and the head that `recipe.head` names.

    Raises RecipeError for `keep` where the model's own classes are others.
    """
    if recipe.head == "keep":
        if model.classes != train.classes:
            raise RecipeError(
                f"head: keep needs the model's own classes {list(model.classes)}, and {train.source} has {list(train.classes)}"
            )
        return
    model.set_classes(train.classes)  # a head of zeros
    if recipe.head == "random":
        torch.manual_seed(seed_of(seed, HEAD))
        model.head.reset_parameters()
    elif recipe.head == "probe":
        fit_probe(model, _features(model, recipe, encoded, progress), np.asarray(train.labels), weight=train.weight)


def _features(model: Model, recipe: Recipe, encoded: Encoded, progress: Progress) -> np.ndarray:
    """What the head will see (N, D): kept between trainings, like every output of frozen layers."""
    dtype = resolve(recipe.precision, model.device)
    run = autocast(dtype, model.device)
    advance = progress.start("features", len(encoded.lengths))
    whole = len(model.layers) + 1
    cached = cached_prefix(model, encoded, depth=whole, dtype=dtype, autocast=run, advance=advance)
    if cached is None:  # too many to keep
        return predict(model, encoded, precision=recipe.precision, advance=advance).features
    return (nn.functional.normalize(cached.states, dim=-1) if model.normalize else cached.states).numpy()
