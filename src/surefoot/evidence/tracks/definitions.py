"""`definitions`: how alike two sentences are, by a MiniLM that starts from nothing and reads a dictionary."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from surefoot.data.dictionary import definitions
from surefoot.data.examples import Examples
from surefoot.evidence.sentences import bare
from surefoot.evidence.tracks.sts import HELD_OUT, SENTENCES, SentenceSimilarity

#: Entries that are drawn; their definitions are more than are read.
ENTRIES = 2200


class Definitions(SentenceSimilarity):
    """The track `sts`, its unlabelled sentences replaced by definitions of WordNet, each labelled with its entry.

    One kind of the rated sentences are definitions too (OnWN): those that are rated are not among the ones that train.
    """

    name = "definitions"
    summary = "sentence similarity as in `sts`, by a model that is no sentence encoder any more, trained on 2,048 definitions of WordNet"
    generation: ClassVar[int] = 1

    def unlabelled(self, seed: int) -> Examples:
        rated = {bare(each) for name in ("sentence1", "sentence2") for each in self.rated[name]}
        found = definitions(ENTRIES, seed=seed)
        kept = np.array([i for i, text in enumerate(found.inputs) if bare(text) not in rated])
        return found.take(np.random.default_rng(seed).permutation(kept)[: SENTENCES + HELD_OUT])


TRACK = Definitions()
