"""Responses: beside a search by loops, and the prior beside the loss of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surefoot.embed.responses import Responses, clustered, log_likelihoods
from surefoot.errors import DataError, RecipeError
from tiny_models import save_gpt2


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(6, 5)), rng.normal(size=(30, 5)), rng.normal(size=30) - 5, rng.integers(0, 9, 30)


def test_suggestions_are_those_of_a_loop() -> None:
    """The definition, one response after another: score, sort, skip kinds that were shown."""
    queries, vectors, prior, clusters = problem()
    found, scores = Responses([str(n) for n in range(30)], vectors, log_prior=prior, clusters=clusters).suggest(
        queries, k=4, alpha=0.7
    )
    for row, query in enumerate(queries):
        expected, seen = [], set()
        value = {n: float(query @ vectors[n]) + 0.7 * prior[n] for n in range(30)}
        for n in sorted(value, key=value.__getitem__, reverse=True):
            if clusters[n] not in seen and len(expected) < 4:
                expected.append(n)
                seen.add(clusters[n])
        assert found[row].tolist() == expected
        assert np.allclose(scores[row], [value[n] for n in expected])


def test_without_prior_and_kinds_it_is_the_plain_nearest() -> None:
    queries, vectors, prior, _ = problem()
    plain = np.argsort(-(queries @ vectors.T), axis=1)[:, :3]
    texts = [str(n) for n in range(30)]
    assert np.array_equal(Responses(texts, vectors).suggest(queries)[0], plain)
    assert np.array_equal(Responses(texts, vectors, log_prior=prior).suggest(queries, alpha=0.0)[0], plain)
    few = Responses(texts, vectors, clusters=np.zeros(30, int)).suggest(queries, k=3)[0]
    assert np.array_equal(few, np.column_stack([plain[:, 0], np.full((6, 2), -1)]))


def test_the_prior_is_the_loss_of_transformers(tmp_path: Path, bert_folder: Path) -> None:
    """The mean loss of `AutoModelForCausalLM` over the same tokens, times their number."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_gpt2(tmp_path, bert_folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        tokenizer.bos_token = tokenizer.cls_token
    texts = ["a good film", "the story was long and dull"]
    found = log_likelihoods(texts, model=model, tokenizer=tokenizer)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    for text, value in zip(texts, found, strict=True):
        ids = torch.tensor([[start, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        loss = model(input_ids=ids, labels=ids).loss.item()
        assert value == pytest.approx(-loss * (ids.shape[1] - 1), rel=1e-5)


def test_alike_vectors_are_of_one_kind() -> None:
    angles = np.array([0.0, 0.1, 1.5, 1.6, 3.1])
    found = clustered(np.column_stack([np.cos(angles), np.sin(angles)]))
    assert found[0] == found[1] != found[2] == found[3] != found[4] != found[0]
    assert len(set(clustered(np.ones((1, 2))))) == 1


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="no responses"):
        Responses([], np.zeros((0, 2)))
    with pytest.raises(DataError, match="2 responses but 1 `clusters`"):
        Responses(["a", "b"], np.zeros((2, 2)), clusters=[1])
    with pytest.raises(RecipeError, match="at least one"):
        Responses(["a"], np.zeros((1, 2))).suggest(np.zeros((1, 2)), k=0)
