"""Words of texts, how often and how near each other they stand: what static vectors are learned from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from surefoot.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|<br\s*/?>")

#: In place of a word that is not there, at the ends of a document.
NOTHING = -1


def tokens(text: str) -> list[str]:
    """Words in lower case; an apostrophe within a word is part of it.

    >>> tokens("Don't panic: it's 42!")
    ["don't", 'panic', "it's", '42']
    """
    return _WORD.findall(text.lower())


def sentences(text: str) -> list[str]:
    """Sentences of a text, cut after . ! or ? that white space follows, and at line breaks of HTML.

    >>> sentences("Dull. Long!<br /><br />But why?")
    ['Dull.', 'Long!', 'But why?']
    """
    return [each.strip() for each in _SENTENCE.split(text) if each.strip()]


@dataclass(frozen=True)
class Vocabulary:
    """Words, the most frequent first, and how often each was seen, (V,)."""

    words: Sequence[str]
    counts: np.ndarray

    @cached_property
    def place(self) -> dict[str, int]:
        """The row of each word."""
        return {word: row for row, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, documents: Iterable[Sequence[str]], *, min_count: int = 1, most: int | None = None) -> Vocabulary:
        """The words seen `min_count` times or more; of these the `most` frequent. Raises DataError if there are none."""
        counted = Counter(word for document in documents for word in document)
        kept = sorted(((-count, word) for word, count in counted.items() if count >= min_count))[:most]
        if not kept:
            raise DataError(
                f"no word is seen {min_count} times in these texts: give more of them, or a smaller `min_count`"
            )
        return cls([word for _, word in kept], np.array([-count for count, _ in kept], dtype=np.int64))

    def rows(self, document: Iterable[str]) -> np.ndarray:
        """Rows of the known words of a document, in their order."""
        place = self.place
        return np.array([place[word] for word in document if word in place], dtype=np.int64)


def windows(documents: Sequence[np.ndarray], *, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Every word with those around it: centres (M,) and contexts (M, 2 window), NOTHING beyond a document's ends.

    >>> windows([np.array([5, 6, 7])], window=1)[1].tolist()
    [[-1, 6], [5, 7], [6, -1]]
    """
    joined = _apart(documents, window)
    at = np.flatnonzero(joined != NOTHING)
    offsets = [step for step in range(-window, window + 1) if step]
    return joined[at], joined[at[:, None] + np.array(offsets)]


def cooccurrences(documents: Sequence[np.ndarray], *, size: int, window: int) -> csr_matrix:
    """X (V, V), symmetric: the sum over places where w and w' stand d <= window words apart of 1 / d.

    The weight 1 / d is that of GloVe's tool (Pennington et al. 2014); a word beside itself counts from both sides.

    >>> cooccurrences([np.array([0, 1, 0])], size=2, window=2).toarray().tolist()
    [[1.0, 2.0], [2.0, 0.0]]
    """
    from scipy.sparse import coo_matrix

    joined = _apart(documents, window)
    total = coo_matrix((size, size), dtype=np.float64).tocsr()
    for distance in range(1, window + 1):
        left, right = joined[:-distance], joined[distance:]
        known = (left != NOTHING) & (right != NOTHING)
        weights = np.full(int(known.sum()), 1.0 / distance)
        total = total + coo_matrix((weights, (left[known], right[known])), shape=(size, size)).tocsr()
    return (total + total.T).tocsr()


def _apart(documents: Sequence[np.ndarray], window: int) -> np.ndarray:
    """All words in a row, with so much of nothing between documents that no window reaches from one to the next."""
    gap = np.full(window, NOTHING, dtype=np.int64)
    return np.concatenate([gap, *(part for each in documents for part in (each, gap))])
