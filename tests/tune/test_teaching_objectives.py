"""Objectives that put texts where something outside the model says: a teacher, or a dictionary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MSELoss
from sklearn.decomposition import FastICA
from sklearn.preprocessing import StandardScaler
from tiny_problem import tiny_batch, tiny_context, tiny_model, tiny_pairs, tiny_step
from tiny_transformer import CLASSES, EXAMPLES, WIDTH, context, step_of, text_batch, text_model, texts
from torch.nn import functional as F

import surefoot
from surefoot.assets import fetch
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.tune.fit import Fit
from surefoot.tune.objectives import distil
from surefoot.tune.objectives.defsent_plus import DefSentPlus, spread, unscaled
from surefoot.tune.objectives.distil import Distil, narrowed, taught
from surefoot.tune.recipe import Recipe

SENTENCES = ("The cat sat on the mat.", "Nobody knows why the ship sank.", "A cat is sitting on a mat.", "It rains.")


# --- distillation


def test_a_teacher_says_what_sentence_transformers_says():
    """Against SentenceTransformer's own vectors of the same model."""
    expected = SentenceTransformer(str(fetch("minilm")), device="cpu").encode(list(SENTENCES))
    np.testing.assert_allclose(taught("minilm", SENTENCES).numpy(), expected, atol=1e-5)


def test_the_loss_is_sentence_transformers_mse():
    """Against MSELoss, whose features are the student's: a mean over texts and numbers."""

    class Fixed(torch.nn.Module):
        def forward(self, features):
            return {"sentence_embedding": features["values"]}

    model, batch = text_model().eval(), text_batch()
    term = Distil()
    term.setup(context(model))
    step = step_of(model, batch, needs=term.needs)
    expected = MSELoss(Fixed())([{"values": step.output.features}], term.targets_[batch.index])
    torch.testing.assert_close(term(step), expected)


def test_a_narrow_student_learns_the_principal_directions():
    """Against the closed form: no other projection to that width loses less of the vectors (Eckart and Young 1936)."""
    vectors = (
        torch.randn(40, 12, generator=torch.Generator().manual_seed(0)).double()
        @ torch.diag(torch.arange(1.0, 13)).double()
    )
    found = narrowed(vectors.float(), 5).double()
    values = torch.linalg.svdvals(vectors)
    assert float(vectors.square().sum() - found.square().sum()) == pytest.approx(
        float(values[5:].square().sum()), rel=1e-5
    )
    torch.testing.assert_close(torch.linalg.svdvals(found), values[:5], rtol=1e-5, atol=1e-5)
    assert torch.equal(narrowed(vectors, 12), vectors)
    assert not narrowed(vectors[:3].float(), 5)[:, 3:].any()


def test_translations_go_where_the_teacher_puts_the_sentence(monkeypatch):
    """Both mean squares in float64; what the student makes of a translation is compared with the sentence's own target."""
    monkeypatch.setattr(
        distil, "taught", lambda teacher, texts: torch.randn(EXAMPLES, 6, generator=torch.Generator().manual_seed(5))
    )
    model, batch = tiny_model(), tiny_batch()
    term = Distil(translations=True)
    term.setup(replace(tiny_context(model), texts=["x"] * EXAMPLES))
    step = tiny_step(model, batch)
    targets = term.targets_[batch.index].double()
    translated = model(tiny_pairs().batch("positive", batch.index)).features.double()
    expected = [(each - targets).square().mean(1) for each in (model(batch).features.double(), translated)]
    torch.testing.assert_close(term.per_example(step).double(), expected[0] + expected[1], rtol=1e-5, atol=1e-6)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    """Limit: the loss of the teacher's own embeddings of unit length is 0, and training moves no weight by more than dust."""
    train = Examples(list(SENTENCES) * 2, None, (), source="sentences")
    recipe = Recipe(
        head="zero",
        objectives={"distil": 1.0},
        epochs=1,
        batch_size=4,
        precision="float32",
        optimizer={"name": "sgd", "lr": 1e-3},
    )
    model = surefoot.load("minilm", max_length=32)
    model.normalize = True
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    fit = Fit(recipe, model, train)
    fit.run()
    assert max(fit.history.losses) < 1e-12


