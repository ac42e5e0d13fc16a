"""What every strategy that tunes while one model trains promises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from command_line import one_thread
from conftest import examples
from surefoot import Recipe
from surefoot.errors import DataError, RecipeError, RunError
from surefoot.models.model import Model
from surefoot.registry import get, methods
from surefoot.search.strategy import Strategy, Tuning
from surefoot.search.tuned import fit_with
from surefoot.tune.build import build
from surefoot.tune.checkpoint import Checkpoint
from surefoot.tune.fit import Fit
from surefoot.tune.run import Run

STRATEGIES = [method.name for method in methods("strategy")]
TUNING = [name for name in STRATEGIES if issubclass(get("strategy", name).make, Tuning)]
#: Settings that cost less than the defaults.
CHEAP = {"implicit_differentiation": {"terms": 3, "batch": 16}}
RECIPE = Recipe(epochs=2, batch_size=8, precision="float32", optimizer={"name": "adamw", "lr": 1e-3})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def fitted(name: str, model: Model, *, seed: int = 0, **options: object):  # type: ignore[no-untyped-def]
    judge = {"shop": examples(24, 7), "news": examples(16, 8)}
    return build("strategy", {"name": name, **CHEAP.get(name, {}), **options}).fit(
        RECIPE, model, examples(48), judge, seed=seed
    )


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
def test_a_killed_one_goes_on_as_if_nothing_had_been(name: str, tiny_bert: Model, tmp_path: Path) -> None:
    whole = fitted(name, tiny_bert)
    model = whole.run()
    killed = fitted(name, tiny_bert)
    checkpoint = Checkpoint(tmp_path / "checkpoint", every=math.inf)
    with pytest.raises(KeyboardInterrupt):
        killed.run(checkpoint=Stopping(checkpoint, 9))
    again = fitted(name, tiny_bert)
    resumed = again.run(checkpoint=checkpoint)
    assert again.history.resumed_at == 9
    assert same(model, resumed)
    assert whole.moved == again.moved


class Stopping:
    """A checkpoint that is saved after a step, and then the process is killed."""

    def __init__(self, checkpoint: Checkpoint, step: int) -> None:
        self.checkpoint, self.step = checkpoint, step

    def restore(self, fit: Fit) -> int:
        return self.checkpoint.restore(fit)

    def tick(self, fit: Fit) -> None:
        if fit.history.steps == self.step:
            self.checkpoint.save(fit)
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", TUNING)
def test_with_a_folder_it_is_a_run_and_opens_again(name: str, tiny_bert: Model, tmp_path: Path) -> None:
    judge, out = {"shop": examples(24, 7)}, tmp_path / "run"
    first = fit_with(name, RECIPE, tiny_bert, examples(48), judge, out=out)
    assert first.moved
    kept = json.loads((out / "hyperparameters.json").read_text())
    assert kept["strategy"] == name
    assert kept["moved"] == first.moved
    again = fit_with(name, RECIPE, tiny_bert, examples(48), judge, out=out)
    assert same(first.run.model, again.run.model)
    assert again.moved == first.moved
    assert same(first.run.model, Run.load(out).model)
    with pytest.raises(RunError, match="it differs in judge"):
        fit_with(name, RECIPE, tiny_bert, examples(48), {"shop": examples(24, 9)}, out=out)
    with pytest.raises(RunError, match="it differs in strategy"):
        fit_with({"name": name, "lr": 0.5}, RECIPE, tiny_bert, examples(48), judge, out=out)


def test_strengths_of_single_weights_are_kept_as_tensors(tiny_bert: Model, tmp_path: Path) -> None:
    strategy = {"name": "implicit_differentiation", "tunes": "weights", "terms": 1}
    recipe = RECIPE.changed(epochs=1, selection={"name": "top_layers", "k": 1})
    found = fit_with(strategy, recipe, tiny_bert, examples(48), {"shop": examples(24, 7)}, out=tmp_path / "run")
    kept = load_file(tmp_path / "run" / "hyperparameters.safetensors")
    assert kept.keys() == found.hyperparameters["strength"].keys()
    assert all(torch.equal(value, kept[name]) for name, value in found.hyperparameters["strength"].items())


@pytest.mark.parametrize("name", TUNING)
def test_it_says_what_it_needs(name: str, tiny_bert: Model) -> None:
    with pytest.raises(DataError, match="needs a judge"):
        build("strategy", name).fit(RECIPE, tiny_bert, examples(16), {})
    unlabelled = {"shop": examples(8).__class__(["a"], None, ())}
    with pytest.raises(DataError, match="no labelled examples"):
        build("strategy", name).fit(RECIPE, tiny_bert, examples(16), unlabelled)
