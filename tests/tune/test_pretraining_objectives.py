"""Objectives that pre-train an encoder of text: RetroMAE, SimLM, MAE-LM, and the words they hide."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_problem import tiny_context, tiny_model
from tiny_transformer import CLS, MASK, PAD, SEP, WIDTH, WORDS, causal_model, context, step_of, text_batch, text_model
from torch import nn

from surefoot.errors import RecipeError
from surefoot.tune.masking import WordMasking
from surefoot.tune.objectives.retromae import RetroMAE


def objective(make, model, **options):
    torch.manual_seed(1)
    term = make(**options)
    term.setup(context(model))
    return term.eval()


def step(model, batch, term, seed=0):
    return step_of(model, batch, seed=seed, needs=term.needs)


def silent(module):
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def logarithm(term, model, state, word):
    """-log p(word) of the output layer at one state, in float64 from its formula."""
    linear, norm = term.head.transform[0], term.head.transform[2]
    x = linear.weight.double() @ state.double() + linear.bias.double()
    x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    x = (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + norm.eps) * norm.weight + norm.bias
    table = model.backbone.get_input_embeddings().weight.double()
    scores = table @ x.double() + term.head.bias.double()
    return float(scores.logsumexp(0) - scores[word])


# --- what is hidden


def test_whole_words_are_hidden_a_share_of_them_and_no_mark():
    """Against the counts by hand: tokens 20 to 39 go on with a word."""
    model, batch = text_model(), text_batch(length=12)
    model.processor.tokenizer.get_vocab = lambda: {f"{'##' if i >= 20 else ''}w{i}": i for i in range(WORDS)}
    masking = WordMasking("retromae", model)
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    drawn = masking.draw(ids, seen, 0.4, torch.Generator().manual_seed(0), copies=400)
    assert drawn.shape == (len(ids), 400, 12)
    assert not drawn[:, :, 0].any()
    for row, (tokens, mask) in enumerate(zip(ids.tolist(), seen.tolist(), strict=True)):
        words = []
        for place, token in enumerate(tokens):
            if not mask[place] or token in (PAD, CLS, SEP):
                assert not drawn[row, :, place].any()
            elif token >= 20 and words and words[-1][-1] == place - 1:
                words[-1].append(place)
            else:
                words.append([place])
        budget = max(1, round(0.4 * sum(mask)))
        assert int(drawn[row].sum(1).max()) <= budget
        for word in words:
            assert (drawn[row][:, word].all(1) == drawn[row][:, word].any(1)).all()
        if all(len(word) == 1 for word in words):
            assert (drawn[row].sum(1) == budget).all()
        if budget >= max(map(len, words)):
            assert drawn[row].any(0)[[place for word in words for place in word]].all()


def test_of_hidden_tokens_four_in_five_read_mask_and_one_in_ten_another_word():
    model = text_model()
    masking = WordMasking("retromae", model)
    ids, hidden = torch.full((50, 200), 7), torch.zeros(50, 200, dtype=torch.bool)
    hidden[:, :100] = True
    read = masking.hide(ids, hidden, torch.Generator().manual_seed(0), vocabulary=WORDS)
    assert (read[:, 100:] == 7).all()
    assert float((read[:, :100] == MASK).float().mean()) == pytest.approx(0.8 + 0.1 / WORDS, abs=0.02)
    assert float((read[:, :100] == 7).float().mean()) == pytest.approx(0.1 + 0.1 / WORDS, abs=0.015)


@pytest.mark.parametrize("make", [RetroMAE])
def test_what_they_are_not_for(make):
    for model in (tiny_model(), causal_model()):
        with pytest.raises(RecipeError, match="mask"):
            make().setup((tiny_context if model.dim != WIDTH else context)(model))


# --- RetroMAE


@pytest.mark.parametrize("bottleneck", ["pooled", "cls"])
def test_retromae_by_hand(bottleneck):
    """Against both losses computed place by place, attention in float64 from the paper's equations 4 to 7."""
    model, batch = text_model(), text_batch(size=4)
    term = objective(RetroMAE, model, bottleneck=bottleneck)
    found = float(term(step(model, batch, term)).detach())
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    generator, masking = step(model, batch, term).generator, term.masking_
    hidden = masking.draw(ids, seen, 0.3, generator)[:, 0]
    read = masking.hide(ids, hidden, generator, vocabulary=WORDS)
    unread = masking.draw(ids, seen, 0.5, generator, copies=ids.shape[1])
    states = model.backbone(input_ids=read, attention_mask=seen).last_hidden_state.detach()
    inputs = model.backbone.embeddings(ids).detach()
    positions = model.backbone.embeddings.position_embeddings.weight.detach()
    guessing, rebuilding = [], []
    for i in range(len(ids)):
        count = int(seen[i].sum())
        vector = states[i, 0] if bottleneck == "cls" else states[i, :count].mean(0)
        keys = torch.cat([vector[None], inputs[i, 1:]])
        for t in range(1, count - 1):
            if hidden[i, t]:
                guessing.append(logarithm(term, model, states[i, t], ids[i, t]))
            may = [s for s in range(count) if s == 0 or (s != t and not unread[i, t, s])]
            state = block(term.decoder, vector + positions[t], keys[may])
            rebuilding.append(logarithm(term, model, state, ids[i, t]))
    expected = sum(guessing) / len(guessing) + sum(rebuilding) / len(rebuilding)
    assert found == pytest.approx(expected, rel=1e-5)


def block(decoder, query, keys):
    """BERT's block for one query and the keys it may look at, in float64."""
    query, keys = query.double(), keys.double()
    weights, biases = (
        decoder.attention.in_proj_weight.double().chunk(3),
        decoder.attention.in_proj_bias.double().chunk(3),
    )
    q, k, v = query @ weights[0].T + biases[0], keys @ weights[1].T + biases[1], keys @ weights[2].T + biases[2]
    size = WIDTH // decoder.heads
    heads = []
    for head in range(decoder.heads):
        part = slice(head * size, (head + 1) * size)
        attention = (k[:, part] @ q[part] / math.sqrt(size)).softmax(0)
        heads.append(attention @ v[:, part])
    out = decoder.attention.out_proj
    inner = normed(decoder.norm, query + torch.cat(heads) @ out.weight.double().T + out.bias.double())
    first, second = decoder.feed_forward[0], decoder.feed_forward[2]
    x = first.weight.double() @ inner + first.bias.double()
    x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return normed(decoder.last_norm, inner + second.weight.double() @ x + second.bias.double())


def normed(norm, x):
    return (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + norm.eps) * norm.weight.double() + norm.bias.double()


def test_retromae_without_a_say_costs_two_logarithms():
    """Closed form: an output layer of zeros finds every one of V words equally likely, twice."""
    model, batch = text_model(), text_batch()
    term = objective(RetroMAE, model)
    silent(term.head)
    assert float(term(step(model, batch, term)).detach()) == pytest.approx(2 * math.log(WORDS), rel=1e-5)


def test_the_decoder_sees_the_text_through_the_vector_alone():
    """With nearly all words hidden from the decoder, its loss reaches the encoder's blocks by the vector only: held
    fixed, no gradient arrives."""
    model, batch = text_model(), text_batch()
    term = objective(RetroMAE, model)
    vector = torch.randn(len(batch), WIDTH, requires_grad=True)
    term._rebuilding(step(model, batch, term), vector).backward()
    assert vector.grad.abs().sum(1).gt(0).all()
    assert not any(each.grad is not None and each.grad.any() for layer in model.layers for each in layer.parameters())
