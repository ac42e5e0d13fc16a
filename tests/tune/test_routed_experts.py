"""Feed-forward experts that a text's first word chooses."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import surefoot
from surefoot.data.domains import marked
from surefoot.data.examples import Examples
from surefoot.errors import DataError, RecipeError
from surefoot.models.additions import parts
from surefoot.models.predict import encode_inputs, predict
from surefoot.models.save import save
from surefoot.tune.recipe import Recipe
from surefoot.tune.selections.routed_experts import RoutedExperts

TEXTS = ["science the cell divides", "news the cell was found empty", "the cell divides", "news science is cheap"]
#: Which expert, by hand.
ROUTE = [0, 1, -1, 1]


@pytest.fixture(scope="module")
def minilm():
    return surefoot.load("minilm", max_length=32)


def vectors(model, texts=TEXTS):
    return predict(model, encode_inputs(model, list(texts), "text"), precision="float32").features


def shaken(model, **options):
    """With experts that went their own ways, as a long training would leave them."""
    model = deepcopy(model)
    RoutedExperts(**options).apply(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for part in parts(model).values():
            for parameter in part.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_at_the_start_they_are_the_pretrained_model(minilm):
    """Limit: copies that nobody has trained, to the rounding of products of fewer rows."""
    model = deepcopy(minilm)
    RoutedExperts(layers=2).apply(model)
    np.testing.assert_allclose(vectors(model), vectors(minilm), atol=2e-6)
    trains = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all(".experts." in name or name.startswith("head.") for name in trains)
    assert sum(name.endswith("experts.weight") for name in trains) == 4


def test_each_text_runs_through_the_experts_of_its_first_word(minilm):
    """Against dense models, each with one domain's experts written into its own feed-forward layers."""
    model = shaken(minilm)
    found = vectors(model)
    for expert in (-1, 0, 1):
        dense = deepcopy(minilm)
        if expert >= 0:
            with torch.no_grad():
                for name, part in parts(model).items():
                    if name.endswith(".experts"):
                        layer = dense.get_submodule(name.removesuffix(".experts"))
                        assert isinstance(layer, nn.Linear)
                        layer.weight.copy_(part.weight[expert])
                        layer.bias.copy_(part.bias[expert])
        rows = [i for i, route in enumerate(ROUTE) if route == expert]
        np.testing.assert_allclose(found[rows], vectors(dense)[rows], atol=1e-5)
    assert np.abs(found - vectors(minilm))[[0, 1, 3]].max() > 1e-3


def test_a_dense_layer_computes_what_has_no_expert_alone(minilm):
    """The paper's point: a text costs as much as in the dense model."""
    model, rows = shaken(minilm, layers=1), []
    layer = model.layers[-1].intermediate.dense
    layer.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    vectors(model)
    assert sum(rows) == 1


def test_training_moves_the_experts_of_the_domains_that_were_seen(minilm, tmp_path):
    """And the saved model answers as the trained one."""
    train = Examples(
        ["science " + text for text in ("atoms", "stars", "cells", "waves")], np.array([0, 1, 0, 1]), ("a", "b")
    )
    recipe = Recipe(
        head="random",
        selection={"name": "routed_experts", "layers": 1},
        epochs=1,
        batch_size=2,
        optimizer={"name": "adamw", "weight_decay": 0.0},
    )
    model = recipe.fit(minilm, train).model
    experts = model.layers[-1].output.dense.experts
    pretrained = minilm.layers[-1].output.dense.weight
    assert torch.equal(experts.weight[1], pretrained)
    assert not torch.equal(experts.weight[0], pretrained)
    save(model, tmp_path / "model")
    np.testing.assert_allclose(vectors(surefoot.load(tmp_path / "model")), vectors(model), atol=1e-6)


def test_domains_are_written_before_texts_and_their_partners():
    pairs = Examples(["q"], None, (), domain=np.array(["law"]), positive=np.array(["a"], dtype=object), source="file")
    found = marked(pairs)
    assert found.inputs == ["law q"]
    assert found.positive.tolist() == ["law a"]
    with pytest.raises(DataError, match="file: texts with a column `domain`"):
        marked(replace(pairs, domain=None))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"domains": ["news"]}, "two words"),
        ({"domains": "news"}, "two words"),
        ({"domains": ["news", "news"]}, "twice"),
        ({"domains": ["news", True]}, "two words"),
        ({"layers": 0}, "layers"),
    ],
)
def test_options_that_cannot_work(options, says):
    with pytest.raises(RecipeError, match=says):
        RoutedExperts(**options)


@pytest.mark.parametrize(
    ("domains", "says"), [(["news", "antidisestablishmentarianism"], "tokens"), (["News", "news"], "one token")]
)
def test_words_that_a_model_cannot_go_by(minilm, domains, says):
    with pytest.raises(RecipeError, match=says):
        RoutedExperts(domains=domains).apply(deepcopy(minilm))
