"""The policy-gradient noise mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp
from scipy.stats import beta
from tiny_transformer import context, image_batch, image_model, step_of, text_model
from torch import nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objectives.noise_mask import NoiseMask, _images, spread


def objective(model, **options):
    torch.manual_seed(0)
    term = NoiseMask(**options)
    term.setup(context(model))
    for head in term.heads:
        nn.init.normal_(head[-1].weight)
    return term


def test_no_heat_or_after_it_is_cross_entropy_to_the_bit():
    model, batch = image_model(dropout=0.2), image_batch()
    for heat, progress in ((0.0, 0.0), (0.4, 0.5)):
        step = step_of(model, batch, progress=progress)
        assert torch.equal(objective(model, heat=heat)(step), F.cross_entropy(step.output.logits, step.labels))


def test_the_score_is_the_density_of_what_was_drawn():
    """Against scipy's beta distribution and the authors' product of score and cost, in float64."""
    model, batch = image_model(), image_batch()
    term = objective(model, grid=3)
    term.base.normal_()
    images = batch.inputs["pixel_values"]
    step = step_of(model, batch, progress=0.1)
    torch.manual_seed(5)
    value = float(term(step))
    torch.manual_seed(5)
    policy = term._policy(images).detach()
    a, b = (0.9 * term.base[:, None] + 0.1 * policy).exp()
    cells = torch.distributions.Beta(a, b).sample().clamp(1e-4, 1 - 1e-4)
    density = beta.logpdf(cells.double().numpy(), a.double().numpy(), b.double().numpy())
    score = logsumexp(density.reshape(len(batch), -1), axis=1).mean()
    masked = images * spread(cells, (16, 16))
    logits = model(type(batch)(**{**vars(batch), "inputs": {"pixel_values": masked}})).logits
    assert value == pytest.approx(score * float(F.cross_entropy(logits, batch.labels)), rel=1e-4)


def test_the_policys_gradient_is_reinforce():
    """Against autograd of the log-density alone: the policy's gradient is CE times that of the score."""
    model, batch = image_model(), image_batch()
    term = objective(model, grid=3)
    torch.manual_seed(5)
    term(step_of(model, batch, progress=0.1)).backward()
    found = [each.grad.clone() for each in term.parameters()]
    torch.manual_seed(0)
    model(batch)  # as `step_of` leaves the random state
    chances = term.chances(batch.inputs["pixel_values"])
    cells = chances.sample().clamp(1e-4, 1 - 1e-4)
    masked = batch.inputs["pixel_values"] * spread(cells, (16, 16))
    logits = model(type(batch)(**{**vars(batch), "inputs": {"pixel_values": masked}})).logits
    cost = F.cross_entropy(logits, batch.labels).detach()
    score = chances.log_prob(cells).flatten(1).logsumexp(1).mean()
    expected = torch.autograd.grad(cost * score, list(term.parameters()))
    torch.testing.assert_close(found, list(expected), rtol=1e-4, atol=1e-6)


def test_masks_are_blurred_as_scipy_does():
    cells = torch.rand(2, 8, 8)
    found = spread(cells, (224, 224))
    upsampled = F.interpolate(cells[:, None], size=(224, 224), mode="bilinear", align_corners=False)
    expected = [gaussian_filter(each[0].numpy(), 6.0, radius=6, mode="nearest") for each in upsampled]
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=1e-5)
    assert spread(torch.full((1, 4, 4), 0.3), (9, 12)).sub(0.3).abs().max() < 1e-6


def test_the_base_follows_the_policy():
    model, batch = image_model(), image_batch()
    term = objective(model, grid=3)
    mean = term._policy(batch.inputs["pixel_values"]).mean(1).detach()
    for _ in range(3):
        term.update(step_of(model, batch, progress=0.1))
    torch.testing.assert_close(term.base, (1 - 0.99**3) * mean)
    term.update(step_of(model, batch, progress=0.9))
    torch.testing.assert_close(term.base, (1 - 0.99**3) * mean)


def test_channels_may_come_last():
    model, batch = image_model(), image_batch()
    values = batch.inputs["pixel_values"].permute(0, 2, 3, 1)
    step = step_of(model, batch)
    step.batch = type(batch)(**{**vars(batch), "inputs": {"features": values}})
    name, images, last = _images(step)
    assert (name, last) == ("features", True)
    assert torch.equal(images, batch.inputs["pixel_values"])


def test_what_it_is_not_for():
    with pytest.raises(RecipeError, match="reads text"):
        NoiseMask().setup(context(text_model()))
    for options in ({"grid": 0}, {"grid": 2.5}, {"heat": 1.5}):
        with pytest.raises(RecipeError):
            NoiseMask(**options)
