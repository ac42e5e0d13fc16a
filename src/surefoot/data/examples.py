"""The one form in which data reaches the rest of surefoot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from surefoot.errors import DataError, nearest

Modality = Literal["text", "image", "features"]

#: The optional columns: one value per example.
EXTRAS = ("domain", "group", "document", "ids", "weight", "answer", "entities", "positive", "negative", "score")


@dataclass(frozen=True, eq=False)
class Examples:
    """N inputs and what is known of each.

    `inputs`: a list of N strings; N images (a sequence of PIL images, or an array (N, H, W[, C])); or an array (N, F)
    of floats. `labels`: (N,) int64, indices into `classes`; None where unknown. `domain`, `group`, `document`, `ids`: (N,) strings.
    A `group` is what worst-group methods care about; a `document` is what examples of one source share, so that they
    are not independent and intervals must not count them as if they were.
    `weight`: (N,) floats, none negative. `answer`: (N,) strings, what should follow each text, for objectives of
    language models. `entities`: (N,) tuples of (start, end), the characters of each text that are entities.
    Of pairs, which train an embedding, the inputs are the anchors; `positive`: (N,) strings that belong to them;
    `negative`: (N,) strings that seem to and do not; `score`: (N,) floats, how alike anchor and positive are.
    `source`: where they come from, for messages. `label_texts`: a phrase that describes each class, for objectives that
    encode the labels.
    """

    inputs: Any
    labels: np.ndarray | None
    classes: tuple[str, ...]
    modality: Modality = "text"
    domain: np.ndarray | None = None
    group: np.ndarray | None = None
    document: np.ndarray | None = None
    ids: np.ndarray | None = None
    weight: np.ndarray | None = None
    answer: np.ndarray | None = None
    entities: np.ndarray | None = None
    positive: np.ndarray | None = None
    negative: np.ndarray | None = None
    score: np.ndarray | None = None
    source: str = "data"
    label_texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("labels", *EXTRAS):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.inputs):
                raise DataError(f"{self.source}: {len(self.inputs)} inputs but {len(column)} values of `{name}`")
        if self.label_texts is not None and len(self.label_texts) != len(self.classes):
            raise DataError(f"{self.source}: {len(self.classes)} classes but {len(self.label_texts)} label texts")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Sequence[int] | np.ndarray) -> Examples:
        """The examples at these positions, in this order; a boolean mask (N,) works too."""
        where = np.asarray(indices)
        if where.dtype == bool:
            if len(where) != len(self):
                raise DataError(f"{self.source}: a mask of {len(where)} for {len(self)} examples")
            where = np.flatnonzero(where)
        where = where.astype(np.int64)
        columns = {name: getattr(self, name) for name in ("labels", *EXTRAS)}
        taken = {name: column[where] for name, column in columns.items() if column is not None}
        return replace(self, inputs=_take(self.inputs, where), **taken)

    def with_classes(self, classes: Sequence[str]) -> Examples:
        """The same examples with labels as indices into a model's `classes`.

        Raises DataError for a label that is not among them, naming its row, and the nearest class.
        """
        classes = tuple(classes)
        if classes == self.classes:
            return self
        place = {name: index for index, name in enumerate(classes)}
        labels = self.labels
        if labels is not None:
            remap = np.array([place.get(name, -1) for name in self.classes], dtype=np.int64)
            unseen = np.flatnonzero(remap[labels] < 0)
            if len(unseen):
                label = self.classes[labels[unseen[0]]]
                where = f"{self.source}, row {unseen[0] + 1}"
                raise DataError(f"{where}: the label `{label}` was not seen in training; {nearest(label, classes)}")
            labels = remap[labels]
        texts = dict(zip(self.classes, self.label_texts or (), strict=False))
        label_texts = tuple(texts[name] for name in classes) if all(name in texts for name in classes) else None
        return replace(self, labels=labels, classes=classes, label_texts=label_texts)

    def only_domain(self, name: str) -> Examples:
        """The examples of one domain."""
        if self.domain is None:
            raise DataError(
                f"{self.source}: no column `domain`, so the domain `{name}` cannot be picked; add the column"
            )
        mask = self.domain == name
        if not mask.any():
            raise DataError(f"{self.source}: no example of the domain `{name}`; {nearest(name, set(self.domain))}")
        return self.take(mask)

    def group_indices(self) -> tuple[list[str], np.ndarray | None]:
        """The groups' names, sorted, and each example's index among them (N,); none where there is no such column."""
        if self.group is None:
            return [], None
        names, where = np.unique(self.group, return_inverse=True)
        return [str(name) for name in names], where.astype(np.int64)

    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) over inputs, labels, classes, answers, entities and pairs, in order: equal data,
        equal fingerprint."""
        digest = hashlib.sha256(self.modality.encode())
        for key in _keys(self):
            digest.update(len(key).to_bytes(8, "little") + key)
        digest.update("\0".join(self.classes).encode("utf-8", "surrogatepass"))
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        for column in (self.answer, self.entities, self.positive, self.negative, self.score):
            if column is not None:
                digest.update(repr(column.tolist()).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def concatenate(parts: Sequence[Examples]) -> Examples:
    """One after the other. All must have the same modality and classes; a column that one of them lacks is dropped."""
    first = parts[0]
    for part in parts:
        if (part.modality, part.classes) != (first.modality, first.classes):
            raise DataError(f"{first.source} and {part.source} cannot be joined: their kind of input or classes differ")
    inputs: Any = [one for part in parts for one in part.inputs]
    if all(isinstance(part.inputs, np.ndarray) for part in parts):
        inputs = np.concatenate([part.inputs for part in parts])
    columns = {name: [getattr(part, name) for part in parts] for name in ("labels", *EXTRAS)}
    joined: dict[str, Any] = {
        name: None if any(c is None for c in column) else np.concatenate(column) for name, column in columns.items()
    }
    return replace(first, inputs=inputs, source=" + ".join(dict.fromkeys(part.source for part in parts)), **joined)


def overlap(a: Examples, b: Examples) -> int:
    """How many inputs of `b` occur, identical, in `a`: a judge that overlaps the training data judges memory."""
    if a.modality != b.modality:
        return 0
    seen = set(_keys(a))
    return sum(key in seen for key in _keys(b))


def _take(inputs: Any, where: np.ndarray) -> Any:
    # Arrays and lazily decoded images know how to select; a list does not.
    if hasattr(inputs, "take") and not isinstance(inputs, np.ndarray):
        return inputs.take(where)
    return inputs[where] if isinstance(inputs, np.ndarray) else [inputs[index] for index in where]


def _keys(examples: Examples) -> Iterator[bytes]:
    """Bytes that identify each input."""
    if examples.modality == "text":
        return (text.encode("utf-8", "surrogatepass") for text in examples.inputs)
    arrays = (np.ascontiguousarray(one) for one in examples.inputs)
    return (f"{array.shape}{array.dtype}".encode() + array.tobytes() for array in arrays)
