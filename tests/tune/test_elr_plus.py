"""ELR+."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from tiny_problem import EXAMPLES, move, tiny_batch, tiny_context, tiny_model, tiny_step
from tiny_transformer import context, step_of, text_batch, text_model
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objectives.elr_plus import ELRPlus, mixed_pass


def objective(model, **options):
    term = ELRPlus(**options)
    term.setup(tiny_context(model))
    return term


def test_three_steps_by_hand():
    """Against numpy in float64: the authors' trainer written out for both networks, with the mixtures that were drawn."""
    model = tiny_model()
    term = objective(model, beta=0.6, strength=2.0, decay=0.5, ramp=2)
    move(term.peer, 9)
    networks = [model, term.peer]
    averages = [deepcopy(tiny_model()), deepcopy(tiny_model())]  # as setup found both
    targets = np.zeros((2, EXAMPLES, 3))
    for number in range(1, 4):
        batch = tiny_batch(number, size=8)
        step = tiny_step(model, batch, seed=number)
        term.update(step)
        value = term.per_example(step).detach().numpy()

        share = min(1 - 1 / (number + 1), 0.5)
        answers = []
        for network, average in zip(networks, averages, strict=True):
            for ours, theirs in zip(average.parameters(), network.parameters(), strict=True):
                ours.data = share * ours.data + (1 - share) * theirs.data
            answers.append(softmax(average(batch).logits.detach().double().numpy(), axis=1))
        index = batch.index.numpy()
        targets[0, index] = 0.6 * targets[0, index] + 0.4 * answers[1]
        targets[1, index] = 0.6 * targets[1, index] + 0.4 * answers[0]
        again = tiny_step(model, batch, seed=number)
        expected = np.zeros(8)
        for network, kept in zip(networks, targets, strict=True):
            m, other = term._mixture(8, again.generator)
            assert m >= 0.5
            x = batch.inputs["features"]
            mixed = type(batch)(**{**vars(batch), "inputs": {"features": m * x + (1 - m) * x[other]}})
            log_p = log_softmax(network(mixed).logits.detach().double().numpy(), axis=1)
            y = np.eye(3)[batch.labels.numpy()]
            y, t = (m * each + (1 - m) * each[other.numpy()] for each in (y, kept[index]))
            p = np.clip(np.exp(log_p), 1e-4, 1 - 1e-4)
            ramp = np.exp(-5 * (1 - number / 2) ** 2) if number < 2 else 1.0
            expected += -(y * log_p).sum(1) + ramp * 2.0 * np.log(1 - (t * p).sum(1))
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        for network in networks:
            move(network, number)


def test_without_strength_and_mixture_it_is_two_networks_cross_entropy():
    model = tiny_model()
    term = objective(model, strength=0.0, alpha=0.0)
    step = tiny_step(model, tiny_batch())
    term.update(step)
    expected = F.cross_entropy(step.output.logits, step.labels, reduction="none")
    torch.testing.assert_close(term.per_example(step), 2 * expected)


def test_both_networks_train_and_the_averages_do_not():
    model = tiny_model()
    term = objective(model)
    step = tiny_step(model, tiny_batch())
    term.update(step)
    term(step).backward()
    assert all(each.grad is not None and each.grad.any() for each in [*model.parameters(), *term.peer.parameters()])
    assert len(list(term.parameters())) == len(list(model.parameters()))


def test_texts_are_mixed_by_their_words():
    """A mixture of a text with itself is the text; what is padding in both stays unseen; words get a gradient."""
    model, batch = text_model(), text_batch()
    step = step_of(model, batch)
    same = torch.arange(len(batch))
    torch.testing.assert_close(mixed_pass(step, model, 0.7, same).logits, step.output.logits)
    term = ELRPlus()
    term.setup(context(model))
    term.update(step)
    term(step).backward()
    assert model.backbone.get_input_embeddings().weight.grad.any()
    longer = torch.cat([batch.inputs["input_ids"], torch.full((12, 2), 7)], 1)
    mask = torch.cat([batch.inputs["attention_mask"], torch.zeros(12, 2, dtype=torch.long)], 1)
    padded = type(batch)(**{**vars(batch), "inputs": {"input_ids": longer, "attention_mask": mask}})
    other = torch.arange(12).flip(0)
    torch.testing.assert_close(
        mixed_pass(step, model, 0.7, other).logits, mixed_pass(step_of(model, padded), model, 0.7, other).logits
    )


@pytest.mark.parametrize("options", [{"beta": 1.0}, {"strength": -1.0}, {"alpha": -1.0}, {"decay": 1.0}, {"ramp": 1.5}])
def test_out_of_range(options):
    with pytest.raises(RecipeError):
        ELRPlus(**options)
