"""What sentence embeddings are like beside their score: where they lie on the sphere, and what they are sensitive to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import spearmanr

from surefoot.embed.geometry import alignment, effective_rank, isotropy, uniformity, unit_length

#: Pairs rated at least so high (of 5) are two sentences that say the same.
ALIKE = 4.0
#: Sentences that are edited, and the seed of the edits.
EDITED, SEED = 200, 0


def geometry(first: np.ndarray, second: np.ndarray, rated: np.ndarray) -> dict[str, float]:
    """Figures of embeddings of unit length, `first` and `second` (N, D), of pairs rated from 0 to 5 (N,).

    pair_alignment: mean ||u - v||^2 of pairs rated 4 or more. sentence_uniformity: log of the mean of exp(-2 ||u - v||^2)
    over all pairs of sentences. sentence_isotropy: IsoScore* of all embeddings. effective_rank: see there.
    """
    together = np.concatenate([first, second]).astype(np.float64)
    alike = rated >= ALIKE
    return {
        "pair_alignment": alignment(first[alike], second[alike]),
        "sentence_uniformity": uniformity(together @ together.T),
        "sentence_isotropy": isotropy(together),
        "effective_rank": effective_rank(together, centred=False),
    }


def sensitivity(embed: Callable[[Sequence[str]], np.ndarray], sentences: Sequence[str]) -> dict[str, float]:
    """Squared distances of sentences from what is made of them, over the mean squared distance of two sentences.

    edit_distance: from the sentence with one word changed for another sentence's. halves_distance: from the mean of the
    embeddings of its two halves, scaled to unit length.
    """
    chosen = [text for text in dict.fromkeys(sentences) if len(text.split()) > 1][:EDITED]
    halves = [half for text in chosen for half in cut(text)]
    vectors = embed([*chosen, *edited(chosen), *halves]).astype(np.float64)
    plain, changed, parts = np.split(vectors, [len(chosen), 2 * len(chosen)])
    composed = unit_length(parts.reshape(len(chosen), 2, -1).sum(1))
    apart = 2 - 2 * (plain @ plain.T)[np.triu_indices(len(plain), 1)].mean()
    return {
        "edit_distance": float(((plain - changed) ** 2).sum(1).mean() / apart),
        "halves_distance": float(((plain - composed) ** 2).sum(1).mean() / apart),
    }


def edited(sentences: Sequence[str]) -> list[str]:
    """Every sentence with one of its words changed for one of the next sentence's."""
    rng, found = np.random.default_rng(SEED), []
    for text, other in zip(sentences, [*sentences[1:], sentences[0]], strict=True):
        words, others = text.split(), other.split()
        words[rng.integers(len(words))] = others[rng.integers(len(others))]
        found.append(" ".join(words))
    return found


def cut(sentence: str) -> tuple[str, str]:
    """Both halves of a sentence of two words or more.

    >>> cut("one two three")
    ('one', 'two three')
    """
    words = sentence.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def word_order(cosines: np.ndarray, first: Sequence[str], second: Sequence[str]) -> float:
    """Spearman's rho of cosines (N,) with the share of words that two sentences have in common (Jaccard's)."""
    sets = [(set(one.lower().split()), set(other.lower().split())) for one, other in zip(first, second, strict=True)]
    return float(spearmanr(cosines, [len(one & other) / len(one | other) for one, other in sets]).statistic)
