"""Objectives that pre-train an encoder of text: RetroMAE, SimLM, MAE-LM, and the words they hide."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_problem import tiny_context, tiny_model
from tiny_transformer import CLS, MASK, PAD, SEP, WIDTH, WORDS, causal_model, context, step_of, text_batch, text_model
from torch import nn
from transformers import BertForMaskedLM

from surefoot.errors import RecipeError
from surefoot.models.shallow_decoder import WordHead
from surefoot.tune.masking import WordMasking
from surefoot.tune.objectives.mae_lm import MAELM
from surefoot.tune.objectives.retromae import RetroMAE
from surefoot.tune.objectives.simlm import SimLM


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
    return float((scores.logsumexp(0) - scores[word]).detach())


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


@pytest.mark.parametrize("make", [RetroMAE, SimLM, MAELM])
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


# --- SimLM


def with_own_output(model, folder):
    """The model as if loaded from a checkpoint that has an output layer for masked words; and that checkpoint."""
    torch.manual_seed(3)
    whole = BertForMaskedLM(model.backbone.config)
    whole.bert.load_state_dict(model.backbone.state_dict())
    nn.init.normal_(whole.cls.predictions.bias)
    nn.init.normal_(whole.cls.predictions.transform.LayerNorm.weight, mean=1.0, std=0.3)
    whole.save_pretrained(folder)
    model.source = str(folder)
    return whole.eval()


def test_the_output_layer_of_the_checkpoint_is_used(tmp_path):
    """Against transformers' own BertForMaskedLM with the same weights."""
    model, batch = text_model().eval(), text_batch()
    assert not WordHead(model).found
    whole = with_own_output(model, tmp_path / "bert")
    head = WordHead(model)
    assert head.found
    inputs = dict(batch.inputs)
    states = model.backbone(**inputs).last_hidden_state
    torch.testing.assert_close(head(model, states), whole(**inputs).logits, rtol=1e-4, atol=1e-5)
    table = nn.Embedding(WORDS + 1, WIDTH)
    model.backbone.set_input_embeddings(table)
    assert not WordHead(model).found, "an output for other words"


@pytest.mark.parametrize("bottleneck", ["pooled", "cls"])
def test_simlm_by_hand(tmp_path, bottleneck):
    """Against a float64 count of the authors' loss: cross-entropy at every word, of the encoder and of a decoder that is
    two of transformers' own blocks called one after another."""
    model, batch = text_model(layers=3).eval(), text_batch()
    with_own_output(model, tmp_path / "bert")
    term = objective(SimLM, model, bottleneck=bottleneck)
    assert not term.generator.trains
    found = float(term(step(model, batch, term)).detach())
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    again = step(model, batch, term)
    for_encoder, for_decoder = term._hidden(ids, seen, again.generator)
    read, _ = term._replaced(again, for_encoder)
    left, _ = term._replaced(again, for_decoder)
    assert (read[~for_encoder] == ids[~for_encoder]).all()
    assert (left[~for_decoder] == ids[~for_decoder]).all()
    assert (for_encoder <= for_decoder).all()
    states = model.backbone(input_ids=read, attention_mask=seen).last_hidden_state.detach()
    weights = seen[:, :, None].float()
    vector = states[:, 0] if bottleneck == "cls" else (states * weights).sum(1) / weights.sum(1)
    g = torch.cat([vector[:, None], model.backbone.embeddings(left)[:, 1:]], 1)
    unseen = torch.where(seen.bool(), 0.0, -1e9)[:, None, None]
    for layer in model.layers[-2:]:
        g = layer(g, unseen)
    words = [(i, t) for i in range(len(ids)) for t in range(1, int(seen[i].sum()) - 1)]
    losses = [logarithm(term, model, each[i, t].detach(), ids[i, t]) for each in (states, g) for i, t in words]
    assert found == pytest.approx(2 * sum(losses) / len(losses), rel=1e-5)


def test_simlm_hides_half_from_the_decoder_and_three_tenths_of_that_from_the_encoder():
    """Against the authors' shares, over many draws of texts of single-token words."""
    model, batch = text_model(), text_batch(size=12, length=14, padding=False)
    term = objective(SimLM, model)
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    draws = [term._hidden(ids, seen, torch.Generator().manual_seed(i)) for i in range(200)]
    first, second = (torch.stack([each[k] for each in draws]).float().sum(2).mean() / 14 for k in (0, 1))
    assert float(first) == pytest.approx(4 / 14)  # 0.3 of 14 tokens, rounded
    assert float(second) == pytest.approx(0.5, abs=0.03)


def test_a_generator_that_trains_is_paid_for_and_a_frozen_one_is_not(tmp_path):
    model, batch = text_model(), text_batch()
    term = objective(SimLM, model)
    assert term.generator.trains
    silent(term.head)
    silent(term.generator.guess)
    nn.init.zeros_(term.generator.bias)
    value = term(step(model, batch, term))
    assert float(value.detach()) == pytest.approx(2.2 * math.log(WORDS), rel=1e-5)
    with_own_output(model, tmp_path / "bert")
    frozen = objective(SimLM, model)
    frozen(step(model, batch, frozen)).backward()
    assert not list(frozen.generator.parameters())
    assert all(each.grad is None for each in frozen.generator.__dict__["frozen"].parameters())


# --- MAE-LM


def test_mae_lm_by_hand():
    """Against an encoder that is really given the shorter texts, each word with its own position, and a decoder that is
    transformers' own blocks called one after another; cross-entropies in float64."""
    model, batch = text_model(layers=2).eval(), text_batch()
    term = objective(MAELM, model, share=0.4)
    found = float(term(step(model, batch, term)).detach())
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    drawn = torch.rand(ids.shape, generator=step(model, batch, term).generator)
    embeddings, losses = model.backbone.embeddings, []
    for i in range(len(ids)):
        count = int(seen[i].sum())
        places = torch.arange(count)
        left_out = (drawn[i, :count] < 0.4) & (places > 0) & (places < count - 1)
        if not left_out.any():
            continue
        short = places[~left_out]
        states = model.backbone(input_ids=ids[i : i + 1, short], position_ids=short[None]).last_hidden_state[0]
        filled = embeddings.word_embeddings.weight[MASK].repeat(count, 1)
        filled[short] = states
        g = embeddings(inputs_embeds=filled[None])
        for layer in term.decoder:
            g = layer(g)
        losses += [logarithm(term, model, g[0, t].detach(), ids[i, t]) for t in places[left_out]]
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_mae_lm_learns_nothing_of_words_that_nobody_left_out():
    model, batch = text_model(), text_batch(length=3, padding=False)
    term = objective(MAELM, model, share=1e-9)
    assert float(term(step(model, batch, term)).detach()) == 0.0


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (RetroMAE, {"encoder_share": 0.0}),
        (RetroMAE, {"decoder_share": 1.0}),
        (RetroMAE, {"bottleneck": "max"}),
        (SimLM, {"encoder_share": 0.6}),
        (SimLM, {"decoder_layers": 0}),
        (MAELM, {"share": 1.5}),
        (MAELM, {"decoder_layers": 1.5}),
    ],
)
def test_settings_that_cannot_work_are_refused(make, options):
    with pytest.raises(RecipeError, match=next(iter(options)) if make is not SimLM else "decoder"):
        make(**options)
