"""Unsupervised objectives of sentence embeddings: SimCSE, DiffCSE, CompCSE, CLEAR, DenoSent, rank reduction, hidden words."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors
from tiny_problem import take, tiny_batch, tiny_context, tiny_model, tiny_step
from tiny_transformer import CLS, EXAMPLES, MASK, SEP, WORDS, context, step_of, text_batch, text_model
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM, BertForMaskedLM

from conftest import sentences
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.evidence.undone import write
from surefoot.models.load import load
from surefoot.models.predict import encode_inputs, predict
from surefoot.models.shallow_decoder import WordHead
from surefoot.tune.fit import Fit
from surefoot.tune.objectives.clear import CLEAR, nt_xent
from surefoot.tune.objectives.compcse import CompCSE
from surefoot.tune.objectives.denosent import DenoSent
from surefoot.tune.objectives.diffcse import DiffCSE, first_state
from surefoot.tune.objectives.masked_lm import MaskedLM, choose
from surefoot.tune.objectives.rank_reduction import RankReduction
from surefoot.tune.objectives.simcse import SimCSE
from surefoot.tune.objectives.views import contrast, dropouts
from surefoot.tune.rank_curve import RankCurve
from surefoot.tune.recipe import Recipe


def ready(term, model):
    torch.manual_seed(1)
    term.setup(context(model))
    return term


def step(model, batch, term, seed=0):
    return step_of(model, batch, seed=seed, needs=term.needs)


def reference(first, second, temperature):
    """-log exp(cos(u_i, v_i) / t) / sum_j exp(cos(u_i, v_j) / t) in float64, from the paper's formula."""
    u, v = (np.asarray(each.detach(), dtype=np.float64) for each in (first, second))
    u, v = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (u, v))
    scores = u @ v.T / temperature
    return logsumexp(scores, axis=1) - np.diag(scores)


# --- SimCSE


def test_simcse_is_the_papers_formula_on_two_dropout_passes():
    """Against float64: both passes run again from the same random state."""
    model, batch = text_model(dropout=0.1), text_batch()
    term = ready(SimCSE(temperature=0.1), model)
    found = term.per_example(step(model, batch, term))
    again = step(model, batch, term)
    first, second = (term.projector(each.features) for each in (again.output, again.second_output))
    assert not torch.equal(first, second)
    np.testing.assert_allclose(found.detach(), reference(first, second, 0.1), rtol=1e-5)


def test_texts_that_nothing_tells_apart_cost_log_b():
    """Closed form."""
    model, batch = text_model(), take(text_batch(), torch.zeros(6, dtype=torch.long))
    term = ready(SimCSE(dropout=0.0), model)
    torch.testing.assert_close(term(step(model, batch, term)), torch.tensor(math.log(6)))
    assert float(contrast(torch.eye(3), torch.eye(3), 0.05).max()) < 1e-7


def test_dropout_is_asked_for_set_and_given_back():
    with pytest.raises(RecipeError, match="give the rate"):
        ready(SimCSE(), text_model())
    model = tiny_model()
    model.backbone[2] = nn.Identity()
    with pytest.raises(RecipeError, match="no dropout modules"):
        SimCSE(dropout=0.1).setup(tiny_context(model))
    model = text_model(dropout=0.1)
    term = ready(SimCSE(dropout=0.0), model)
    one = step(model, text_batch(), term)
    assert torch.equal(one.output.features, one.second_output.features)
    term.finish(model)
    assert {each.p for each in dropouts(model).values()} == {0.1}


# --- DiffCSE


def test_lambda_zero_is_the_contrast_alone_to_the_bit():
    model, batch = text_model(dropout=0.1), text_batch()
    term = ready(DiffCSE(lambda_rtd=0.0), model)
    again = step(model, batch, term)
    expected = contrast(*term.views(again), 0.05).mean()
    assert torch.equal(term(step(model, batch, term)), expected)


