"""Classification from a few examples a class by an encoder that learns from pairs of them: SetFit and FusionSent.

    model = fusionsent(load("minilm"), train, seed=0)     # a classifier like any other

The same can be had step by step on the command line: `surefoot pairs setfit`, `surefoot tune --task embedding`, the same
with `label_description`, `surefoot merge --method slerp`, then the recipe `linear_probe` on what came out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from surefoot.data.check import check_training
from surefoot.data.examples import Examples
from surefoot.data.pairs.label_description import LabelDescriptions
from surefoot.data.pairs.maker import PairMaker
from surefoot.data.pairs.setfit import SetFitPairs
from surefoot.data.records import Records
from surefoot.errors import DataError
from surefoot.merge.slerp import SLERP
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.models.probe import fit_probe
from surefoot.tune.fit import Fit
from surefoot.tune.recipe import Recipe

#: Learning rate and warm-up are the defaults of SetFit's library for the encoder.
_COMMON: Mapping[str, Any] = {"optimizer": {"name": "adamw", "lr": 2e-5}, "warmup": 0.1, "selection": "all"}
SETFIT = Recipe(name="setfit", objectives={"cosine_similarity": 1.0}, epochs=1, batch_size=16, **_COMMON)
#: FusionSent's code has batches of one; of sixteen it takes as many examples and a tenth of the time.
LABELS = Recipe(
    name="label_description", objectives={"contrastive_pairs": 1.0}, epochs=3, batch_size=16, **_COMMON
)  # fmt: skip


def setfit(model: Model, train: Examples, *, seed: int = 0, recipe: Recipe = SETFIT) -> Model:
    """SetFit: the encoder learns from pairs of examples, then logistic regression on its embeddings.

    (1) mean (cos(f(x_i), f(x_j)) - [y_i = y_j])^2 over pairs of the labelled examples (`data/pairs/setfit.py`, oversampled);
    (2) a linear head on the frozen f, L2-regularised (C = 1, scikit-learn's default). `model` itself is not changed.
    Raises DataError for data that are no labelled texts of two classes. Reference: Tunstall et al. 2022.
    """
    return with_probe(_trained(model, SetFitPairs(), train, seed, recipe), train)


def label_descriptions(model: Model, train: Examples, *, seed: int = 0, recipe: Recipe = LABELS) -> Model:
    """FusionSent's second encoder alone: texts are drawn to the description of their label and away from all others, then
    logistic regression. Described by `train.label_texts`, else by the classes' names. Raises what `setfit` does."""
    return with_probe(_trained(model, LabelDescriptions(), train, seed, recipe), train)


def fusionsent(
    model: Model,
    train: Examples,
    *,
    seed: int = 0,
    t: float = 0.5,
    recipes: tuple[Recipe, Recipe] = (SETFIT, LABELS),
) -> Model:
    """FusionSent: both encoders from one start, fused weight by weight on the great circle, then logistic regression.

    theta = slerp(theta_setfit, theta_labels, t), tensor by tensor (`merge/slerp.py`); the head is fitted to the fused
    encoder. t: 0.5; 0 is `setfit` and 1 `label_descriptions`. Costs two trainings, and one encoder in use. The authors'
    code classifies by several labels at once, one head a label; here classes exclude each other. Raises RecipeError for t
    outside [0, 1], and what `setfit` does. Reference: Schopf et al. 2024, section 3.
    """
    return with_probe(fused(*encoders(model, train, seed=seed, recipes=recipes), t=t), train)


def encoders(
    model: Model, train: Examples, *, seed: int = 0, recipes: tuple[Recipe, Recipe] = (SETFIT, LABELS)
) -> tuple[Model, Model]:
    """The two that FusionSent fuses, without heads: trained on pairs of examples, and on examples with descriptions."""
    makers = (SetFitPairs(), LabelDescriptions())
    first, second = (_trained(model, maker, train, seed, recipe) for maker, recipe in zip(makers, recipes, strict=True))
    return first, second


def fused(first: Model, second: Model, *, t: float = 0.5) -> Model:
    """A model whose weights lie between those of the two, tensor by tensor on the great circle."""
    found = deepcopy(first)
    found.load_state_dict(SLERP(t=t)([first.state_dict(), second.state_dict()], None))
    return found


def with_probe(model: Model, train: Examples) -> Model:
    """The model with a head fitted to `train` on its embeddings as they are."""
    model.set_classes(train.classes)
    encoded = encode_inputs(model, train.inputs, train.modality, source=train.source)
    fit_probe(model, predict(model, encoded).features, np.asarray(train.labels))
    return model


def _trained(model: Model, maker: PairMaker, train: Examples, seed: int, recipe: Recipe) -> Model:
    check_training(train)
    if train.modality != "text":
        raise DataError(f"{train.source} holds {train.modality}: pairs are made of texts")
    pairs = pairs_of(maker, train, seed=seed)
    bare = deepcopy(model)
    bare.set_classes(())
    return Fit(recipe, bare, pairs, seed=seed).run()


def pairs_of(maker: PairMaker, train: Examples, *, seed: int = 0) -> Examples:
    """What a maker makes of labelled examples, as training data."""
    assert train.labels is not None
    described: Sequence[str] = train.label_texts or [name.replace("_", " ") for name in train.classes]
    rows = [
        {"text": text, "label": train.classes[label], "description": described[label]}
        for text, label in zip(train.inputs, train.labels, strict=True)
    ]
    made = list(maker(Records(rows), seed=seed))
    return Examples(
        [pair.anchor for pair in made],
        None,
        (),
        positive=np.array([pair.positive for pair in made], dtype=object),
        score=np.array([pair.score for pair in made], dtype=np.float64),
        source=f"pairs of {train.source}",
    )
