"""Batches of examples of like length: padding is most of what a plain loop computes on short texts."""

from __future__ import annotations

import numpy as np


def training_batches(
    lengths: np.ndarray, batch_size: int, rng: np.random.Generator, *, pool: int = 50
) -> list[np.ndarray]:
    """One epoch: every example once, in batches of like length, in random order.

    The examples are permuted and cut into pools of `pool` batches; each pool is sorted by length (ties keep the
    random order) and cut into batches, and the batches are shuffled. Within a pool an example meets others of its
    length; across pools and epochs the company is new. A last batch of less than half the size is spread over the others.
    """
    order = rng.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for begin in range(0, len(order), pool * batch_size):
        chunk = order[begin : begin + pool * batch_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += np.array_split(chunk, max(1, round(len(chunk) / batch_size)))
    return [batches[i] for i in rng.permutation(len(batches))]


def evaluation_batches(lengths: np.ndarray, *, tokens: int = 8192, most: int = 256) -> list[np.ndarray]:
    """All examples, longest first, in batches of at most `tokens` padded tokens and `most` examples.

    Longest first, so that the peak of memory comes at once and not at the end.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[np.ndarray] = []
    begin = 0
    while begin < len(order):
        size = int(np.clip(tokens // max(int(lengths[order[begin]]), 1), 1, most))
        batches.append(order[begin : begin + size])
        begin += size
    return batches


def epoch_steps(examples: int, batch_size: int, *, pool: int = 50) -> int:
    """How many batches `training_batches` makes."""
    full, rest = divmod(examples, pool * batch_size)
    return full * pool + (max(1, round(rest / batch_size)) if rest else 0)