def test_diffcse_projects_by_batch_norms():
    """Against torch's own functional batch norm in float64, over the vectors of both passes."""
    model, batch = text_model(dropout=0.1), text_batch()
    term = ready(DiffCSE(), model)
    one = step(model, batch, term)
    both = torch.cat([one.output.features, one.second_output.features]).double()
    down, up = (term.projector[place].weight.double() for place in (3, 0))
    hidden = F.batch_norm(both @ up.T, None, None, training=True).relu()
    expected = F.batch_norm(hidden @ down.T, None, None, training=True)
    torch.testing.assert_close(torch.cat(term.views(one)).double(), expected, rtol=1e-4, atol=1e-4)


def test_the_discriminator_reads_the_vector_in_place_of_the_first_token():
    """Against transformers' own embeddings and encoder, with the vector put between them by hand."""
    model, batch = text_model(), text_batch(padding=False)
    term = ready(DiffCSE(dropout=0.0), model)
    vectors = torch.randn(EXAMPLES, model.dim)
    one = step(model, batch, term)
    with first_state(term.discriminator, vectors):
        found = one.again(inputs=batch.inputs, model=term.discriminator).hidden_states[-1]
    bert = term.discriminator.backbone
    states = bert.embeddings(input_ids=batch.inputs["input_ids"])
    states = torch.cat([vectors[:, None], states[:, 1:]], 1)
    torch.testing.assert_close(found, bert.encoder(states).last_hidden_state)
    plain = one.again(inputs=batch.inputs, model=term.discriminator).hidden_states[-1]
    torch.testing.assert_close(plain, bert(batch.inputs["input_ids"]).last_hidden_state)


def test_telling_is_the_log_loss_of_what_was_replaced():
    """Against scikit-learn's log loss over the tokens that are no padding, of the edits that the same draws give."""
    model, batch = text_model(), text_batch()
    term = ready(DiffCSE(dropout=0.0, share=0.5), model)
    vectors = torch.randn(2 * EXAMPLES, model.dim)
    found = float(term.telling(step(model, batch, term), vectors))
    again = step(model, batch, term)
    ids, mask = (torch.cat([batch.inputs[name]] * 2) for name in ("input_ids", "attention_mask"))
    edits = torch.cat([term.edited(again), term.edited(again)])
    assert (edits != ids).any()
    with first_state(term.discriminator, vectors):
        inputs = {"input_ids": edits, "attention_mask": mask}
        states = again.again(inputs=inputs, model=term.discriminator).hidden_states[-1]
    seen = mask.bool()
    chances = term.tell(states[seen]).softmax(1).detach()
    assert found == pytest.approx(log_loss((edits != ids)[seen], chances, labels=[False, True]), rel=1e-5)
    term.telling(step(model, batch, term), vectors.requires_grad_()).backward()
    assert vectors.grad.any()


def test_edits_are_the_language_models_likeliest_words(bert_folder, tmp_path):
    """Against transformers' AutoModelForMaskedLM on what was hidden, for a generator from a folder."""
    model = load(bert_folder)
    torch.manual_seed(3)
    whole = BertForMaskedLM(model.backbone.config)
    whole.save_pretrained(tmp_path / "language")
    model.processor.save(tmp_path / "language")
    ids = torch.tensor([[CLS, 9, 12, 7, 11, 8, SEP]] * 8)
    batch = text_batch(size=8)
    batch = type(batch)(
        inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels=batch.labels, index=batch.index
    )
    for fill in ("masked", "all"):
        term = ready(DiffCSE(generator=str(tmp_path / "language"), share=0.4, fill=fill), model)
        found = term.edited(step(model, batch, term))
        again = step(model, batch, term)
        chosen = choose(term.masking_, again, 0.4)
        read = term.masking_.hide(ids, chosen, again.generator, vocabulary=model.backbone.config.vocab_size)
        guessed = whole.eval()(read).logits.argmax(2)
        words = chosen if fill == "masked" else (ids != CLS) & (ids != SEP)
        assert torch.equal(found, torch.where(words, guessed, ids))
    tokenizer = copy.deepcopy(model.processor.tokenizer)
    tokenizer.add_tokens(["unheard"])
    tokenizer.save_pretrained(tmp_path / "language")
    with pytest.raises(RecipeError, match="same vocabulary"):
        ready(DiffCSE(generator=str(tmp_path / "language")), model)


