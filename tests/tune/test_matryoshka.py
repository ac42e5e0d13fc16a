"""Nested objectives against sentence-transformers' losses and the papers' formulas, on a BERT of three layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_transformer import WIDTH, context, step_of, text_batch, text_model
from torch import Tensor
from torch.nn import functional as F

from surefoot.embed.encoder import Encoder
from surefoot.errors import ModelError, RecipeError
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.models.shallow import first_layers
from surefoot.registry import get
from surefoot.tune.objective import Objective
from surefoot.tune.step import Step

INNER = {"name": "infonce", "mask_duplicates": False}


def made(name: str, model: Model, **options: object) -> tuple[Objective, Step]:
    objective: Objective = get("objective", name).make(inner=INNER, **options)
    objective.setup(context(model))
    return objective, step_of(model, text_batch(), needs=objective.needs | {"hidden_states"})


def states(step: Step) -> list[list[Tensor]]:
    """Pooled states of every layer, input embeddings first, of anchors, positives and negatives, by transformers itself."""
    found = []
    for batch in (step.batch, *(step.pairs.batch(name, step.batch.index) for name in step.pairs.encoded)):
        inputs = {name: value for name, value in batch.inputs.items() if name != "pool_mask"}
        hidden = step.model.backbone(**inputs, output_hidden_states=True).hidden_states
        mask = inputs["attention_mask"].unsqueeze(-1)
        found.append([(each * mask).sum(1) / mask.sum(1) for each in hidden])
    return [list(layer) for layer in zip(*found, strict=True)]


def theirs(vectors: list[Tensor]) -> Tensor:
    """MultipleNegativesRankingLoss at its scale of 20, of features cut already."""
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    return losses.MultipleNegativesRankingLoss(None).compute_loss_from_embeddings(vectors, None)


def cut(vectors: list[Tensor], width: int) -> list[Tensor]:
    return [each[:, :width] for each in vectors]


def test_matryoshka_is_the_sum_over_widths() -> None:
    """Equation 1 with sentence-transformers' own loss of each width."""
    model = text_model(layers=3).eval()
    objective, step = made("matryoshka", model, dims=[WIDTH, 8, 4], weights=[1.0, 0.5, 2.0])
    last = states(step)[-1]
    expected = sum(share * theirs(cut(last, width)) for width, share in [(WIDTH, 1.0), (8, 0.5), (4, 2.0)])
    torch.testing.assert_close(objective(step), expected)


def test_one_whole_width_is_the_inner_objective_to_the_bit() -> None:
    model = text_model(layers=3).eval()
    objective, step = made("matryoshka", model, dims=[WIDTH])
    assert torch.equal(objective(step), objective.base(step))  # type: ignore[operator]


def test_two_dimensions_by_the_formula() -> None:
    """The four terms and the divergence of AdaptiveLayerLoss, of the layer and width that the step draws."""
    model = text_model(layers=3).eval()
    objective, step = made("matryoshka_2d", model, dims=[8])
    draws = torch.Generator().manual_seed(step.generator.initial_seed())
    layer = 1 + int(torch.randint(2, (), generator=draws))
    hidden = states(step)
    sizes = [(hidden[-1], WIDTH), (hidden[-1], 8), (hidden[layer], WIDTH), (hidden[layer], 8)]
    expected = sum(theirs(cut(vectors, width)) for vectors, width in sizes)
    whole, lower = (torch.cat(hidden[place]) / 0.3 for place in (-1, layer))
    expected = expected + 0.3 * F.kl_div(lower.log_softmax(-1), whole.softmax(-1), reduction="batchmean")
    torch.testing.assert_close(objective(step), expected)


@pytest.mark.parametrize("kl", ["vectors", "candidates"])
def test_starbucks_by_the_formula(kl: str) -> None:
    """Every size at once, and the divergences of ielab/Starbucks, written out."""
    model = text_model(layers=3).eval()
    objective, step = made("starbucks", model, sizes=[[1, 4], [2, 8], [3, WIDTH]], kl=kl)
    hidden = states(step)
    expected = theirs(hidden[-1])
    for layer, width in [(1, 4), (2, 8)]:
        small, whole = cut(hidden[layer], width), hidden[-1]
        expected = expected + theirs(small)
        if kl == "vectors":
            target, found = torch.cat(cut(whole, width)), torch.cat(small)
            expected = expected + 0.3 * F.kl_div(found.log_softmax(-1), target.softmax(-1), reduction="batchmean")
        else:
            scores = [F.normalize(a) @ F.normalize(b).T / 0.05 for a, b in (small[:2], whole[:2])]
            expected = expected + F.kl_div(scores[0].log_softmax(-1), scores[1].softmax(-1), reduction="batchmean")
    torch.testing.assert_close(objective(step), expected)


def test_the_whole_is_not_pulled_towards_the_small() -> None:
    """Only the smaller model learns from the divergence: its gradient at the last layer is that of the losses alone."""
    model = text_model(layers=3).eval()
    objective, step = made("starbucks", model, sizes=[[1, 8]], kl_weight=1.0)
    plain, again = made("starbucks", model, sizes=[[1, 8]], kl_weight=0.0)
    last = list(model.layers[-1].parameters())
    for mine, other in zip(
        torch.autograd.grad(objective(step), last), torch.autograd.grad(plain(again), last), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_an_encoder_of_first_layers_gives_what_was_trained() -> None:
    model = load("minilm")
    smaller = first_layers(model, 2)
    texts = ["a film about a town", "the music was long"]
    inputs = model.processor.encode(texts).collate(np.arange(2))
    with torch.no_grad():
        hidden = model.backbone(**inputs, output_hidden_states=True).hidden_states[2]
    mask = inputs["attention_mask"].unsqueeze(-1)
    expected = ((hidden * mask).sum(1) / mask.sum(1)).numpy()[:, :96]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(Encoder(smaller, dim=96).encode(texts), expected, atol=1e-5)
    assert len(model.layers) == 6
    assert model.backbone.config.num_hidden_layers == 6  # type: ignore[union-attr]
    assert next(smaller.layers[0].parameters()) is next(model.layers[0].parameters())


def test_sentences_for_what_cannot_be() -> None:
    model = text_model(layers=1)
    for name in ("matryoshka_2d", "starbucks"):
        with pytest.raises(RecipeError, match="has one layer"):
            made(name, model)
    with pytest.raises(RecipeError, match="does not compare"):
        get("objective", "matryoshka").make(inner="cross_entropy")
    with pytest.raises(RecipeError, match="a vector of the model has"):
        made("matryoshka", model, dims=[WIDTH + 1])
    with pytest.raises(RecipeError, match="give one for each"):
        get("objective", "matryoshka").make(dims=[8, 4], weights=[1.0])
    with pytest.raises(RecipeError, match="whole numbers above zero"):
        get("objective", "matryoshka").make(dims=[0])
    with pytest.raises(RecipeError, match="and the model"):
        made("starbucks", text_model(layers=3), sizes=[[4, 8]])
    with pytest.raises(ModelError, match="choose from 1"):
        first_layers(model, 2)
