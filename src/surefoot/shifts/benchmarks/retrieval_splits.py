"""Interpolation and extrapolation of a retriever: test questions that are near those of training, and far from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from surefoot.attacks.pgd import whole
from surefoot.embed.geometry import unit_length
from surefoot.errors import DataError
from surefoot.registry import Paper, register

ZHAN = Paper(
    "Evaluating Interpolation and Extrapolation Performance of Neural Retrieval Models",
    "Zhan et al.",
    2022,
    arxiv="2204.11447",
)
Regime = Literal["interpolation", "extrapolation"]


@dataclass(frozen=True)
class Split:
    """`train` and `test`: places (T,), (Q,) among the questions that were given; `fold`: splits of a fold belong together."""

    regime: Regime
    fold: int
    train: np.ndarray
    test: np.ndarray


@register("resttest", kind="benchmark", family="splits", papers=[ZHAN])
class ReSTTest:
    """Resamples training and test questions by clusters: one bucket of K is held out of training at a time.

    All questions are clustered into K buckets by k-means on unit vectors. Fold k trains on the training questions outside
    bucket k; test questions outside it interpolate, those inside it extrapolate. Scores are averaged over the folds, and
    both regimes of a fold share one model. For large test sets. `split` takes train (T, D) and test (Q, D) embeddings,
    which are scaled to length 1, and gives 2 K splits; a regime without a test question is left out. folds: K, 5, the
    paper's. Raises RecipeError for fewer than two folds, DataError for fewer questions than folds or vectors that do not
    fit. How k-means is started is not in the paper: ten starts, seeded. Reference: Zhan et al. 2022, section 4.2.

    >>> ReSTTest(folds=2).folds
    2
    """

    def __init__(self, *, folds: int = 5) -> None:
        self.folds = whole("folds", folds, least=2)

    def split(self, train: np.ndarray, test: np.ndarray, *, seed: int = 0) -> list[Split]:
        from sklearn.cluster import KMeans

        train, test = _unit(train, test)
        if len(train) + len(test) < self.folds:
            raise DataError(f"{len(train) + len(test)} questions cannot make {self.folds} folds: ask for fewer")
        clusters = KMeans(self.folds, n_init=10, random_state=seed).fit_predict(np.concatenate([train, test]))
        of_train, of_test = clusters[: len(train)], clusters[len(train) :]
        found: list[Split] = []
        for fold in range(self.folds):
            kept = np.flatnonzero(of_train != fold)
            parts = (("interpolation", of_test != fold), ("extrapolation", of_test == fold))
            found += [Split(regime, fold, kept, np.flatnonzero(mask)) for regime, mask in parts if mask.any()]  # type: ignore[arg-type]
        return found


@register("restrain", kind="benchmark", family="splits", papers=[ZHAN])
class ReSTrain:
    """Resamples the training questions for one test set: those nearest to it, and as many that are far from it.

    s(i, j): cosine of test question i and training question j. Interpolation: the `size` training questions that come
    first when every test question names its nearest, then its second nearest, and so on. Extrapolation: of those that
    nobody named among the nearest `nearest` shares of the training set, `size` at random; one test set, two models. For
    small test sets. `split` takes train (T, D) and test (Q, D) embeddings and gives two splits. size: half of the
    training questions that are far enough, unless given. nearest: 0.5, a choice of ours: the paper says that similar
    questions are left out, not up to where. Raises RecipeError for values out of range, DataError where there are too few
    questions. Reference: Zhan et al. 2022, section 4.1.

    >>> ReSTrain(size=100).size
    100
    """

    def __init__(self, *, size: int | None = None, nearest: float = 0.5) -> None:
        from surefoot.tune.objective import fraction

        self.size = None if size is None else whole("size", size)
        self.nearest = fraction("nearest", nearest)

    def split(self, train: np.ndarray, test: np.ndarray, *, seed: int = 0) -> list[Split]:
        train, test = _unit(train, test)
        similarity = test @ train.T
        # A training question's rank for the test question that it is nearest to, ties by similarity.
        order = np.argsort(-similarity, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(len(train))[None], axis=1)
        best, closest = rank.min(0), similarity.max(0)
        named = np.lexsort((-closest, best))
        far = np.flatnonzero(closest <= np.quantile(closest, 1 - self.nearest))
        size = self.size or max(1, len(far) // 2)
        if size > len(far) or size > len(train):
            raise DataError(
                f"{size} training questions are asked for and {len(far)} are far enough: ask for fewer, or lower `nearest`"
            )
        drawn = np.random.default_rng(seed).choice(far, size, replace=False)
        every = np.arange(len(test))
        return [
            Split("interpolation", 0, np.sort(named[:size]), every),
            Split("extrapolation", 0, np.sort(drawn), every),
        ]


def _unit(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for name, vectors in (("training", train), ("test", test)):
        vectors = np.asarray(vectors, np.float64)
        if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
            raise DataError(f"the {name} questions' embeddings are no (N, D) numbers: embed the questions first")
        found.append(unit_length(vectors))
    if found[0].shape[1] != found[1].shape[1]:
        raise DataError("training and test questions have embeddings of other lengths: embed them with one model")
    return found[0], found[1]


def nearest_cosine(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(Q,): how near the nearest training question is to each test question; what tells the regimes apart."""
    train, test = _unit(train, test)
    closest: np.ndarray = (test @ train.T).max(1)
    return closest
