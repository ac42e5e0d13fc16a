"""The learning-rate range test: on a quadratic in closed form, on a small model, and through the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from command_line import one_thread, refused, surefoot
from conftest import examples, sentences
from surefoot import Recipe
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError, SurefootError
from surefoot.models.model import Model
from surefoot.search.lr_range import MEMORY, lr_range, read_curve

SMALL = Recipe(head="zero", batch_size=16, precision="float32", optimizer={"name": "sgd", "momentum": 0.0})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def test_the_suggestion_is_stable_on_a_quadratic() -> None:
    """Closed form: gradient descent on h w^2 / 2 shrinks w while the rate is below 2 / h and blows it up beyond. The
    running mean is behind, so its lowest point lies beyond 2 / h; a tenth of it must not."""
    for curvature in (0.1, 1.0, 10.0):
        rates = np.geomspace(1e-4, 10, 200) / curvature
        factors = np.concatenate([[1.0], np.cumprod(1 - rates[:-1] * curvature)])
        losses = 0.5 * curvature * factors**2
        assert rates[losses.argmin()] == pytest.approx(2 / curvature, rel=0.1)
        found = read_curve(rates, losses)
        assert found.suggestion < 2 / curvature < found.lowest
        assert found.steepest < 2 / curvature


def test_the_running_mean_is_the_formulas() -> None:
    """Against m_t written out as a weighted sum, in float64."""
    losses = np.random.default_rng(0).random(40)
    found = read_curve(np.geomspace(1e-4, 1, 40), losses)
    weights = [(1 - MEMORY) * MEMORY ** (29 - s) for s in range(30)]
    assert found.smoothed[29] == pytest.approx(np.dot(weights, losses[:30]) / (1 - MEMORY**30), rel=1e-12)


def blobs(count: int = 160) -> tuple[Model, Examples]:
    """Two clouds of points and a linear model."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    inputs = (rng.normal(size=(count, 4)) + 2 * labels[:, None]).astype(np.float32)
    data = Examples(inputs, labels, ("low", "high"), modality="features", source="blobs")
    return Model.from_module(nn.Identity(), dim=4, classes=data.classes), data


def test_it_finds_a_rate_that_trains_and_one_that_does_not() -> None:
    model, data = blobs()
    found = lr_range(SMALL, model, data, low=1e-4, high=1e4, steps=80)
    assert found.diverged
    assert len(found.rates) == len(found.losses) < 80
    assert 0.01 < found.lowest < 100
    final = {}
    for rate in (found.suggestion, 1e4):
        recipe = SMALL.changed(epochs=4, optimizer={"name": "sgd", "momentum": 0.0, "lr": rate})
        final[rate] = np.mean(recipe.fit(model, data).history.losses[-5:])
    assert final[found.suggestion] < 0.5 < final[1e4]


def test_it_leaves_the_model_alone_and_is_the_same_again(tiny_bert: Model) -> None:
    before = {name: value.clone() for name, value in tiny_bert.state_dict().items()}
    first, second = (
        lr_range(Recipe(precision="float32"), tiny_bert, examples(60), high=0.1, steps=12) for _ in range(2)
    )
    assert all(torch.equal(value, before[name]) for name, value in tiny_bert.state_dict().items())
    assert first.as_json() == second.as_json()
    assert not first.diverged
    assert first.rates[0] == pytest.approx(1e-7)
    assert first.rates[-1] == pytest.approx(0.1)


def test_bad_input() -> None:
    model, data = blobs()
    with pytest.raises(RecipeError, match="give a higher `high`"):
        lr_range(SMALL, model, data, low=0.1, high=0.1)
    with pytest.raises(RecipeError, match="at least 10"):
        lr_range(SMALL, model, data, steps=5)
    with pytest.raises(SurefootError, match=r"begin lower \(`low`\)"):
        read_curve(np.geomspace(1, 10, 4), np.ones(4), diverged=True)


def test_the_command(bert_folder: Path, tmp_path: Path) -> None:
    texts, labels = sentences(48, 3)
    rows = [f"{text},{('bad', 'good')[label]}" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    argv = ["lr-range", "--model", bert_folder, "--train", tmp_path / "train.csv", "--steps", 12]
    told = json.loads(surefoot(*argv, "--json").stdout)
    assert set(told) == {"suggestion", "lowest", "steepest", "diverged", "rates", "losses", "smoothed"}
    shown = surefoot(*argv).stdout
    assert f"suggestion       {told['suggestion']:.1e}" in shown
    assert shown.count("o") > 1
    assert "learning rate" in shown
    assert [each.name for each in tmp_path.iterdir()] == ["train.csv"], "nothing is kept"
    refused([*argv, "--low", 2], ["`high` is 1 and `low` is 2"])
