"""Objectives of pairs with scores, and of descriptions: beside sentence-transformers and beside the paper's formula."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_problem import tiny_batch, tiny_context, tiny_model, tiny_step
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.tune.objective import Objective
from surefoot.tune.objectives.abstract_description import AbstractDescription
from surefoot.tune.objectives.contrastive_pairs import ContrastivePairs
from surefoot.tune.objectives.cosine_similarity import CosineSimilarity
from surefoot.tune.objectives.infonce import InfoNCE


class Given(nn.Module):
    """A sentence-transformers model that gives the features it is given."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


@pytest.mark.parametrize(
    ("objective", "name", "options"),
    [
        (CosineSimilarity(), "CosineSimilarityLoss", {}),
        (ContrastivePairs(), "ContrastiveLoss", {}),
        (ContrastivePairs(margin=0.9), "ContrastiveLoss", {"margin": 0.9}),
    ],
    ids=["cosine", "contrastive", "contrastive-0.9"],
)
def test_value_and_gradient_are_those_of_sentence_transformers(
    objective: Objective, name: str, options: dict[str, float]
) -> None:
    """The public implementation, run on the same features."""
    losses = pytest.importorskip("sentence_transformers.losses")
    model = tiny_model()
    step = tiny_step(model, tiny_batch())
    ours = objective(step)
    theirs = getattr(losses, name)(Given(), **options)(
        [{"sentence_embedding": step.output.features}, {"sentence_embedding": step.pair("positive").features}],
        step.pair_scores,
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    mine = torch.autograd.grad(ours, list(model.backbone.parameters()), retain_graph=True)
    other = torch.autograd.grad(theirs, list(model.backbone.parameters()))
    for one, two in zip(mine, other, strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-7)


def test_abstract_description_is_the_formula_in_float64() -> None:
    """A reference in numpy, written from the paper: log-softmax over sentences, Euclidean distances."""
    step = tiny_step(tiny_model(), tiny_batch())
    value = AbstractDescription(temperature=0.2, triplet=0.3, margin=0.7).per_example(step)
    s, right, wrong = (
        each.features.detach().numpy().astype(np.float64)
        for each in (step.output, step.pair("positive"), step.pair("negative"))
    )
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (right, s)]
    scores = unit[0] @ unit[1].T / 0.2
    expected = np.log(np.exp(scores).sum(1)) - np.diag(scores)
    distance = np.linalg.norm(s - right, axis=1) - np.linalg.norm(s - wrong, axis=1)
    expected = expected + 0.3 * np.maximum(0, 0.7 + distance)
    assert np.allclose(value.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_the_triplet_it_is_infonce_from_the_other_side() -> None:
    """The limit: weight 0 gives the mean of InfoNCE's other direction, to the last digits."""
    context, step = tiny_context(tiny_model()), tiny_step(tiny_model(), tiny_batch())
    objective = AbstractDescription(triplet=0.0, temperature=0.05)
    objective.setup(context)
    step.pairs.encoded.pop("negative")
    plain = InfoNCE(temperature=0.05, mask_duplicates=False).per_example(step)
    both = InfoNCE(temperature=0.05, mask_duplicates=False, symmetric=True).per_example(step)
    assert torch.allclose(objective.per_example(step), 2 * both - plain, atol=1e-5)


@pytest.mark.parametrize("objective", [CosineSimilarity(), ContrastivePairs(), AbstractDescription()])
def test_data_that_lack_a_column_are_refused_before_training(objective: Objective) -> None:
    context = tiny_context(tiny_model())
    lacking = SimpleNamespace(pairs=SimpleNamespace(scores=None, encoded={"positive": None}))
    objective.setup(context)
    for each in (lacking, SimpleNamespace(pairs=None)):
        with pytest.raises(RecipeError, match="add the column"):
            objective.setup(each)  # type: ignore[arg-type]


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"temperature": 0.0}, {"triplet": -1.0}, {"margin": 0.0}):
        with pytest.raises(RecipeError):
            AbstractDescription(**wrong)
    with pytest.raises(RecipeError):
        ContrastivePairs(margin=0.0)
