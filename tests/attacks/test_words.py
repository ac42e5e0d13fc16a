"""Greedy word substitution, against cosines in float64 and against the greedy search written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import Recipe
from surefoot.attacks.attack import Target
from surefoot.attacks.word_substitution import WordSubstitution, words_of
from surefoot.data.examples import Examples
from surefoot.models.model import Model
from surefoot.tune.step import Batch

TEXTS = ["a truly wonderful and moving film with superb acting", "the plot is boring and the dialogue painfully weak"]


@pytest.fixture(scope="module")
def model(minilm: Model) -> Model:
    """MiniLM with a head probed on eight sentences, enough to have an opinion."""
    good = ["a great film", "wonderful acting", "superb and moving", "I loved it"]
    bad = ["a terrible film", "boring and weak", "painfully dull", "I hated it"]
    examples = Examples(good + bad, np.array([1] * 4 + [0] * 4), ("negative", "positive"))
    return Recipe.named("linear_probe").fit(minilm, examples).model


def target_of(model: Model) -> Target:
    inputs = model.processor.encode(TEXTS).collate(np.arange(2))
    batch = Batch(inputs=inputs, labels=torch.tensor([1, 0]), index=torch.arange(2))
    return Target(model, batch, "words", torch.Generator().manual_seed(0))


def test_near_words_are_those_of_the_largest_cosine(model: Model) -> None:
    """Against cosines in float64 over the vocabulary, ranked by numpy."""
    words, tokenizer = words_of(model), model.processor.tokenizer
    matrix = model.backbone.get_input_embeddings().weight.detach().double().numpy()
    matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    token = tokenizer.convert_tokens_to_ids("wonderful")
    near = words.near(token, 5, 0.3).tolist()
    allowed = [i for i in words.ids.tolist() if i != token]
    cosines = matrix[allowed] @ matrix[token]
    assert near == [allowed[i] for i in np.argsort(-cosines)[:5] if cosines[i] >= 0.3]
    assert near
    assert all(tokenizer.convert_ids_to_tokens(i).isalpha() for i in near)


def test_only_whole_words_that_mean_something_are_replaced(model: Model) -> None:
    words, tokenizer = words_of(model), model.processor.tokenizer
    ids = model.processor.encode(["the film was unwatchably good"]).collate(np.arange(1))["input_ids"][0]
    found = [tokenizer.convert_ids_to_tokens(int(ids[i])) for i in words.places(ids, None)]
    assert found == ["film", "good"]


def test_the_search_is_textfoolers(model: Model) -> None:
    """Against algorithm 1 of Jin et al. written out one text and one word at a time, from the model's own texts."""
    target, attack = target_of(model), WordSubstitution(epsilon=0.5, neighbours=6, similarity=0.3)
    found = attack.perturb(target)
    for row in range(2):
        expected = written_out(
            model, target.x[row], target.batch.inputs["attention_mask"][row], int(target.labels[row])
        )
        assert found[row].tolist() == expected.tolist()
    assert not torch.equal(found, target.x)


@torch.no_grad()
def written_out(model: Model, ids: torch.Tensor, mask: torch.Tensor, label: int) -> torch.Tensor:
    def p(ids: torch.Tensor, mask: torch.Tensor = mask) -> torch.Tensor:
        inputs = {"input_ids": ids[None], "attention_mask": mask[None]}
        logits = model(Batch(inputs=inputs, labels=torch.tensor([label]), index=torch.arange(1))).logits
        return nn.functional.softmax(logits, 1)[0]

    words = words_of(model)
    importance = {}
    for place in words.places(ids, mask):
        hidden = mask.clone()
        hidden[place] = 0
        importance[place] = float(p(ids)[label] - p(ids, hidden)[label])
    left, ids = int(0.5 * len(importance)), ids.clone()
    for place in sorted(importance, key=importance.__getitem__, reverse=True):
        tried = []
        for near in words.near(int(ids[place]), 6, 0.3).tolist():
            other = ids.clone()
            other[place] = near
            if int(p(other).argmax()) != label:
                return other
            tried.append((float(p(other)[label]), other))
        if tried and left and min(tried, key=lambda each: each[0])[0] < float(p(ids)[label]):
            ids, left = min(tried, key=lambda each: each[0])[1], left - 1
        if not left:
            break
    return ids
