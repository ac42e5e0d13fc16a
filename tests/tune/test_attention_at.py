"""Attention AT: scores are moved where the softmax is taken, by the worst row of its length."""

from __future__ import annotations

import pytest
import torch
from tiny_transformer import context, step_of, text_batch, text_model
from torch.nn import functional as F

from command_line import one_thread
from conftest import examples
from surefoot import Recipe
from surefoot.tune.objectives.attention_at import AttentionAT, moved_scores

NEEDS = AttentionAT().needs


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def ready():
    model = text_model()
    AttentionAT().setup(context(model))
    return model, text_batch()


def test_offsets_are_added_before_the_softmax():
    """Against softmax(log p + offset) in float64, p the maps without it; padding stays out."""
    model, batch = ready()
    plain = step_of(model, batch, needs=NEEDS).output.attentions[-1].detach().double()
    offset = 0.5 * torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
    with moved_scores(model.layers[-1], offset):
        moved = step_of(model, batch, needs=NEEDS).output.attentions[-1].detach().double()
    expected = (plain.log() + offset.double()).softmax(-1)
    torch.testing.assert_close(moved, torch.where(plain > 0, expected, 0.0), rtol=1e-4, atol=1e-6)
    assert torch.equal(plain, step_of(model, batch, needs=NEEDS).output.attentions[-1].double()), "the hook is gone"


def test_the_loss_rises_by_epsilon_times_the_rows_gradients():
    """Against finite differences: to first order CE rises by epsilon sum over rows ||g_row||, more than at random."""
    model, batch = ready()
    step = step_of(model, batch, needs=NEEDS)
    clean = F.cross_entropy(step.output.logits, step.labels, reduction="none").detach()
    shape = step.output.attentions[-1].shape
    with moved_scores(model.layers[-1], torch.zeros(shape)):
        assert torch.equal(step.again().logits, step.output.logits)
    rows = torch.zeros(len(clean))
    for number in range(len(clean)):
        offset = torch.zeros(shape, requires_grad=True)
        with moved_scores(model.layers[-1], offset):
            loss = F.cross_entropy(step.again().logits, step.labels, reduction="none")[number]
            (gradient,) = torch.autograd.grad(loss, offset)
        rows[number] = gradient[number].norm(dim=-1).sum()
    epsilon = 0.05
    found = AttentionAT(epsilon=epsilon).per_example(step).detach()
    torch.testing.assert_close(found - clean, epsilon * rows, rtol=0.15, atol=2e-5)
    for seed in range(10):
        noise = F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)
        with moved_scores(model.layers[-1], epsilon * noise):
            random = F.cross_entropy(step.again().logits, step.labels, reduction="none")
        assert (found >= random - 1e-6).all()


def test_the_interpretable_form_is_the_same_perturbation():
    """iAT written out in float64, differentiated through alpha: r_t = epsilon sum_k (g_tk / ||g||) D_tk is AT's r."""
    torch.manual_seed(0)
    scores, values = torch.randn(7, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)

    def loss(scores):
        return F.cross_entropy((scores.softmax(0) @ values)[None], torch.tensor([1]))

    offset = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(scores + offset), offset)
    D = F.normalize(scores[:, None] - scores, dim=1)
    alpha = torch.zeros(7, 7, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(loss(scores + (alpha * D).sum(1)), alpha)
    torch.testing.assert_close((g / g.norm() * D).sum(1), gradient / gradient.norm())


def test_radius_zero_is_cross_entropy_to_the_bit(tiny_bert):
    weights = []
    for objectives in ({"cross_entropy": 1.0}, {"attention_at": {"epsilon": 0}}):
        recipe = Recipe(objectives=objectives, epochs=1, batch_size=16, precision="float32")
        weights.append(recipe.fit(tiny_bert, examples(32)).model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_it_trains_a_head_through_a_frozen_block(tiny_bert):
    recipe = Recipe(
        objectives={"cross_entropy": 1.0, "attention_at": {"epsilon": 2.0}}, selection="head", head="zero", epochs=1
    )
    run = recipe.fit(tiny_bert, examples(32))
    assert run.model.head.weight.abs().sum() > 0
    assert run.history.losses[0] == pytest.approx(2 * 0.6931, rel=1e-3)
