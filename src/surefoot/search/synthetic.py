"""Retrieval learned from synthetic queries: pairs of a written query and its document move a linear map of embeddings."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

#: Temperature of cosines (that of `sentence-transformers`' losses), Adam's rate, steps, and the pull to the identity.
TEMPERATURE, LR, STEPS, PULL = 0.05, 1e-3, 60, 1e-2


def train_student(
    queries: np.ndarray, targets: np.ndarray, documents: np.ndarray, *, steps: int = STEPS, lr: float = LR
) -> np.ndarray:
    """A (D, D): argmin of mean_i -log softmax_j(cos(A q_i, A d_j) / 0.05)[target_i] + PULL ||A - I||^2, from I, by Adam.

    queries (Q, D), documents (N, D): embeddings of unit length, all documents being each other's negatives; targets (Q,):
    which document each query was written for. The same inputs give the same map.
    """
    q, d, where = torch.from_numpy(queries), torch.from_numpy(documents), torch.from_numpy(targets)
    eye = torch.eye(q.shape[1], dtype=q.dtype)
    change = torch.zeros_like(eye, requires_grad=True)
    adam = torch.optim.Adam([change], lr=lr)
    for _ in range(steps):
        matrix = (eye + change).T
        scores = F.normalize(q @ matrix, dim=1) @ F.normalize(d @ matrix, dim=1).T
        loss = F.cross_entropy(scores / TEMPERATURE, where) + PULL * change.square().sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return np.asarray((eye + change.detach()).numpy())


def student_scores(student: np.ndarray, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """cos(A q, A d): (Q, N)."""
    mapped = [each @ student.T for each in (queries, documents)]
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in mapped)
    return np.asarray(first @ second.T)
