"""SetFit and FusionSent: beside scikit-learn and a plain slerp, and at the ends of the fusion."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from conftest import examples
from surefoot.data.examples import Examples
from surefoot.errors import DataError
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.tune.few_shot import LABELS, SETFIT, encoders, fused, fusionsent, setfit, with_probe
from surefoot.tune.recipe import Recipe

QUICK = {"epochs": 0.5, "optimizer": {"name": "adamw", "lr": 1e-3}, "precision": "float32"}
RECIPES: tuple[Recipe, Recipe] = (SETFIT.changed(**QUICK), LABELS.changed(**QUICK))


@pytest.fixture(scope="module")
def train() -> Examples:
    return examples(12, 5)


@pytest.fixture(scope="module")
def pair(tiny_bert: Model, train: Examples) -> tuple[Model, Model]:
    return encoders(tiny_bert, train, seed=3, recipes=RECIPES)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: each for name, each in model.state_dict().items() if not name.startswith("head.")}


def test_at_its_ends_the_fusion_is_one_of_the_two_to_the_bit(tiny_bert: Model, pair: tuple[Model, Model]) -> None:
    for t, one in ((0.0, pair[0]), (1.0, pair[1])):
        assert all(torch.equal(each, weights(one)[name]) for name, each in weights(fused(*pair, t=t)).items())
    assert any(not torch.equal(each, weights(tiny_bert)[name]) for name, each in weights(pair[1]).items())
    assert any(not torch.equal(each, weights(pair[1])[name]) for name, each in weights(pair[0]).items())


def test_the_fused_weights_are_slerp_in_float64(pair: tuple[Model, Model]) -> None:
    """The paper's formula, tensor by tensor, in numpy: a plain mean where the two are as good as parallel."""
    found = weights(fused(*pair))
    for name, each in found.items():
        a, b = (weights(model)[name].double().numpy().ravel() for model in pair)
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0)
        share = 0.5 if abs(cosine) > 0.9995 else np.sin(0.5 * np.arccos(cosine)) / np.sin(np.arccos(cosine))
        assert np.allclose(each.double().numpy().ravel(), share * (a + b), atol=1e-6)


def test_the_head_is_scikit_learns_on_the_trained_embeddings(tiny_bert: Model, train: Examples) -> None:
    """Logistic regression fitted apart on the features gives the same probabilities; the encoder has moved."""
    before = {name: each.clone() for name, each in tiny_bert.state_dict().items()}
    model = setfit(tiny_bert, train, seed=3, recipe=RECIPES[0])
    tests = examples(20, 9)
    seen, asked = (predict(model, encode_inputs(model, each.inputs, "text")) for each in (train, tests))
    apart = LogisticRegression(max_iter=3000).fit(seen.features.astype(np.float64), train.labels)
    ours = torch.from_numpy(asked.logits).double().softmax(1).numpy()
    assert np.allclose(ours, apart.predict_proba(asked.features.astype(np.float64)), atol=1e-4)
    assert all(torch.equal(each, before[name]) for name, each in tiny_bert.state_dict().items())
    probe = predict(with_probe(deepcopy(tiny_bert), train), encode_inputs(tiny_bert, tests.inputs, "text"))
    assert not np.allclose(probe.features, asked.features)


def test_the_same_seed_gives_the_same(tiny_bert: Model, train: Examples) -> None:
    one, two = (fusionsent(tiny_bert, train, seed=1, recipes=RECIPES) for _ in range(2))
    assert all(torch.equal(each, two.state_dict()[name]) for name, each in one.state_dict().items())
    assert one.classes == train.classes


def test_data_that_are_no_labelled_texts_are_refused(tiny_bert: Model) -> None:
    pixels = Examples(np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1]), ("a", "b"), modality="features")
    with pytest.raises(DataError, match="pairs are made of texts"):
        setfit(tiny_bert, pixels)
    with pytest.raises(DataError, match="at least two"):
        setfit(tiny_bert, examples(8, 1).take(np.flatnonzero(np.asarray(examples(8, 1).labels) == 0)))
