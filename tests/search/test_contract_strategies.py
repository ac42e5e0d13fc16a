"""What every strategy that tunes while one model trains promises."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from command_line import one_thread
from conftest import examples
from surefoot import Recipe
from surefoot.errors import DataError, RecipeError
from surefoot.models.model import Model
from surefoot.registry import get, methods
from surefoot.search.strategy import Strategy, Tuning
from surefoot.tune.build import build

STRATEGIES = [method.name for method in methods("strategy")]
TUNING = [name for name in STRATEGIES if issubclass(get("strategy", name).make, Tuning)]
RECIPE = Recipe(epochs=2, batch_size=8, precision="float32", optimizer={"name": "adamw", "lr": 1e-3})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def fitted(name: str, model: Model, *, seed: int = 0, **options: object):  # type: ignore[no-untyped-def]
    judge = {"shop": examples(24, 7), "news": examples(16, 8)}
    return build("strategy", {"name": name, **options}).fit(RECIPE, model, examples(48), judge, seed=seed)


def same(a: Model, b: Model) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("name", STRATEGIES)
def test_its_settings_and_their_ranges_are_known(name: str) -> None:
    made = build("strategy", name)
    assert isinstance(made, Strategy)
    for option, space in made.space().items():
        assert space.low < space.high
        assert hasattr(made, option)
    with pytest.raises(RecipeError, match="unknown option"):
        build("strategy", {"name": name, "no_such": 1})


@pytest.mark.parametrize("name", TUNING)
def test_it_trains_tunes_and_leaves_what_it_was_given_alone(name: str, tiny_bert: Model) -> None:
    before = {key: value.clone() for key, value in tiny_bert.state_dict().items()}
    fit = fitted(name, tiny_bert)
    model = fit.run()
    assert fit.moved, "no hyperparameter was moved"
    assert all(np.isfinite(list(row.values())).all() for row in fit.moved)
    assert fit.hyperparameters
    assert all(torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point())
    assert set(model.state_dict()) == set(before), "wrappers are folded away"
    assert all(torch.equal(value, before[key]) for key, value in tiny_bert.state_dict().items())
    assert model.classes == ("negative", "positive")


@pytest.mark.parametrize("name", TUNING)
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(name: str, tiny_bert: Model) -> None:
    first, second, other = (fitted(name, tiny_bert, seed=seed) for seed in (3, 3, 4))
    models = [each.run() for each in (first, second, other)]
    assert same(models[0], models[1])
    assert first.moved == second.moved
    assert not same(models[0], models[2])


@pytest.mark.parametrize("name", TUNING)
def test_it_says_what_it_needs(name: str, tiny_bert: Model) -> None:
    with pytest.raises(DataError, match="needs a judge"):
        build("strategy", name).fit(RECIPE, tiny_bert, examples(16), {})
    unlabelled = {"shop": examples(8).__class__(["a"], None, ())}
    with pytest.raises(DataError, match="no labelled examples"):
        build("strategy", name).fit(RECIPE, tiny_bert, examples(16), unlabelled)