# --- CompCSE


def test_halves_make_the_text_and_single_words_are_their_own():
    model = text_model()
    term = ready(CompCSE(), model)
    ids = torch.tensor([[CLS, 10, 11, 12, 13, 14, SEP], [CLS, 20, SEP, 0, 0, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    halves = term.halves(inputs, torch.Generator())
    rows = [row[mask.bool()].tolist() for row, mask in zip(*halves.values(), strict=True)]
    assert rows == [[CLS, 10, 11, SEP], [CLS, 20, SEP], [CLS, 12, 13, 14, SEP], [CLS, 20, SEP]]
    term.inside_ = {12, 13}  # these go on with a word
    assert term.halves(inputs, torch.Generator())["input_ids"][0].tolist()[:3] == [CLS, 10, SEP]
    term.cut = "random"
    drawn = {len(term.halves(inputs, torch.Generator().manual_seed(i))["input_ids"][0].nonzero()) for i in range(20)}
    assert drawn == {3, 6}  # before 11 and before 14


@pytest.mark.parametrize("compose", ["mean", "join"])
def test_compcse_is_the_papers_formula(compose):
    """Against float64: the halves read one by one by transformers' model."""
    model, batch = text_model(), text_batch()
    term = ready(CompCSE(compose=compose, width=5, temperature=0.2), model)
    found = term.per_example(step(model, batch, term))
    halves = term.halves(batch.inputs, torch.Generator())
    rows = [row[mask.bool()] for row, mask in zip(*halves.values(), strict=True)]
    left, right = torch.cat([model.backbone(row[None]).last_hidden_state.mean(1) for row in rows]).chunk(2)
    middle = model.dim // 2
    composed = (left + right) / 2 if compose == "mean" else torch.cat([left[:, :middle], right[:, middle:]], 1)
    whole = step(model, batch, term).output.features
    first, second = (term.projector(each)[:, :5] for each in (whole, composed))
    np.testing.assert_allclose(found.detach(), reference(first, second, 0.2), rtol=1e-4)


def test_compcse_of_single_words_is_simcse_without_dropout():
    model, batch = text_model(), text_batch(length=3, padding=False)
    term = ready(CompCSE(width=16), model)
    features = term.projector(step(model, batch, term).output.features)
    torch.testing.assert_close(term.per_example(step(model, batch, term)), contrast(features, features, 0.05))


# --- CLEAR


def test_nt_xent_is_the_papers_formula():
    """Against loops in float64."""
    z = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    scores = (z.double() @ z.double().T / 0.1).numpy()
    losses = [
        logsumexp(np.delete(scores[i], i)) - scores[i, (i + 4) % 8]
        for i in range(8)
    ]  # fmt: skip
    assert float(nt_xent(z, 0.1)) == pytest.approx(float(np.mean(losses)), rel=1e-5)


def test_edits_keep_marks_and_do_what_they_are_called():
    model, batch = text_model(), text_batch(length=14, padding=False)
    term = ready(CLEAR(views=["delete_words", "substitute"], deleted=0.5, substituted=1.0), model)
    ids = batch.inputs["input_ids"].tolist()
    found = {
        name: term.edited(batch.inputs, name, torch.Generator().manual_seed(0))
        for name in ("delete_words", "delete_spans", "reorder", "substitute")
    }
    for rows in found.values():
        assert all((row[0], row[-1]) == (CLS, SEP) for row in rows)
    for row, whole in zip(found["delete_words"] + found["delete_spans"], ids + ids, strict=True):
        kept = [token for token in row if token != MASK]
        rest = iter(whole)
        assert all(token in rest for token in kept)  # in their order
        assert len(kept) < len(whole)
        assert not any(a == b == MASK for a, b in pairwise(row))
    assert [sorted(row) for row in found["reorder"]] == [sorted(row) for row in ids]
    assert found["reorder"] != ids
    table = model.backbone.get_input_embeddings().weight.detach()
    known = list(range(5, WORDS))
    near = NearestNeighbors(n_neighbors=2, metric="cosine").fit(table[known]).kneighbors(table[known])[1][:, 1]
    nearest = {token: known[place] for token, place in zip(known, near, strict=True)}
    assert found["substitute"] == [[row[0], *(nearest[each] for each in row[1:-1]), row[-1]] for row in ids]


def test_clear_adds_its_parts():
    """mlm: 0 leaves the contrast; the rest is the loss of `masked_lm` from the same draws."""
    model, batch = text_model(), text_batch()
    whole, alone = (ready(CLEAR(mlm=mlm), model) for mlm in (2.0, 0.0))
    term = ready(MaskedLM(), model)
    term.head = whole.head
    one = step(model, batch, whole)
    for name in whole.views:
        whole.edited(batch.inputs, name, one.generator)
    expected = alone(step(model, batch, alone)) + 2.0 * term(one)
    torch.testing.assert_close(whole(step(model, batch, whole)), expected)


# --- hidden words, and writing a text out


def test_hidden_words_cost_what_transformers_says(bert_folder):
    """Against the loss of BertForMaskedLM with the same weights, hidden tokens and labels."""
    model = text_model()
    term = ready(MaskedLM(share=0.4), model)
    batch = text_batch()
    whole = BertForMaskedLM(model.backbone.config)
    whole.bert = model.backbone
    whole.tie_weights()
    predictions = whole.cls.predictions
    predictions.transform.dense, predictions.transform.LayerNorm = term.head.transform[0], term.head.transform[2]
    with torch.no_grad():
        predictions.bias.copy_(torch.randn(WORDS))
        term.head.bias.copy_(predictions.bias)
    found = term(step(model, batch, term))
    again = step(model, batch, term)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    chosen = choose(term.masking_, again, 0.4)
    read = term.masking_.hide(ids, chosen, again.generator, vocabulary=WORDS)
    expected = whole(input_ids=read, attention_mask=mask, labels=ids.masked_fill(~chosen, -100)).loss
    torch.testing.assert_close(found, expected)


def test_an_undone_model_keeps_its_output_layer(bert_folder, tmp_path):
    """Opened by transformers' AutoModelForMaskedLM, it gives the scores of the layer that was trained along."""
    model = load(bert_folder)
    head = WordHead(model)
    write(model, head, tmp_path / "undone")
    ids = torch.tensor([[CLS, 9, MASK, 7, SEP]])
    opened = AutoModelForMaskedLM.from_pretrained(tmp_path / "undone").eval()
    with torch.no_grad():
        expected = head(model, model.backbone(ids).last_hidden_state)
        torch.testing.assert_close(opened(ids).logits, expected, rtol=1e-4, atol=1e-4)
    again = load(tmp_path / "undone")
    assert again.pool == "mean"
    assert WordHead(again).found


def test_an_ignorant_decoder_costs_log_v():
    """Closed form: an output layer without weights gives every word the same chance."""
    model, batch = text_model(), text_batch()
    term = ready(DenoSent(layers=1), model)
    for parameter in term.head.parameters():
        nn.init.zeros_(parameter)
    assert float(term(step(model, batch, term))) == pytest.approx(math.log(WORDS), rel=1e-6)


def test_the_decoder_reads_all_places_and_the_encoder_learns_through_the_vector():
    """Against torch's decoder called by hand without a causal mask; words come in detached."""
    model, batch = text_model(), text_batch()
    term = ready(DenoSent(layers=1, noise=0.0, decoder_dropout=0.0), model).eval()
    one = step(model, batch, term)
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    bert = model.backbone
    memory = term.project(one.output.features)[:, None]
    states = term.decoder(bert.embeddings(input_ids=ids).detach(), memory, tgt_key_padding_mask=~seen)
    expected = F.cross_entropy(term.head(model, states[seen]), ids[seen])
    found = term(step(model, batch, term))
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(each.grad.any() for each in model.layers[0].parameters() if each.ndim == 2)


# --- rank reduction


@pytest.mark.parametrize("spectrum", ["eigenvalues", "singular"])
def test_rank_is_that_of_numpys_singular_values(spectrum):
    """Against float64 singular values, and its gradient against finite differences."""
    model, batch = tiny_model(), tiny_batch()
    term = RankReduction(spectrum=spectrum)
    features = tiny_step(model, batch).output.features.detach().double().numpy()
    values = np.linalg.svd(features / np.linalg.norm(features, axis=1, keepdims=True), compute_uv=False)
    shares = values**2 if spectrum == "eigenvalues" else values
    shares = shares / shares.sum()
    assert float(term(tiny_step(model, batch))) == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-5)
    weights = model.double()
    batch = type(batch)(inputs={"features": batch.inputs["features"].double()}, labels=batch.labels, index=batch.index)
    last = weights.backbone[-1].weight

    def of(weight):
        output = F.linear(torch.tanh(F.linear(batch.inputs["features"], weights.backbone[0].weight)), weight)

        class Seen:
            pass

        seen = Seen()
        seen.output = Seen()
        seen.output.features = output
        return term(seen)

    assert torch.autograd.gradcheck(of, (last.detach().clone().requires_grad_(),))


def test_rank_of_one_direction_and_of_orthogonal_ones():
    """Closed forms: 0, and log B."""

    class Seen:
        def __init__(self, features):
            self.output = type("Output", (), {"features": features})

    assert float(RankReduction()(Seen(torch.ones(5, 8)))) == pytest.approx(0.0, abs=1e-5)
    assert float(RankReduction()(Seen(torch.eye(8)[:5]))) == pytest.approx(math.log(5), rel=1e-5)


def test_a_rank_curve_is_that_of_the_snapshots_and_changes_nothing(tiny_bert):
    """Against numpy's singular values of vectors from trainings that end where it looked."""
    texts = sentences(24, 5)[0]
    recipe = {"head": "zero", "objectives": {"simcse": 1.0}, "optimizer": {"name": "adamw", "lr": 1e-3}}
    train = Examples(sentences(32, 6)[0], None, (), source="made")
    fit = Fit(Recipe(**recipe, batch_size=8, epochs=1, schedule="constant"), tiny_bert, train)
    curve = RankCurve(fit, texts)
    looked = fit.run(looks={1, 2, 4}, look=curve)
    assert curve.steps == [1, 2, 4]
    for epochs, rank in ((0.25, curve.ranks[0]), (1, curve.ranks[2])):
        plain = Fit(Recipe(**recipe, batch_size=8, epochs=epochs, schedule="constant"), tiny_bert, train).run()
        features = predict(plain, encode_inputs(plain, texts, "text")).features
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
        shares = values / values.sum()
        assert rank == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-4)
    assert all(torch.equal(one, other) for one, other in zip(looked.parameters(), plain.parameters(), strict=True))
    assert curve.peak == curve.steps[int(np.argmax(curve.ranks))]


# --- what they are not for


def test_a_selection_that_chooses_by_labels_is_refused_where_none_are_learned(tiny_bert):
    train = Examples(*sentences(16, 6), ("negative", "positive"), source="made")
    recipe = Recipe(objectives={"simcse": 1.0}, selection="fisher_layers", epochs=1)
    with pytest.raises(RecipeError, match="add cross_entropy"):
        Fit(recipe, tiny_bert, train)


def test_bad_options_are_named():
    for make, options in (
        (SimCSE, {"temperature": 0.0}),
        (SimCSE, {"dropout": 1.0}),
        (DiffCSE, {"lambda_rtd": -1.0}),
        (DiffCSE, {"share": 0.0}),
        (DiffCSE, {"fill": "none"}),
        (CompCSE, {"width": 0}),
        (CompCSE, {"compose": "max"}),
        (CLEAR, {"views": ["reorder"]}),
        (CLEAR, {"views": "reorder"}),
        (CLEAR, {"views": ["reorder", "translate"]}),
        (DenoSent, {"layers": 0}),
        (RankReduction, {"spectrum": "none"}),
        (MaskedLM, {"share": 0.0}),
    ):
        with pytest.raises(RecipeError):
            make(**options)
    for make in (DiffCSE, CompCSE, CLEAR, DenoSent, MaskedLM):
        with pytest.raises(RecipeError, match="mask"):
            make().setup(tiny_context(tiny_model()))
