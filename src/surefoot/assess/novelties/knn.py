"""Distance to the k-th nearest training example."""

from __future__ import annotations

import numpy as np

from surefoot.assess.novelty import NoveltyScore
from surefoot.embed.geometry import unit_length
from surefoot.errors import RecipeError
from surefoot.registry import Paper, register


@register(
    "knn",
    kind="novelty",
    family="features",
    papers=[Paper("Out-of-Distribution Detection with Deep Nearest Neighbors", "Sun et al.", 2022, arxiv="2204.06507")],
)
class KNN(NoveltyScore):
    """Distance to the k-th nearest training example: S = |f / |f| - f_(k) / |f_(k)||.

    f: features (M, D), made of length one; f_(k): the k-th nearest of N training features. k: 50, the paper's for CIFAR-10
    (200 for CIFAR-100, 1,000 for ImageNet), or N where that is less. Gives scores (M,) in [0, 2]. Exact search by scikit-learn. Raises
    RecipeError for k below 1, DataError for data that cannot serve. Reference: Sun et al. 2022.
    """

    learns = True

    def __init__(self, *, k: int = 50) -> None:
        if k < 1:
            raise RecipeError(f"`k` is {k}: give one or more")
        self.k = k

    def learn(self, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.neighbours_ = NearestNeighbors(n_neighbors=min(self.k, len(features))).fit(unit_length(features))

    def rate(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.asarray(self.neighbours_.kneighbors(unit_length(features))[0][:, -1])
