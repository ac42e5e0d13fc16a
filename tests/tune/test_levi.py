"""LEVI: the views that it adds, written out again, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from small_training import train
from test_kept_selections import double
from tiny_transformer import context, image_batch, image_model, step_of, text_batch, text_model
from torch import Tensor

from surefoot.errors import ModelError, RecipeError
from surefoot.models.additions import parts, remove
from surefoot.models.model import Model
from surefoot.tune.objectives.learnable_consistency import LearnableConsistency
from surefoot.tune.selections.levi import LEVI
from surefoot.tune.step import Batch


def built(model: Model) -> Model:
    """With parts whose weights are far from where they start."""
    torch.manual_seed(1)
    LEVI(width=5).apply(model)
    with torch.no_grad():
        for value in parts(model)["backbone.views"].parameters():
            value.normal_(std=0.4)
    return model.eval()


def test_the_logits_are_the_formula():
    """Float64, from the docstring's formula: embedding, convolution, means over what the mask shows, concatenation."""
    model, batch = built(text_model()), text_batch()
    views, mask = parts(model)["backbone.views"], batch.inputs["attention_mask"].double()[..., None]
    words = views.small.embedding.weight.double()[batch.inputs["input_ids"]] * mask
    padded = torch.nn.functional.pad(words, (0, 0, 1, 1))
    kernel, bias = views.small.convolution.weight.double(), views.small.convolution.bias.double()
    windows = torch.stack([padded[:, k : k + words.shape[1]] for k in range(3)], 2)  # (B, T, 3, in)
    inner = (torch.einsum("btki,oik->bto", windows, kernel) + bias).clamp(min=0)

    def mean(states: Tensor) -> Tensor:
        return (states * mask).sum(1) / mask.sum(1)

    h = mean(inner)
    output = model(batch, hidden_states=True)
    expected = double(model.head, output.features.double())
    for layer, (adapting, head) in enumerate(zip(views.adapting, views.heads, strict=True)):
        z = mean(output.hidden_states[layer + 1].double())
        expected = expected + double(head, double(adapting, torch.cat([z, h], 1)).clamp(min=0)) / len(views.heads)
    torch.testing.assert_close(output.logits.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "batch"), [(text_model, text_batch), (image_model, image_batch)])
def test_it_starts_from_the_model_as_it_is_and_moves_away(make, batch):
    model = make().eval()
    start = model(batch()).logits
    LEVI(width=4).apply(model)
    assert torch.equal(model(batch()).logits, start)
    train(model, batch(), steps=6, lr=0.05)
    small = parts(model)["backbone.views"].small
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in small.parameters())
    assert not torch.allclose(model.eval()(batch()).logits, start)


def test_an_objective_on_features_that_stay_is_refused():
    model = text_model()
    LEVI(width=4).apply(model)
    objective = LearnableConsistency()
    objective.setup(context(model))
    with pytest.raises(RecipeError, match="nothing that trains does: choose another selection"):
        objective.update(step_of(model, text_batch()))


def test_padding_is_not_seen():
    model = built(text_model())
    inputs = {name: value[:, :6] for name, value in text_batch(padding=False).inputs.items()}
    longer = {name: torch.cat([value, torch.zeros_like(value[:, :2])], 1) for name, value in inputs.items()}
    logits = [model(Batch(each, torch.zeros(12).long(), torch.arange(12))).logits for each in (inputs, longer)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_the_views_are_of_the_pass_at_hand_and_go_away():
    plain = text_model().eval()
    model, batch = built(text_model()), text_batch()
    features = model(batch).features
    assert torch.equal(model.head(features), plain.head(features))  # no pass before it: the head by itself
    assert model.lowest_trained() == 0
    with pytest.raises(ModelError, match="reads words"):
        model(batch, embeddings=plain.embed_inputs(batch))
    remove(model)
    assert torch.equal(model(batch).logits, plain(batch).logits)
    with pytest.raises(RecipeError, match="`width` is 0"):
        LEVI(width=0)