def test_what_a_teacher_cannot_teach(tmp_path):
    with pytest.raises(RecipeError, match="nobody"):
        Distil(teacher=str(tmp_path / "nobody")).setup(context(text_model()))
    with pytest.raises(RecipeError, match="teacher"):
        Distil(teacher="")
    with pytest.raises(RecipeError, match="translations"):
        Distil(translations="yes")
    model = text_model()
    model.dim = 500
    with pytest.raises(RecipeError, match="500 numbers"):
        Distil().setup(context(model))


# --- DefSent+


@pytest.mark.filterwarnings("ignore:FastICA did not converge")
def test_entries_are_spread_as_the_authors_spread_them():
    """Against scikit-learn's StandardScaler and FastICA with the settings of their script."""
    means = np.random.default_rng(0).laplace(size=(60, 8)) @ np.random.default_rng(1).normal(size=(8, 8))
    expected = FastICA(8, max_iter=500, tol=1e-4, whiten="unit-variance", fun="logcosh", random_state=0).fit_transform(
        StandardScaler().fit_transform(means)
    )
    found = spread(means, iterations=500)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(8), atol=1e-6)


def test_more_entries_than_columns_and_fewer():
    few = spread(np.random.default_rng(0).normal(size=(4, 8)), iterations=50)
    assert few.shape == (4, 8)
    assert not few[:, 3:].any()
    np.testing.assert_allclose(few[:, :3].T @ few[:, :3] / 4, np.eye(3), atol=1e-6)


def test_defsent_plus_by_hand():
    """Against the loss in float64, from the entries' mean vectors to the cross-entropy."""
    model, batch = text_model().eval(), text_batch()
    term = DefSentPlus(scale=10.0)
    torch.manual_seed(0)
    term.setup(context(model))
    vectors = []
    for text in texts():
        ids = torch.tensor([[2, *map(int, text.split()), 3]])
        vectors.append(model.backbone(input_ids=ids).last_hidden_state[0].mean(0).detach().double().numpy())
    labels = np.arange(EXAMPLES) % len(CLASSES)
    means = np.stack([np.mean([vectors[i] for i in np.flatnonzero(labels == k)], 0) for k in range(len(CLASSES))])
    entries = 10.0 * torch.from_numpy(spread(means, iterations=200))
    np.testing.assert_allclose(term.entries_.abs().numpy(), entries.abs().numpy(), rtol=1e-3, atol=1e-3)
    states = model.backbone(**batch.inputs).last_hidden_state.double()
    weights = batch.inputs["attention_mask"][:, :, None]
    pooled = (states * weights).sum(1) / weights.sum(1)
    linear = term.projection[0]
    projected = torch.tanh(pooled @ linear.weight.double().T + linear.bias.double())
    expected = F.cross_entropy(projected @ term.entries_.double().T, batch.labels, reduction="none")
    found = term.per_example(step_of(model, batch, needs=term.needs))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_without_a_scale_nothing_is_told_apart():
    """Limit: at scale 0 (nearly), log of the number of entries."""
    model = text_model()
    term = DefSentPlus(scale=1e-12)
    term.setup(context(model))
    assert float(term(step_of(model, text_batch(), needs=term.needs)).detach()) == pytest.approx(np.log(len(CLASSES)))


def test_the_projection_is_the_checkpoints_own_pooler(tmp_path):
    model = text_model()
    weights = {"bert.pooler.dense.weight": torch.randn(WIDTH, WIDTH), "bert.pooler.dense.bias": torch.randn(WIDTH)}
    save_file(weights, tmp_path / "model.safetensors")
    model.source = str(tmp_path)
    term = DefSentPlus()
    term.setup(context(model))
    assert torch.equal(term.projection[0].weight, weights["bert.pooler.dense.weight"])


def test_vectors_of_definitions_are_not_scaled_and_the_model_stays_as_it_was():
    model = text_model(dropout=0.5)
    model.normalize = True
    found = unscaled(model, texts())
    assert model.training
    assert model.normalize
    assert not np.allclose(np.linalg.norm(found, axis=1), 1.0)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_a_dictionary_of_one_word_is_refused():
    with pytest.raises(RecipeError, match="the data have 1"):
        DefSentPlus().setup(replace(context(text_model()), labels=torch.zeros(EXAMPLES, dtype=torch.long)))
    with pytest.raises(RecipeError, match="iterations"):
        DefSentPlus(iterations=0)
