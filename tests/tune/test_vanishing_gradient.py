"""The regulariser against vanishing gradients."""

from __future__ import annotations

import pytest
import torch
from tiny_problem import tiny_context, tiny_model
from tiny_transformer import context, step_of, text_batch, text_model
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objectives.vanishing_gradient import VanishingGradient


def dense_reference(model, batch):
    """The paper's Omega from the full Jacobian of every block, block by block."""
    with torch.no_grad():
        states = model(batch, hidden_states=True).hidden_states
    top = states[-1].detach().requires_grad_()
    logits = model.head(top.mean(1))
    (above,) = torch.autograd.grad(F.cross_entropy(logits, batch.labels, reduction="sum"), top)
    omega = 0.0
    for layer, entered in reversed(list(zip(model.layers, states[:-1], strict=True))):
        below = []
        for i in range(len(entered)):

            def block(state, layer=layer):
                output = layer(state[None])
                return (output[0] if isinstance(output, tuple) else output)[0].flatten()

            jacobian = torch.func.jacrev(block)(entered[i].detach()).flatten(1)
            below.append((above[i].flatten() @ jacobian).view_as(entered[i]))
        found = torch.stack(below)
        ratio = found.flatten(1).norm(dim=1) / above.flatten(1).norm(dim=1)
        omega = omega + (ratio - 1).square()
        above = found.detach()
    return omega


@pytest.fixture
def problem():
    model = text_model(attention="sdpa")
    batch = text_batch(size=4, length=5, padding=False)
    term = VanishingGradient()
    term.setup(context(model))
    return model, batch, term


def test_it_is_the_papers_sum(problem):
    """Against full Jacobians of every block (torch.func), written from the paper's formula."""
    model, batch, term = problem
    torch.testing.assert_close(term.per_example(step_of(model, batch)), dense_reference(model, batch))


def test_gradient_is_the_immediate_one(problem):
    """Against finite differences of the dense sum, in which only one block's own weight moves and states and errors stay."""
    model, batch, term = problem
    model.backbone.double()
    weight = model.layers[1].intermediate.dense.weight
    term(step_of(model, batch)).backward()
    states = model(batch, hidden_states=True).hidden_states
    top = states[-1].detach().requires_grad_()
    (above,) = torch.autograd.grad(F.cross_entropy(model.head(top.float().mean(1)), batch.labels, reduction="sum"), top)
    entered = states[1].detach()

    def omega() -> float:
        leaf = entered.clone().requires_grad_()
        output = model.layers[1](leaf)
        output = output[0] if isinstance(output, tuple) else output
        (below,) = torch.autograd.grad(output, leaf, above)
        ratio = below.flatten(1).norm(dim=1) / above.flatten(1).norm(dim=1)
        return float((ratio - 1).square().mean())

    step, flat = 1e-6, weight.data.view(-1)
    for i in (0, 17, 101):
        kept = float(flat[i])
        flat[i] = kept + step
        more = omega()
        flat[i] = kept - step
        less = omega()
        flat[i] = kept
        torch.testing.assert_close(
            weight.grad.view(-1)[i], torch.tensor((more - less) / (2 * step)).double(), rtol=1e-3, atol=1e-6
        )


def test_frozen_blocks_have_no_share(problem):
    model, batch, term = problem
    whole = term.per_example(step_of(model, batch))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layer.1" in name or name.startswith("head"))
    model.freeze(1)
    part = term.per_example(step_of(model.train(), batch))
    assert (part < whole).all()
    model.freeze(3)
    assert torch.equal(term.per_example(step_of(model.train(), batch)), torch.zeros(4))


def test_a_model_without_blocks_is_refused():
    with pytest.raises(RecipeError, match="blocks"):
        VanishingGradient().setup(tiny_context(tiny_model()))
