"""Batches: every example once, of like length, within the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.models.batching import epoch_steps, evaluation_batches, training_batches


@given(st.integers(1, 700), st.integers(1, 40), st.integers(1, 6), st.integers(0, 99))
def test_an_epoch_is_every_example_once(examples: int, size: int, pool: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 60, examples)
    batches = training_batches(lengths, size, np.random.default_rng(seed), pool=pool)
    assert sorted(np.concatenate(batches)) == list(range(examples))
    assert len(batches) == epoch_steps(examples, size, pool=pool)
    assert max(map(len, batches)) <= max(size * 1.5, size + 1)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=300), st.integers(600, 9000), st.integers(1, 64))
def test_evaluation_keeps_within_its_budget(lengths: list[int], tokens: int, most: int) -> None:
    batches = evaluation_batches(np.array(lengths), tokens=tokens, most=most)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= most
        assert len(batch) * max(lengths[i] for i in batch) <= tokens


def test_bucketing_removes_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 4000)
    bucketed = training_batches(lengths, 32, np.random.default_rng(0))
    plain = np.array_split(np.random.default_rng(0).permutation(4000), 125)
    waste = [sum(len(b) * lengths[b].max() for b in batches) / lengths.sum() for batches in (bucketed, plain)]
    assert waste[0] < 1.05 < 1.6 < waste[1]


def test_other_epochs_give_other_company() -> None:
    lengths = np.full(320, 9)
    first, second = (training_batches(lengths, 32, np.random.default_rng([0, epoch])) for epoch in (0, 1))
    assert not any(set(a) == set(b) for a in first for b in second)


@pytest.mark.parametrize("examples", [1, 31, 33, 47, 49])
def test_a_small_last_batch_is_spread(examples: int) -> None:
    sizes = [len(b) for b in training_batches(np.ones(examples, int), 32, np.random.default_rng(0))]
    assert min(sizes) >= min(examples, 16)
