"""What a cloud of vectors looks like: isotropy, alignment and uniformity, hubness, effective rank, and a map of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from surefoot.errors import DataError

#: Rows between which every distance is taken: 4,000 take 64 MB and a second.
MOST = 4000


@dataclass(frozen=True)
class Geometry:
    """Numbers of one cloud of N vectors of D numbers; `alignment` is None without pairs.

    isotropy: IsoScore* in [0, 1]; 1 where every direction has the same variance. uniformity: log of the mean Gaussian
    potential, at most 0; the lower the better they cover the sphere. alignment: mean squared distance of pairs that
    mean the same; the lower the better. hubness: skewness of how often a vector is among the `k` nearest of another;
    0 where all are alike, above 1 where a few are neighbours of everything. effective_rank: how many directions carry
    the variance. mean_cosine: of two vectors drawn at random; 0 in an isotropic cloud.
    """

    vectors: int
    dim: int
    isotropy: float
    uniformity: float
    alignment: float | None
    hubness: float
    effective_rank: float
    mean_cosine: float
    k: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def describe_geometry(
    vectors: np.ndarray, *, pairs: tuple[np.ndarray, np.ndarray] | None = None, k: int = 10, seed: int = 0
) -> Geometry:
    """The geometry of (N, D) vectors; of more than 4,000, those that `seed` draws. pairs: two (M, D) of the same meaning.

    Raises DataError for fewer than three vectors, and for `k` below 1 or not below their number.
    """
    vectors = sample(vectors, seed=seed)
    if len(vectors) < 3 or not 1 <= k < len(vectors):
        raise DataError(
            f"{len(vectors)} vectors and k {k}: the geometry of a cloud needs at least three vectors, and k from 1 to one less than there are"
        )
    unit = unit_length(vectors)
    similarity = unit @ unit.T
    return Geometry(
        vectors=len(vectors),
        dim=vectors.shape[1],
        isotropy=isotropy(vectors),
        uniformity=uniformity(similarity),
        alignment=None if pairs is None else alignment(*pairs),
        hubness=hubness(similarity, k=k),
        effective_rank=effective_rank(vectors),
        mean_cosine=float((similarity.sum() - np.trace(similarity)) / (len(unit) * (len(unit) - 1))),
        k=k,
    )


def sample(vectors: np.ndarray, *, most: int = MOST, seed: int = 0) -> np.ndarray:
    """At most `most` rows, drawn with `seed`, in their order; float32."""
    if len(vectors) > most:
        vectors = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), most, replace=False))]
    return np.asarray(vectors, dtype=np.float32)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one; a row of zeros stays as it is."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, np.finfo(length.dtype).tiny))


def isotropy(vectors: np.ndarray) -> float:
    """IsoScore* of the covariance of (N, D): (tr(S)^2 / ||S||_F^2 - 1) / (D - 1), in [0, 1].

    Without the paper's shrinkage of S; 0 for a cloud that is one point. Reference: Rudman and Eickhoff 2024, Stable Anisotropic Regularization.
    """
    from surefoot.tune.objectives.i_star import isoscore

    spread = np.cov(vectors.astype(np.float64), rowvar=False)
    return float(isoscore(torch.from_numpy(spread))) if np.trace(spread) > 0 else 0.0


def uniformity(similarity: np.ndarray, *, t: float = 2.0) -> float:
    """log of the mean over pairs i < j of exp(-t ||x_i - x_j||^2), with ||x_i - x_j||^2 = 2 - 2 cos; t 2, the paper's.

    similarity: (N, N) cosines. Reference: Wang and Isola 2020, Understanding Contrastive Representation Learning through
    Alignment and Uniformity on the Hypersphere.
    """
    above = similarity[np.triu_indices(len(similarity), 1)].astype(np.float64)
    return float(np.log(np.exp(-t * (2 - 2 * above)).mean()))


def alignment(first: np.ndarray, second: np.ndarray, *, alpha: float = 2.0) -> float:
    """Mean of ||x - y||^alpha over pairs (M, D) of the same meaning, on the sphere; alpha 2, the paper's (as above)."""
    apart = unit_length(first) - unit_length(second)
    return float((np.linalg.norm(apart.astype(np.float64), axis=1) ** alpha).mean())


def hubness(similarity: np.ndarray, *, k: int = 10) -> float:
    """Skewness of N_k: how many rows count a row among their `k` nearest by cosine, itself left out; (N, N) to a number.

        S = mean((N_k - mean N_k)^3) / std(N_k)^3

    k 10, the paper's. 0 where every row is counted alike. Reference: Radovanovic et al. 2010, Hubs in Space.
    """
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    nearest = np.argpartition(-others, k - 1, axis=1)[:, :k]
    counts = np.bincount(nearest.reshape(-1), minlength=len(others)).astype(np.float64)
    apart = counts - counts.mean()
    spread = apart.std()
    return float((apart**3).mean() / spread**3) if spread > 0 else 0.0


def effective_rank(vectors: np.ndarray, *, centred: bool = True) -> float:
    """exp(H(p)), p the singular values of the (N, D) vectors, less their mean if `centred`, over their sum, H in nats: from
    1 to min(N, D).

    Reference: Roy and Vetterli 2007, The Effective Rank: A Measure of Effective Dimensionality.

    >>> round(effective_rank(np.eye(5), centred=False), 6)
    5.0
    """
    middle = vectors.mean(0, dtype=np.float64) if centred else 0.0
    values = np.linalg.svd(vectors.astype(np.float64) - middle, compute_uv=False)
    shares = values[values > 0] / values.sum() if values.sum() > 0 else np.ones(1)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def principal_map(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """(N, 2) places on the two directions of most variance, and the share of the variance that they show.

    The sign of a direction, which has no meaning, is such that its largest entry is positive.
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    two = directions[:2]
    two = two * np.sign(two[np.arange(len(two)), np.abs(two).argmax(1)])[:, None]
    total = float((values**2).sum())
    return centred @ two.T, float((values[:2] ** 2).sum() / total) if total > 0 else 1.0
