"""Partition functions of vectors: Z(c) = sum over vectors w of exp(<w, c>), which is nearly the same for all c of one length
where vectors are spread evenly over all directions."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from surefoot.errors import DataError

#: Directions that the spread is measured over, and the length of c times the mean length of the vectors (Arora et al. 2016).
DIRECTIONS, LENGTH = 1000, 4.0


def partition_spread(vectors: np.ndarray, *, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """Standard deviation of Z(c) over its mean, c drawn evenly from the sphere of radius 4 / mean length of the vectors (V, D).

    Arora et al. 2016 predict a spread near 0 for their word vectors, and draw so many directions of that length. Raises
    DataError for vectors that are all zero.
    """
    vectors = _usable(vectors)
    drawn = np.random.default_rng(seed).normal(size=(directions, vectors.shape[1]))
    drawn *= LENGTH / np.linalg.norm(vectors, axis=1).mean() / np.linalg.norm(drawn, axis=1, keepdims=True)
    logs = logsumexp(vectors @ drawn.T, axis=0)
    sums = np.exp(logs - logs.max())
    return float(sums.std() / sums.mean())


def partition_isotropy(vectors: np.ndarray) -> float:
    """min Z(c) / max Z(c) over the eigenvectors c of V^T V and their opposites, vectors (V, D); 1 where they are isotropic.

    Mu and Viswanath, "All-but-the-Top" (2018); an eigenvector has no sign, so both are taken.
    """
    vectors = _usable(vectors)
    axes = np.linalg.eigh(vectors.T @ vectors)[1]
    along = vectors @ axes
    logs = np.concatenate([logsumexp(along, axis=0), logsumexp(-along, axis=0)])
    return float(np.exp(logs.min() - logs.max()))


def second_moment_ratio(vectors: np.ndarray) -> float:
    """Smallest over largest singular value of the vectors (V, D): of their second moment, the root of the ratio of the
    eigenvalues; 1 where all directions are alike, 0 where one is empty."""
    values = np.linalg.svd(_usable(vectors), compute_uv=False)
    return float(values[-1] / values[0])


def _usable(vectors: np.ndarray) -> np.ndarray:
    found = np.asarray(vectors, dtype=np.float64)
    if found.ndim != 2 or not np.isfinite(found).all() or not found.any():
        raise DataError(f"vectors of shape {found.shape} must be two-dimensional, finite and not all zero")
    return found
