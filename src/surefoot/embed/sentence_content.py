"""The sentence content task: does this sentence occur in that paragraph?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.embed.vocabulary import sentences, tokens
from surefoot.errors import DataError


@dataclass(frozen=True)
class ContentPairs:
    """Paragraph and sentence of each question, and whether it occurs there: `paragraph` (N,), rows of the texts it was made
    of; `sentence` (N,), rows of `sentences`; `present` (N,) of 0 and 1."""

    sentences: list[str]
    paragraph: np.ndarray
    sentence: np.ndarray
    present: np.ndarray

    def __len__(self) -> int:
        return len(self.present)


def sentence_content(texts: Sequence[str], *, seed: int = 0, every: bool = True) -> ContentPairs:
    """Each sentence of each paragraph (`every`; or one drawn of each), and beside it one drawn from another paragraph.

    Paragraphs are texts of two sentences or more, sentences have two words or more, as in the released script; a drawn
    sentence that occurs in the paragraph too makes the question void, and its pair is left out. Vu and Iyyer 2019. Raises
    DataError where fewer than two texts have two sentences.

    >>> found = sentence_content(["It rains here. It pours.", "We left early. Nobody knew."])
    >>> found.present.tolist()
    [1, 0, 1, 0, 1, 0, 1, 0]
    """
    rng = np.random.default_rng(seed)
    parts = [[each for each in sentences(text) if len(tokens(each)) >= 2] for text in texts]
    usable = [row for row, each in enumerate(parts) if len(each) >= 2]
    if len(usable) < 2:
        raise DataError("two texts or more must have two sentences or more, of two words or more: give longer texts")
    said: dict[str, int] = {}
    rows: list[tuple[int, int, int]] = []
    for row in usable:
        asked = parts[row] if every else [parts[row][rng.integers(len(parts[row]))]]
        for own in asked:
            other = row
            while other == row:
                other = usable[rng.integers(len(usable))]
            foreign = parts[other][rng.integers(len(parts[other]))]
            if foreign in parts[row]:
                continue
            for each, present in ((own, 1), (foreign, 0)):
                rows.append((row, said.setdefault(each, len(said)), present))
    found = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return ContentPairs(list(said), found[:, 0], found[:, 1], found[:, 2])
