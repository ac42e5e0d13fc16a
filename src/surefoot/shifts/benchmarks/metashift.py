"""MetaShift: contextual subsets of a class, a graph of how they overlap, and how far apart two of them are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.attacks.pgd import whole
from surefoot.errors import DataError, nearest
from surefoot.registry import Paper, register


@dataclass(frozen=True)
class MetaGraph:
    """The subsets of one class. `names` (S,) such as cat(sofa); `members`: the places of each one's examples; `overlap`
    (S, S): |A and B| / min(|A|, |B|); `embedding` (S, D): by which distances are measured."""

    names: list[str]
    members: list[np.ndarray]
    overlap: np.ndarray
    embedding: np.ndarray

    def distance(self, first: Collection[str], second: Collection[str]) -> float:
        """How large the shift from one group of subsets to another is: between the means of their embeddings."""
        a, b = (self.embedding[[self._place(name) for name in group]].mean(0) for group in (first, second))
        return float(np.linalg.norm(a - b))

    def split(self, train: Collection[str], test: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
        """Places to train on and to test on; what belongs to both is for the test alone."""
        parts = [
            np.unique(np.concatenate([self.members[self._place(name)] for name in group])) for group in (train, test)
        ]
        return np.setdiff1d(parts[0], parts[1]), parts[1]

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise DataError(f"no subset is called `{name}`; {nearest(name, self.names)}")
        return self.names.index(name)


@register(
    "metashift",
    kind="benchmark",
    family="graphs",
    papers=[
        Paper(
            "MetaShift: A Dataset of Datasets for Evaluating Contextual Distribution Shifts and Training Conflicts",
            "Liang and Zou",
            2022,
            arxiv="2202.06523",
        )
    ],
)
class MetaShift:
    """Subsets "class(context)" of any data whose examples name their contexts, and a meta-graph of them for each class.

    A subset holds the examples of a class that have an attribute; subsets under `least` examples are left out. The weight
    of an edge is the overlap coefficient |A and B| / min(|A|, |B|). Nodes are embedded by the eigenvectors of I -
    D^-1/2 W D^-1/2 with the `dimensions` smallest eigenvalues beside the trivial one, divided by sqrt(d): a spectral embedding,
    as `sklearn.manifold.spectral_embedding` gives it up to scale; the Euclidean distance of two nodes, or of the means of
    two groups, is the size of the shift. `graphs` takes labels (N,) and a collection of attributes for each example, and
    gives a `MetaGraph` by class with two subsets or more. least: 25, the release's. dimensions: 8, a choice of ours (the
    release does not compute distances). Raises RecipeError for values below 1, DataError where no class has two subsets.
    Reference: Liang and Zou 2022, section 3.

    >>> contexts = [{"sofa"}, {"sofa", "tv"}, {"tv", "grass"}, {"grass", "ball"}, {"ball"}, {"sofa", "tv"}]
    >>> graph = MetaShift(least=2).graphs(["cat"] * 6, contexts)["cat"]
    >>> graph.distance(["cat(sofa)"], ["cat(tv)"]) < graph.distance(["cat(sofa)"], ["cat(ball)"])
    True
    """

    def __init__(self, *, least: int = 25, dimensions: int = 8) -> None:
        self.least, self.dimensions = whole("least", least), whole("dimensions", dimensions)

    def graphs(self, labels: Sequence[str], attributes: Sequence[Collection[str]]) -> dict[str, MetaGraph]:
        if len(labels) != len(attributes):
            raise DataError(f"{len(labels)} labels and {len(attributes)} collections of attributes: give one for each")
        places: dict[str, dict[str, list[int]]] = {}
        for place, (label, names) in enumerate(zip(labels, attributes, strict=True)):
            for name in set(names):
                places.setdefault(str(label), {}).setdefault(str(name), []).append(place)
        found = {}
        for label, subsets in sorted(places.items()):
            kept = {name: np.array(members) for name, members in sorted(subsets.items()) if len(members) >= self.least}
            if len(kept) >= 2:
                found[label] = self._graph(label, kept)
        if not found:
            raise DataError(f"no class has two contexts with {self.least} examples each: lower `least`")
        return found

    def _graph(self, label: str, subsets: dict[str, np.ndarray]) -> MetaGraph:
        members = list(subsets.values())
        sizes = np.array([len(each) for each in members])
        shared = np.array([[len(np.intersect1d(a, b)) for b in members] for a in members])
        overlap = shared / np.minimum(sizes[:, None], sizes[None])
        return MetaGraph([f"{label}({name})" for name in subsets], members, overlap, spectral(overlap, self.dimensions))


def spectral(weights: np.ndarray, dimensions: int) -> np.ndarray:
    """(S, at most `dimensions`) from symmetric weights (S, S); the diagonal, which is the same for all, is left out."""
    weights = weights - np.diag(np.diag(weights))
    degree = np.maximum(weights.sum(1), 1e-12)  # a subset that overlaps with none is a part of its own
    root = 1 / np.sqrt(degree)
    laplacian = np.eye(len(weights)) - root[:, None] * weights * root[None]
    trivial = np.sqrt(degree) / np.sqrt(degree.sum())
    # The trivial vector out of the way: where the graph falls into parts, others share its eigenvalue of 0.
    vectors = np.linalg.eigh(laplacian + 2 * np.outer(trivial, trivial))[1][:, : min(dimensions, len(weights) - 1)]
    connected = np.where(degree > 1e-9, root, 1.0)
    found: np.ndarray = vectors * connected[:, None]
    return found
