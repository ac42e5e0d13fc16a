"""Cosine to the nearest class centroid."""

from __future__ import annotations

import numpy as np

from surefoot.assess.novelty import NoveltyScore
from surefoot.embed.geometry import unit_length
from surefoot.registry import Paper, register


@register(
    "centroid",
    kind="novelty",
    family="features",
    papers=[Paper("Prototypical Networks for Few-shot Learning", "Snell et al.", 2017, arxiv="1703.05175")],
)
class Centroid(NoveltyScore):
    """Cosine to the nearest class centroid: S = -max_c cos(f, mu_c), mu_c the mean of class c's training features.

    f: features (M, D). Gives scores (M,) in [-1, 1]. What intent classifiers over sentence embeddings reject by; the
    prototypes are Snell et al.'s, the cosine in place of their squared distance is that of sentence embeddings. Raises
    DataError for data that cannot serve. Reference: Snell et al. 2017.
    """

    learns = True

    def learn(self, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
        self.centroids_ = unit_length(np.stack([features[labels == c].mean(0) for c in np.unique(labels)]))

    def rate(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.asarray(-(unit_length(features) @ self.centroids_.T).max(1))
