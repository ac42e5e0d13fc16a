"""WESPAD: word vectors distorted and partitioned by a few labels, as features that find what is mentioned rarely."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np

from surefoot.embed.geometry import unit_length
from surefoot.embed.vocabulary import Vocabulary, tokens
from surefoot.embed.word_vectors import WordVectors, open_words
from surefoot.embed.words.skipgram import SkipGram
from surefoot.errors import DataError
from surefoot.progress import Progress
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction
from surefoot.tune.selections import whole

PAPER = Paper(
    "Did You Really Just Have a Heart Attack? Towards Robust Detection of Personal Health Mentions in Social Media",
    "Karisani and Agichtein",
    2018,
    arxiv="1802.09130",
)
#: Passes of k-means, the authors'.
PASSES = 100


@register("wespad", kind="word_vectors", family="labels", papers=[PAPER])
class WESPAD(WordVectors):
    """WESPAD: features (cluster of the text, what is thought of it) from plain and from distorted averages of word vectors.

    Distorted: x = sum_w g_w v_w / sum_w g_w over a text's words, g_w the information gain of w for the label,
    g_w = H(Y) - P(w) H(Y | w) - P(not w) H(Y | not w), in bits, over labelled texts with and without w. A word that no
    labelled text has takes the gain of the nearest one by cosine that some has; a gain of 0 becomes that of a word seen
    once, in one negative text. Plain: g = 1. For each of the two: k-means of the labelled texts' x, and a logistic regression
    P(y = 1 | x); a text gets feature (cluster, positive) if P > 0.5 + `margin`, (cluster, negative) if P < 0.5 - `margin`.
    `encode` gives (N, 2 clusters + 2 plain_clusters + G) zeros and ones, the last G for words and pairs of words seen in two
    labelled texts or more; the authors put a logistic regression on them.

    clusters: 4 of the distorted, plain_clusters: 3, margin: 0.15, the authors' values. distort: False for g = 1 everywhere.
    vectors: a folder of `surefoot words train`; without one, skip-gram learns from the labelled texts, which is little. The
    authors add frequent parse subtrees and what the same person wrote before and after: neither is here, as no parser is at
    hand and a text stands alone. `distorted` gives x (N, D). Needs labels of two classes. Raises RecipeError for options
    that cannot work, DataError where no labelled text has a known word. Reference: Karisani and Agichtein 2018.
    """

    supervised: ClassVar[bool] = True
    arrays: ClassVar[tuple[str, ...]] = ("gains_", "centres_", "plain_centres_", "weights_")
    facts: ClassVar[tuple[str, ...]] = ("grams_",)

    def __init__(
        self,
        *,
        clusters: int = 4,
        plain_clusters: int = 3,
        margin: float = 0.15,
        distort: bool = True,
        vectors: str | None = None,
    ) -> None:
        self.clusters = whole("clusters", clusters, least=1)
        self.plain_clusters = whole("plain_clusters", plain_clusters, least=1)
        self.margin = fraction("margin", margin)
        self.distort = bool(distort)
        self.vectors = vectors

    def learn(self, texts: list[str], *, labels: np.ndarray | None, seed: int, progress: Progress) -> None:
        assert labels is not None
        base: WordVectors
        if self.vectors is None:
            base = SkipGram(min_count=2).fit(texts, seed=seed, progress=progress)
        else:
            base = open_words(self.vectors)
        self.vocabulary_, self.vectors_ = base.vocabulary, base.vectors_
        written = [tokens(text) for text in texts]
        if not any(len(base.vocabulary.rows(each)) for each in written):
            raise DataError("no labelled text has a word that the vectors know: train them on texts like these")
        self.gains_ = self._gains(written, labels)
        self.centres_, first = self._learn_space(texts, labels, self.gains_, self.clusters, seed)
        plain = np.ones_like(self.gains_)
        self.plain_centres_, second = self._learn_space(texts, labels, plain, self.plain_clusters, seed)
        self.weights_ = np.stack([first, second])
        counts = Vocabulary.of([sorted(set(_grams(each))) for each in written])
        self.grams_ = [gram for gram, count in zip(counts.words, counts.counts, strict=True) if count >= 2]

    def _gains(self, written: Sequence[Sequence[str]], labels: np.ndarray) -> np.ndarray:
        """g (V,) float32."""
        known = self.vocabulary
        if not self.distort:
            return np.ones(len(known), dtype=np.float32)
        present = np.zeros((len(written), len(known)), dtype=bool)
        for row, each in enumerate(written):
            present[row, known.rows(each)] = True
        seen = np.flatnonzero(present.any(0))
        gains = np.zeros(len(known))
        gains[seen] = information_gain(present[:, seen], labels)
        unit = unit_length(self.vectors_)
        others = np.setdiff1d(np.arange(len(known)), seen)
        for part in np.array_split(others, max(1, len(others) // 2048)):
            gains[part] = gains[seen[(unit[part] @ unit[seen].T).argmax(1)]]
        once = np.zeros((len(labels), 1), dtype=bool)
        once[np.flatnonzero(labels == 0)[0]] = True
        gains[gains <= 1e-12] = information_gain(once, labels)[0]
        return gains.astype(np.float32)

    def _learn_space(
        self, texts: Sequence[str], labels: np.ndarray, gains: np.ndarray, clusters: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Centres (K, D) of the texts, and weights (D + 1,) of the regression, the last its intercept; float32."""
        from sklearn.cluster import KMeans
        from sklearn.linear_model import LogisticRegression

        x = self._averages(texts, gains)
        known = x.any(1)
        count = min(clusters, len(np.unique(x[known], axis=0)))
        centres = KMeans(count, max_iter=PASSES, n_init=10, random_state=seed).fit(x[known]).cluster_centers_
        if len(np.unique(labels[known])) < 2:
            raise DataError("the labelled texts with known words are all of one class: train the vectors on more texts")
        regression = LogisticRegression(max_iter=2000).fit(x[known], labels[known])
        weights = np.append(regression.coef_[0], regression.intercept_[0])
        return centres.astype(np.float32), weights.astype(np.float32)

    def _averages(self, texts: Sequence[str], gains: np.ndarray) -> np.ndarray:
        """x (N, D); zeros for a text without a known word."""
        found = np.zeros((len(texts), self.vectors_.shape[1]), dtype=np.float32)
        for place, text in enumerate(texts):
            rows = self.vocabulary.rows(tokens(text))
            if len(rows):
                found[place] = np.average(self.vectors_[rows], axis=0, weights=gains[rows])
        return found

    def distorted(self, texts: Sequence[str]) -> np.ndarray:
        """x (N, D): texts as averages of vectors weighted by information gain."""
        return self._averages(texts, self.gains_)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        plain = self._averages(texts, np.ones(len(self.vocabulary), dtype=np.float32))
        spaces = (
            (self.distorted(texts), self.centres_, self.weights_[0]),
            (plain, self.plain_centres_, self.weights_[1]),
        )
        parts = [self._thought(*space) for space in spaces]
        place = {gram: column for column, gram in enumerate(self.grams_)}
        said = np.zeros((len(texts), len(place)), dtype=np.float32)
        for row, text in enumerate(texts):
            said[row, [place[gram] for gram in set(_grams(tokens(text))) if gram in place]] = 1.0
        return np.concatenate([*parts, said], axis=1)

    def _thought(self, x: np.ndarray, centres: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 2K): a one for (nearest cluster, negative) or (nearest cluster, positive) where the regression is sure."""
        nearest = ((x[:, None].astype(np.float64) - centres[None]) ** 2).sum(2).argmin(1)
        positive = 1 / (1 + np.exp(-(x.astype(np.float64) @ weights[:-1] + weights[-1])))
        found = np.zeros((len(x), 2 * len(centres)), dtype=np.float32)
        sure = (np.abs(positive - 0.5) > self.margin) & x.any(1)
        found[sure, (2 * nearest + (positive > 0.5))[sure]] = 1.0
        return found


def information_gain(present: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """H(Y) - P(w) H(Y | w) - P(not w) H(Y | not w) in bits, (V,); present (N, V): which texts have w, labels (N,) of 0 and 1.

    >>> information_gain(np.array([[1, 0], [0, 0]], dtype=bool), np.array([1, 0])).tolist()
    [1.0, 0.0]
    """
    total, right = len(labels), labels.sum()
    having, both = present.sum(0), present[labels == 1].sum(0)
    inside = having / total * _bits(both, having)
    outside = (total - having) / total * _bits(right - both, total - having)
    return np.asarray(_bits(np.array(right), np.array(total)) - inside - outside)


def _bits(positive: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Entropy of a coin of which `positive` of `count` are heads; 0 where there is none."""
    from scipy.special import entr

    share = positive / np.maximum(count, 1)
    return np.asarray((entr(share) + entr(1 - share)) / np.log(2))


def _grams(words: Sequence[str]) -> list[str]:
    """Words, and pairs of neighbours."""
    return [*words, *(f"{first} {second}" for first, second in pairwise(words))]
