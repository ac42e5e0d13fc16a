"""Objectives that learn from other views of the batch: cutout, self-regularisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tiny_problem import tiny_batch, tiny_model, tiny_step
from tiny_transformer import context, image_batch, image_model, step_of, text_batch, text_model
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objectives.cutout import Cutout, span
from surefoot.tune.objectives.self_regularization import SelfRegularization


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- cutout


def test_no_share_is_cross_entropy_to_the_bit():
    step = tiny_step(tiny_model(dropout=0.5).train(), tiny_batch())
    expected = F.cross_entropy(step.output.logits, step.labels, reduction="none")
    assert torch.equal(Cutout(share=0.0).per_example(step), expected)


def test_squares_of_images():
    """Against numpy: a square of half the side around a pixel, clipped at the borders, on every channel."""
    images = torch.randn(200, 3, 16, 16) + 5
    hidden = Cutout(share=0.5).hide({"pixel_values": images}, generator())["pixel_values"].numpy()
    areas = []
    for image, before in zip(hidden, images.numpy(), strict=True):
        rows, columns = np.nonzero((image == 0).all(0))
        assert ((image == 0).any(0) == (image == 0).all(0)).all()
        high, wide = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert len(rows) == high * wide
        assert high <= 8 >= wide
        assert (image[image != 0] == before[image != 0]).all()
        areas.append(len(rows))
    assert max(areas) == 64
    # Centre c of 16: rows from max(0, c - 4) to min(16, c + 4); the mean over c, squared.
    lengths = [min(16, c + 4) - max(0, c - 4) for c in range(16)]
    assert np.mean(areas) == pytest.approx(np.mean(lengths) ** 2, rel=0.05)


@pytest.mark.parametrize(("shape", "channels"), [((8, 8), 0), ((8, 8, 3), 2), ((3, 8, 8), 0)])
def test_features_that_are_images_are_hidden_at_their_mean(shape, channels):
    values = torch.randn(6, *shape)
    hidden = Cutout(share=0.5).hide({"features": values}, generator())["features"]
    changed = hidden != values
    assert 6 * 16 * (1 if len(shape) == 2 else 3) >= changed.sum() > 0
    if len(shape) == 3:
        means = values.movedim(1 + channels, 0).flatten(1).mean(1)
        for mean, part, where in zip(
            means, hidden.movedim(1 + channels, 0), changed.movedim(1 + channels, 0), strict=True
        ):
            torch.testing.assert_close(part[where], mean.expand(int(where.sum())))


def test_flat_images_by_their_shape():
    values = torch.randn(6, 64)
    hidden = Cutout(share=0.5, shape=[8, 8]).hide({"features": values}, generator())["features"]
    expected = Cutout(share=0.5).hide({"features": values.view(6, 8, 8)}, generator())["features"]
    assert torch.equal(hidden, expected.flatten(1))
    with pytest.raises(RecipeError, match="shape"):
        Cutout(shape=[8, 9]).hide({"features": values}, generator())
    with pytest.raises(RecipeError, match="shape"):
        Cutout(shape=[8])


def test_spans_of_tokens():
    batch = text_batch(size=8, length=14)
    hidden = Cutout(share=0.5).hide(batch.inputs, generator())
    before, after = batch.inputs["attention_mask"], hidden["attention_mask"]
    assert torch.equal(hidden["input_ids"], batch.inputs["input_ids"])
    for row, kept in zip(before, after, strict=True):
        (gone,) = torch.nonzero(row - kept, as_tuple=True)
        length = int(row.sum())
        assert len(gone) == round((length - 2) / 4)
        assert torch.equal(gone, torch.arange(int(gone[0]), int(gone[0]) + len(gone)))
        assert int(gone[0]) > 0
        assert int(gone[-1]) < length - 1


def test_spans_are_uniform():
    drawn = span(torch.ones(4000, 5, dtype=torch.bool), 0.4, generator())
    first = drawn.int().argmax(1).bincount(minlength=5)
    assert (drawn.sum(1) == 2).all()
    np.testing.assert_allclose(first[:4] / 4000, 0.25, atol=0.03)
    assert first[4] == 0


def test_what_is_hidden_does_not_count():
    """A text model's answer where a span is hidden is its answer where other words stand there."""
    model, batch = text_model(), text_batch(padding=False)
    cutout = Cutout(share=0.6)
    hidden = cutout.hide(batch.inputs, generator())
    other = torch.where(hidden["attention_mask"].bool(), batch.inputs["input_ids"], 7)
    step = step_of(model, batch)
    one, two = (step.again(inputs={**hidden, "input_ids": ids}).logits for ids in (hidden["input_ids"], other))
    torch.testing.assert_close(one, two)
    assert not torch.allclose(one, step.output.logits)


def test_a_vit_learns_from_hidden_pixels():
    model = image_model()
    term = Cutout()
    term.setup(context(model))
    assert term(step_of(model, image_batch())) != F.cross_entropy(model(image_batch()).logits, image_batch().labels)


# --- self-regularisation


def test_self_regularization_is_the_formula():
    """Against numpy in float64: mean cross-entropy of k passes plus alpha times the mean KL from their mean."""
    model = tiny_model(dropout=0.5).train()
    for k in (2, 3):
        step = tiny_step(model, tiny_batch(), progress=0.5)
        torch.manual_seed(3)
        value = SelfRegularization(alpha=4.0, k=k).per_example(step).detach().numpy()
        again = tiny_step(model, tiny_batch())
        torch.manual_seed(3)
        outputs = [again.output, again.second_output, *(again.again() for _ in range(k - 2))]
        log_p = log_softmax(np.stack([each.logits.detach().double().numpy() for each in outputs]), axis=2)
        mean = np.exp(log_p).mean(0)
        divergence = np.mean([(mean * (np.log(mean) - each)).sum(1) for each in log_p], axis=0)
        entropy = -log_p[:, np.arange(len(value)), step.labels.numpy()].mean(0)
        np.testing.assert_allclose(value, entropy + 4.0 * divergence, rtol=1e-5)


def test_self_regularization_without_dropout_or_in_warm_up_is_cross_entropy():
    step = tiny_step(tiny_model(), tiny_batch(), progress=0.5)
    expected = F.cross_entropy(step.output.logits, step.labels, reduction="none")
    torch.testing.assert_close(SelfRegularization().per_example(step), expected)
    torch.manual_seed(0)
    early = tiny_step(tiny_model(dropout=0.5).train(), tiny_batch(), progress=0.05)
    both = SelfRegularization(warmup=0.1).per_example(early)
    passes = [
        F.cross_entropy(each.logits, early.labels, reduction="none") for each in (early.output, early.second_output)
    ]
    torch.testing.assert_close(both, torch.stack(passes).mean(0))
    assert torch.equal(both, SelfRegularization(alpha=0.0).per_example(early))


@pytest.mark.parametrize("options", [{"k": 1}, {"k": 2.5}, {"alpha": -1.0}, {"warmup": 1.0}])
def test_self_regularization_out_of_range(options):
    with pytest.raises(RecipeError):
        SelfRegularization(**options)
