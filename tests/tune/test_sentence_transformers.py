"""Losses of sentence-transformers on shared passes, against the library itself on the same model and batch."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import surefoot
from surefoot.assets import fetch
from surefoot.errors import RecipeError
from surefoot.tune.objective import Context
from surefoot.tune.objectives.sentence_transformers import LOSSES, REFUSED, SentenceTransformersLoss, _innermost
from surefoot.tune.pairs import Pairs
from surefoot.tune.recipe import Recipe
from surefoot.tune.step import Batch, Step

ROWS = [
    ("where is my card", "the card has not come", "the card is stolen", 1.0, "card"),
    ("a wing in a slipstream", "lift behind a propeller", "lift of a heated body", 0.0, "air"),
    ("he plays the guitar", "a man makes music", "a man eats a guitar", 1.0, "man"),
    ("flow past a plate", "a plate in a stream of air", "a plate of food", 0.0, "air"),
    ("my card is lost", "I cannot find the card", "the card was found", 1.0, "card"),
    ("a man sings", "somebody is singing", "nobody sings", 0.0, "man"),
]
LAST = "backbone.encoder.layer.5."
SETTINGS = {
    "MultipleNegativesRankingLoss": {"scale": 10.0, "similarity_fct": "dot_score"},
    "TripletLoss": {"distance_metric": "COSINE", "triplet_margin": 0.9},
    "ContrastiveLoss": {"distance_metric": "EUCLIDEAN", "margin": 1.5},
    "OnlineContrastiveLoss": {"margin": 2.0},
    "EmbedDistillLoss": {"distance_metric": "mse"},
    "BatchAllTripletLoss": {"margin": 1.0},
}


@pytest.fixture(scope="module")
def examples():
    names = ("anchor", "positive", "negative", "score", "label")
    return surefoot.load_data([dict(zip(names, row, strict=True)) for row in ROWS])


@pytest.fixture(scope="module")
def model():
    model = surefoot.load("minilm", max_length=16)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(LAST))
    return model.eval()


@pytest.fixture(scope="module")
def start():
    start = surefoot.load("minilm", max_length=16)
    start.precision = "float32"
    return start


@pytest.fixture(scope="module")
def library(model):
    """The same model as the library opens it, without the scaling at its end."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    opened = sentence_transformers.SentenceTransformer(str(fetch("minilm")), device="cpu")
    return sentence_transformers.SentenceTransformer(modules=[opened[0], opened[1]], device="cpu").eval()


