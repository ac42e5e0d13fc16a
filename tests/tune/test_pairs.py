"""Pairs from a file to the objectives that read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_problem import CLASSES, FEATURES, INPUTS, tiny_batch, tiny_context, tiny_model, tiny_step

import surefoot
from surefoot.errors import DataError, RecipeError
from surefoot.models.model import Model
from surefoot.tune.objectives.infonce import InfoNCE
from surefoot.tune.objectives.ldifs import LDIFS
from surefoot.tune.objectives.smart import SMART
from surefoot.tune.recipe import Recipe

PAIRS = [
    {"anchor": "where is my card", "positive": "the card has not come", "negative": "the card is stolen"},
    {"anchor": "a wing in a slipstream", "positive": "lift behind a propeller", "negative": "lift of a heated body"},
    {"anchor": "he plays the guitar", "positive": "a man makes music", "negative": "a man eats a guitar"},
    {"anchor": "my card never came", "positive": "the card has not come", "negative": "how do I close my account"},
]


@pytest.fixture(scope="module")
def pairs():
    return surefoot.load_data(PAIRS)


# --- data


def test_rated_pairs_are_anchor_and_positive():
    rows = [{"sentence1": "a b", "sentence2": "c d", "score": "2.5"}]
    examples = surefoot.load_data(rows)
    assert examples.inputs == ["a b"]
    assert examples.positive.tolist() == ["c d"]
    assert examples.score.tolist() == [2.5]
    assert examples.labels is None
    assert examples.take([0]).fingerprint() == examples.fingerprint()
    other = surefoot.load_data([{**rows[0], "sentence2": "c e"}])
    assert other.fingerprint() != examples.fingerprint()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"positive": " "}, "row 2, column `positive`: the text is empty"),
        ({"positive": 7}, "row 2, column `positive`: 7 is not text"),
        ({"negative": None}, "row 2, column `negative`: the text is empty"),
        ({"score": float("nan")}, "row 2, column `score`: nan is not a finite number"),
        ({"score": "much"}, "row 2, column `score`: 'much' is not a finite number"),
    ],
)
def test_a_bad_row_is_named(change, said):
    rows = [{**PAIRS[0], "score": 1.0}, {**PAIRS[1], "score": 0.5, **change}]
    with pytest.raises(DataError, match=said):
        surefoot.load_data(rows)


def test_an_anchor_alone_is_no_pair():
    with pytest.raises(DataError, match="no column `positive`"):
        surefoot.load_data([{"anchor": "a"}])


def test_what_reads_labels_says_so_before_training(pairs):
    with pytest.raises(RecipeError, match="`cross_entropy` reads labels, and list holds pairs without"):
        Recipe(objectives={"infonce": 1.0, "cross_entropy": 1.0}).fit(surefoot.load("minilm"), pairs)
    texts = surefoot.load_data([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    with pytest.raises(RecipeError, match="no `positive` column"):
        Recipe(objectives={"infonce": 1.0}).fit(surefoot.load("minilm"), texts)


# --- training


def test_pairs_train_an_embedding_cached_or_not(pairs):
    """The same training with frozen layers run once and run in every step, by the plain loop of the library's users: the
    positives come nearer."""
    model = surefoot.load("minilm", max_length=16)
    recipe = Recipe(
        objectives={"infonce": 1.0},
        optimizer={"name": "adamw", "lr": 1e-4},
        selection={"name": "top_layers", "k": 2},
        epochs=6,
        batch_size=4,
        precision="float32",
    )
    runs = [recipe.changed(cache=cache).fit(model, pairs) for cache in (True, False)]
    assert runs[0].history.losses[-1] < 0.7 * runs[0].history.losses[0]
    np.testing.assert_allclose(runs[0].history.losses, runs[1].history.losses, rtol=0.02, atol=1e-3)
    assert runs[0].model.classes == model.classes == ()


# --- InfoNCE


def features(step):
    return [each.features for each in (step.output, step.pair("positive"), step.pair("negative"))]


def test_a_member_is_run_once():
    step = tiny_step(tiny_model(dropout=0.5), tiny_batch())
    assert step.pair("positive") is step.pair("positive")
    assert step.pair_scores.tolist() == pytest.approx((step.batch.index / 11).tolist())


@pytest.mark.parametrize(("similarity", "temperature"), [("cosine", 0.05), ("dot", 1.0), ("cosine", 0.3)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_infonce_is_multiple_negatives_ranking(similarity, temperature, symmetric):
    """Value and gradient against sentence_transformers' MultipleNegativesRankingLoss on the same features; Smart Reply's
    dot product at scale 1 among them. The symmetric one of the library leaves negatives out of the way back, too."""
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    from sentence_transformers.util import cos_sim, dot_score

    directions = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    theirs = losses.MultipleNegativesRankingLoss(
        None,
        scale=1 / temperature,
        similarity_fct=cos_sim if similarity == "cosine" else dot_score,
        **(directions if symmetric else {}),
    )
    values, gradients = [], []
    for ours in (True, False):
        model = tiny_model()
        step = tiny_step(model, tiny_batch())
        objective = InfoNCE(similarity=similarity, temperature=temperature, symmetric=symmetric, mask_duplicates=False)
        value = objective(step) if ours else theirs.compute_loss_from_embeddings(features(step), None)
        value.backward()
        values.append(value.detach())
        gradients.append([each.grad for each in model.backbone.parameters()])
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_a_duplicate_positive_is_no_negative():
    """Closed form: with the first two pairs' common positive, each of them has one candidate less."""
    step = tiny_step(tiny_model(), tiny_batch())
    unit = [torch.nn.functional.normalize(each, dim=1).detach().double() for each in features(step)]
    scores = torch.cat([unit[0] @ unit[1].T, unit[0] @ unit[2].T], 1) / 0.05
    index = step.batch.index.tolist()
    for i, row in enumerate(scores):
        others = [j for j in range(len(row)) if not (j < len(index) and {index[i], index[j]} == {0, 1})]
        expected = row[others].logsumexp(0) - row[i]
        assert InfoNCE().per_example(step)[i].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


