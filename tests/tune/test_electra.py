"""ELECTRA's replaced-token detection."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare
from tiny_problem import tiny_context, tiny_model
from tiny_transformer import CLS, MASK, SEP, WIDTH, WORDS, context, step_of, text_batch, text_model
from torch import nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objectives.electra import ELECTRA


def objective(model, **options):
    torch.manual_seed(1)
    term = ELECTRA(**options)
    term.setup(context(model))
    return term.eval()


def step(model, batch, seed=0):
    return step_of(model, batch, seed=seed, needs=ELECTRA.needs)


def silent(module):
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def test_an_ignorant_generator_and_discriminator_cost_log_v_and_log_2():
    """Closed forms: without weights the generator guesses 1 of V words and the discriminator tosses a coin."""
    model, batch = text_model(), text_batch()
    term = objective(model, share=0.5)
    silent(term.guess)
    silent(term.discriminator)
    assert float(term(step(model, batch))) == pytest.approx(math.log(WORDS) + 50 * math.log(2), rel=1e-5)


def test_values_by_hand():
    """Against the two losses computed token by token from the same draws."""
    model, batch = text_model(), text_batch()
    term = objective(model, share=0.4, discriminator_weight=7.0)
    found = float(term(step(model, batch)))
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    again = step(model, batch)
    masked = term._masked(ids, mask, again.generator)
    corrupted, _ = term._replaced(again, ids, mask, masked)
    table = model.backbone.get_input_embeddings().weight
    seen = torch.where(masked, MASK, ids)
    states = term.small(inputs_embeds=table[seen], attention_mask=mask).last_hidden_state
    hidden = model.backbone(input_ids=corrupted, attention_mask=mask).last_hidden_state
    guessing, telling = [], []
    for i, t in zip(*torch.nonzero(mask, as_tuple=True), strict=True):
        if masked[i, t]:
            scores = (term.guess(states[i, t]) * table).sum(1) + term.bias
            guessing.append(float(scores.logsumexp(0) - scores[ids[i, t]]))
        else:
            assert corrupted[i, t] == ids[i, t]
        score = float(term.discriminator(hidden[i, t]))
        sign = -1.0 if corrupted[i, t] == ids[i, t] else 1.0
        telling.append(math.log1p(math.exp(-sign * score)))
    expected = sum(guessing) / len(guessing) + 7.0 * sum(telling) / len(telling)
    assert found == pytest.approx(expected, rel=1e-4)


def test_marks_and_padding_are_never_masked_and_a_share_of_the_words_is():
    model, batch = text_model(), text_batch()
    term = objective(model, share=0.3)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([term._masked(ids, mask, generator) for _ in range(300)])
    words = mask.bool() & (ids != CLS) & (ids != SEP)
    assert not draws[:, ~words].any()
    assert float(draws[:, words].float().mean()) == pytest.approx(0.3, abs=0.02)


def test_words_are_drawn_from_the_generators_distribution():
    """Chi-square of the drawn words against the generator's probabilities at one place."""
    model, batch = text_model(), text_batch(size=1, padding=False)
    term = objective(model)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    masked = torch.zeros_like(ids, dtype=torch.bool)
    masked[0, 3] = True
    table = model.backbone.get_input_embeddings().weight
    states = term.small(inputs_embeds=table[ids.masked_fill(masked, MASK)], attention_mask=mask).last_hidden_state
    chances = (term.guess(states[0, 3]) @ table.T + term.bias).softmax(0).detach().double()
    again = step(model, batch)
    with torch.no_grad():
        drawn = [int(term._replaced(again, ids, mask, masked)[0][0, 3]) for _ in range(2000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=WORDS).double()
    often = chances > 5 / 2000
    observed, expected = counts[often], 2000 * chances[often]
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def test_gradients_flow_where_they_should():
    """The discriminator's loss reaches the encoder and not the generator; the generator's reaches the shared words."""
    model, batch = text_model(), text_batch()
    term = objective(model, share=0.5)
    term(step(model, batch)).backward()
    both = {name: each.grad.clone() for name, each in term.named_parameters() if each.grad is not None}
    term.zero_grad()
    model.zero_grad()
    term.discriminator_weight = 0.0
    term(step(model, batch)).backward()
    for name, each in term.named_parameters():
        if name.startswith(("small", "guess", "bias")) and name in both:
            torch.testing.assert_close(both[name], each.grad)
    assert model.backbone.get_input_embeddings().weight.grad.any()
    assert not any(each.grad is not None and each.grad.any() for each in model.layers[0].parameters())


def test_nothing_to_mask_is_all_original():
    model, batch = text_model(), text_batch(length=3, padding=False)
    term = objective(model, share=1e-9)
    scores = F.softplus(term.discriminator(step(model, batch).output.hidden_states[-1]))
    torch.testing.assert_close(term(step(model, batch)), 50 * scores.mean())


def test_what_it_is_not_for():
    with pytest.raises(RecipeError, match="mask token"):
        ELECTRA().setup(tiny_context(tiny_model()))
    for options in ({"share": 0.0}, {"width": 1.5}, {"discriminator_weight": -1.0}):
        with pytest.raises(RecipeError):
            ELECTRA(**options)
    assert objective(text_model(), width=0.5).small.config.hidden_size == WIDTH // 2