def moved(model):
    """The model a little off its start, so that a teacher that is the start has something to say."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.startswith(LAST):
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)


def step_of(model, examples, reference):
    encoded = model.processor.encode(examples.inputs)
    index = np.arange(len(examples))
    batch = Batch(encoded.collate(index), torch.from_numpy(examples.labels), torch.from_numpy(index))
    return Step(
        batch=batch,
        model=model,
        progress=0.0,
        generator=torch.Generator().manual_seed(0),
        autocast=nullcontext,
        reference=reference(batch),
        pairs=Pairs.of(model, examples),
    )


def context_of(model, examples):
    return Context(
        model=model,
        labels=torch.from_numpy(examples.labels),
        classes=examples.classes,
        start={},
        trained={},
        pairs=Pairs.of(model, examples),
    )


def gradients(model):
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", [*LOSSES, "MatryoshkaLoss"])
def test_value_and_gradient_are_the_librarys(name, model, start, library, examples):
    """sentence_transformers run side by side: its own model tokenises and runs the same texts through the same weights."""
    options = SETTINGS.get(name, {})
    if name == "MatryoshkaLoss":
        options = {"loss": {"name": "MultipleNegativesRankingLoss", "scale": 5.0}, "matryoshka_dims": [384, 64]}
    model.precision = "float32"
    objective = SentenceTransformersLoss(loss=name, options=options)
    torch.manual_seed(0)
    objective.setup(context_of(model, examples))
    try:
        moved(model)
        ours = objective(step_of(model, examples, lambda batch: start(batch)))
        ours.backward()
        mine = gradients(model)
        library[0].auto_model.load_state_dict(model.backbone.state_dict(), strict=False)
        theirs = _theirs(objective, library, examples, start)
        theirs.backward()
        expected = {
            f"backbone.{key}": each.grad.clone()
            for key, each in library[0].auto_model.named_parameters()
            if each.grad is not None and f"backbone.{key}" in mine
        }
        library.zero_grad()
    finally:
        model.load_state_dict(start.state_dict())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert mine.keys() == expected.keys()
    for key, gradient in mine.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-3, atol=1e-5 * float(gradient.abs().max() + 1))


def _theirs(objective, library, examples, start):
    reads = _innermost(objective._spec)[1]
    columns = {"anchor": examples.inputs, "positive": examples.positive, "negative": examples.negative}
    texts = [[str(text) for text in columns[each]] for each in reads.columns]
    features = [library.preprocess(each) for each in texts]
    loss = objective.module
    wrapped = loss.loss if objective.loss == "MatryoshkaLoss" else loss
    shared, owners = (wrapped.model if hasattr(wrapped, "model") else wrapped.sentence_embedder), []
    for owner in {id(each): each for each in (loss, wrapped)}.values():
        for attribute in ("model", "sentence_embedder"):
            if getattr(owner, attribute, None) is shared:
                owners.append((owner, attribute))
                setattr(owner, attribute, library)
    target = None
    if reads.target in ("score", "binary"):
        target = torch.tensor(examples.score, dtype=torch.float32)
    if reads.target == "classes":
        target = torch.from_numpy(examples.labels)
    if reads.target == "start":
        target = torch.stack([start(_batch(start, each)).features.detach() for each in texts], 1)
    if reads.target == "guide":  # which the library runs itself, on the tokens
        loss.guide.forward = lambda features: {"sentence_embedding": start(_inputs(features)).features}
    found = loss(features, target)
    return torch.stack(list(found.values())).sum() if isinstance(found, dict) else found


def _batch(model, texts):
    return _inputs(model.processor.encode(texts).collate(np.arange(len(texts))))


def _inputs(features):
    inputs = {name: features[name] for name in ("input_ids", "attention_mask")}
    rows = torch.arange(len(inputs["input_ids"]))
    return Batch(inputs, torch.zeros_like(rows), rows)


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_its_own_passes_says_so(name):
    with pytest.raises(RecipeError, match=name):
        SentenceTransformersLoss(loss=name)


def test_every_loss_of_the_library_works_or_is_refused():
    """A new version of the library with another loss fails here, and is looked at."""
    from surefoot.tune.objectives.sentence_transformers import MODIFIERS, _library

    there = {name for name in _library().__all__ if name.endswith(("Loss", "LossInBatchNegatives"))}
    assert there == {*LOSSES, *REFUSED, *MODIFIERS}


@pytest.mark.parametrize(
    ("loss", "options", "said"),
    [
        ("MultipleNegativeRankingLoss", {}, "did you mean `MultipleNegativesRankingLoss`"),
        ("CoSENTLoss", {"scael": 1}, "unknown option `scael` of CoSENTLoss: did you mean `scale`"),
        ("TripletLoss", {"distance_metric": "COSINUS"}, "did you mean `COSINE`"),
        ("MatryoshkaLoss", {"matryoshka_dims": [8]}, "wraps another loss"),
    ],
)
def test_a_slip_is_named_when_the_recipe_is_made(loss, options, said):
    with pytest.raises(RecipeError, match=said):
        Recipe(objectives={"sentence_transformers": {"loss": loss, "options": options}})


def test_data_that_cannot_serve_are_refused_before_training(model):
    pairs = surefoot.load_data([{"anchor": "a b", "positive": "c d", "score": 4.0}])
    for loss, said in (
        ("CosineSimilarityLoss", "scale them"),
        ("ContrastiveLoss", "0 and 1"),
        ("TripletLoss", "negative"),
    ):
        with pytest.raises(RecipeError, match=said):
            SentenceTransformersLoss(loss=loss).setup(
                Context(model, torch.zeros(1, dtype=torch.long), (), {}, {}, pairs=Pairs.of(model, pairs))
            )


def test_it_joins_a_recipe_with_the_rest(examples):
    """With L2-SP, SAM and a soup's selection, on frozen layers that are run once."""
    recipe = Recipe(
        objectives={"sentence_transformers": {"weight": 1.0, "loss": "CoSENTLoss"}, "l2_sp": 0.1, "ldifs": 0.1},
        optimizer={"name": "sam", "inner": {"name": "adamw", "lr": 1e-4}},
        selection={"name": "top_layers", "k": 1},
        epochs=3,
        batch_size=6,
    )
    run = recipe.fit(surefoot.load("minilm", max_length=16), examples)
    assert run.history.losses[-1] < run.history.losses[0]