def test_one_pair_alone_teaches_nothing():
    context = tiny_context(tiny_model())
    context.pairs.encoded.pop("negative")
    step = tiny_step(tiny_model(), tiny_batch(size=1))
    step._pairs = context.pairs
    assert InfoNCE()(step).item() == 0


# --- what else an embedding is trained by


def test_ldifs_is_the_squared_distance_from_the_start():
    """The paper's formula in float64; 0 to the bit where the model is the start."""
    step = tiny_step(tiny_model(), tiny_batch())
    moved = step.output.features.detach().double() - step.reference.features.double()
    np.testing.assert_allclose(LDIFS().per_example(step).detach().numpy(), (moved**2).sum(1).numpy(), rtol=1e-5)
    step._reference = step.output
    assert LDIFS()(step).item() == 0


def test_smart_on_features_is_the_squared_slope():
    """Closed form for a model that is linear in its inputs, f(x) = W x: the worst noise within the ball lies at its corners
    along the gradient, and ||W e||^2 is what is left."""
    model = Model.from_module(torch.nn.Linear(INPUTS, FEATURES, bias=False), dim=FEATURES, classes=CLASSES)
    step = tiny_step(model, tiny_batch())
    objective = SMART(compares="features", epsilon=0.01, sigma=0.001, eta=1.0, mu=0.0)
    noise = objective._worst_noise(step, step.output.features.detach())
    assert noise.abs().max().item() == pytest.approx(0.01)
    again = tiny_step(model, tiny_batch())
    expected = (noise.double() @ model.backbone.weight.detach().double().T).square().sum(1)
    np.testing.assert_allclose(objective.per_example(again).detach().numpy(), expected.numpy(), rtol=1e-3)
    assert not objective.reads_labels
