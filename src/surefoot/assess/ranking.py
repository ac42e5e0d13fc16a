"""How good a ranking is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def ndcg(scores: np.ndarray, relevant: Sequence[Mapping[int, float]], *, k: int = 10) -> float:
    """Mean nDCG@k of scores (Q, N) with graded relevance by document: sum_r gain_r / log2(r + 1), over the best possible.

    >>> ndcg(np.array([[0.9, 0.8, 0.1]]), [{1: 1.0}]).__round__(3)
    0.631
    """
    return float(np.mean(ndcg_of_each(scores, relevant, k=k)))


def ndcg_of_each(scores: np.ndarray, relevant: Sequence[Mapping[int, float]], *, k: int = 10) -> np.ndarray:
    """nDCG@k of each query (Q,): see `ndcg`."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    found = []
    for row, grades in zip(scores, relevant, strict=True):
        order = np.argsort(-row, kind="stable")[:k]
        gains = np.array([grades.get(int(document), 0.0) for document in order])
        best = np.sort(np.fromiter(grades.values(), dtype=float))[::-1][:k]
        found.append((gains * discounts[: len(gains)]).sum() / (best * discounts[: len(best)]).sum())
    return np.array(found)
