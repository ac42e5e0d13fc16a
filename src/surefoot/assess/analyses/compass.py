"""The compass of sentence embeddings: how well one retrieves, how surely, from which score on, and what that goes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.assess.analysis import DRAWS, SEED, Analysis, Record, ends, numbers
from surefoot.embed.geometry import isotropy, unit_length
from surefoot.embed.partition import partition_isotropy, second_moment_ratio
from surefoot.errors import DataError, RecipeError
from surefoot.registry import Paper, register

#: Bins of the cosines' histograms, over [-1, 1].
BINS = 100


@dataclass(frozen=True)
class Bearing(Record):
    """`accuracy` at k, the mean over bootstrap draws, with `low` and `high`, its 95% interval, and their distance `width`.
    `threshold`: the cosine that tells correct pairs from random ones best, `kept` and `passing` the shares of correct and of
    random pairs at or above it. `overlap_top_correct`, `overlap_correct_random`, `overlap_top_random`: shares that two
    distributions of cosines have in common. `partition_isotropy`, `second_moment_ratio` and `isoscore` of all vectors."""

    accuracy: float
    low: float
    high: float
    width: float
    threshold: float
    kept: float
    passing: float
    overlap_top_correct: float
    overlap_correct_random: float
    overlap_top_random: float
    partition_isotropy: float
    second_moment_ratio: float
    isoscore: float


@register(
    "compass",
    kind="analysis",
    family="retrieval",
    papers=[
        Paper(
            "A Compass for Navigating the World of Sentence Embeddings for the Telecom Domain",
            "Roychowdhury et al.",
            2024,
            arxiv="2406.12336",
        )
    ],
)
class Compass(Analysis):
    """Bootstrapped retrieval accuracy of an embedding, a threshold for its cosines, overlaps of their distributions, isotropy.

    Call with `queries` (Q, D) and `documents` (N, D), an embedding's vectors, and `relevant`, for each query the rows of its
    right documents. A query is right where one of these is among the k nearest by cosine; accuracy = mean over `draws` (1,000)
    seeded bootstrap draws of queries of the share that is right, the interval their middle 95%. Three distributions of
    cosines: correct (a query and its right documents), top (a query and its k nearest), random (a query and a document drawn
    from the others, as many as the correct). Overlap of two = sum over bins of min(p, q), bins 0.02 wide: 1 where they
    are the same, 0 where nothing is shared. Threshold: argmax over t of P(correct >= t) - P(random >= t). Isotropy over
    queries and documents as they are: min Z / max Z of partition functions (Mu and Viswanath 2018), smallest over largest
    singular value, IsoScore* (Rudman and Eickhoff 2024). Gives a `Bearing`: shares and cosines.

    k: 5. The paper has bootstrapped accuracies, thresholds from distributions, overlaps of these three, and two measures of
    isotropy; its own rule for thresholds and measure of overlap could not be checked, and are ours. `related` puts the bearings
    of several models side by side. Raises RecipeError for options that cannot work, DataError for fewer than two queries
    or documents, or rows that do not exist. Reference: Roychowdhury et al. 2024.
    """

    def __init__(self, *, k: int = 5, draws: int = DRAWS, seed: int = SEED) -> None:
        if k < 1:
            raise RecipeError(f"`k` is {k}: give one or more")
        if draws < 100:
            raise RecipeError(f"`draws` is {draws}: 95% intervals need 100 bootstrap draws or more")
        self.k = k
        self.draws = draws
        self.seed = seed

    def __call__(self, *, queries: Any, documents: Any, relevant: Sequence[Sequence[int]]) -> Bearing:  # type: ignore[override]
        asked, held = (
            numbers(name, each, dimensions=2) for name, each in (("queries", queries), ("documents", documents))
        )
        wanted = _wanted(relevant, len(asked), len(held))
        if asked.shape[1] != held.shape[1]:
            raise DataError(
                f"queries have {asked.shape[1]} numbers and documents {held.shape[1]}: take one model's vectors"
            )
        rng = np.random.default_rng(self.seed)
        cosines = unit_length(asked) @ unit_length(held).T
        k = min(self.k, len(held) - 1)
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        right = np.array([bool(set(row) & set(own)) for row, own in zip(nearest.tolist(), wanted, strict=True)])
        drawn = right[rng.integers(len(right), size=(self.draws, len(right)))].mean(1)
        low, high = ends(drawn)
        correct = np.concatenate([cosines[row, own] for row, own in enumerate(wanted)])
        random = np.concatenate([cosines[row, _others(own, len(held), rng)] for row, own in enumerate(wanted)])
        top = np.take_along_axis(cosines, nearest, axis=1).ravel()
        threshold = separating(correct, random)
        together = np.concatenate([asked, held])
        return Bearing(
            accuracy=float(drawn.mean()),
            low=low,
            high=high,
            width=high - low,
            threshold=threshold,
            kept=float((correct >= threshold).mean()),
            passing=float((random >= threshold).mean()),
            overlap_top_correct=overlap(top, correct),
            overlap_correct_random=overlap(correct, random),
            overlap_top_random=overlap(top, random),
            partition_isotropy=partition_isotropy(together),
            second_moment_ratio=second_moment_ratio(together),
            isoscore=isotropy(together) if together.shape[1] > 1 else 1.0,
        )


def related(bearings: Mapping[str, Bearing]) -> dict[str, dict[str, float | None]]:
    """Spearman's correlation over models of accuracy and of its interval's width with overlaps and isotropy.

    None where a figure is the same for all. Raises DataError for fewer than three models: two always lie on a line.
    """
    from scipy.stats import spearmanr

    if len(bearings) < 3:
        raise DataError(f"{len(bearings)} models: correlations over models take three or more")
    names = ["overlap_top_correct", "overlap_correct_random", "overlap_top_random"]
    names += ["partition_isotropy", "second_moment_ratio", "isoscore"]
    found: dict[str, dict[str, float | None]] = {}
    for outcome in ("accuracy", "width"):
        found[outcome] = {}
        for name in names:
            pairs = np.array([[getattr(each, outcome), getattr(each, name)] for each in bearings.values()])
            constant = (pairs == pairs[0]).all(0).any()
            found[outcome][name] = None if constant else float(spearmanr(*pairs.T).statistic)
    return found


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """sum over bins of [-1, 1] of min(p, q), the shares of two samples of cosines in each.

    >>> overlap(np.array([0.11, 0.51]), np.array([0.11, 0.91]))
    0.5
    """
    shares = [np.histogram(np.clip(each, -1, 1), BINS, range=(-1, 1))[0] / len(each) for each in (first, second)]
    return float(np.minimum(*shares).sum())


def separating(high: np.ndarray, low: np.ndarray) -> float:
    """The value t of the samples with the largest P(high >= t) - P(low >= t), the highest of several.

    >>> separating(np.array([0.4, 0.8]), np.array([0.1, 0.3]))
    0.4
    """
    values = np.unique(np.concatenate([high, low]))
    above = [1 - np.searchsorted(np.sort(each), values, side="left") / len(each) for each in (high, low)]
    gain = np.round(above[0] - above[1], 12)
    return float(values[np.flatnonzero(gain == gain.max())[-1]])


def _wanted(relevant: Sequence[Sequence[int]], queries: int, documents: int) -> list[list[int]]:
    if len(relevant) != queries or queries < 2 or documents < 2:
        raise DataError(
            f"{queries} queries, {documents} documents, {len(relevant)} lists of right ones: give two or more of each"
        )
    found = [sorted({int(each) for each in own}) for own in relevant]
    for row, own in enumerate(found):
        if not own or own[0] < 0 or own[-1] >= documents or len(own) == documents:
            raise DataError(
                f"query {row + 1}: right documents {own[:5]} must be rows of the {documents}, one at least, not all"
            )
    return found


def _others(own: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """As many documents as are right, drawn from those that are not."""
    return np.setdiff1d(np.arange(count), own)[rng.integers(count - len(own), size=len(own))]
