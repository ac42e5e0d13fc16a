"""Skip-gram with negative sampling, subsampling of frequent words, and phrases: word2vec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from surefoot.embed.vocabulary import Vocabulary, tokens
from surefoot.embed.word_vectors import WordVectors
from surefoot.errors import DataError, require
from surefoot.progress import Progress
from surefoot.registry import Paper, register
from surefoot.tune.objective import positive
from surefoot.tune.selections import whole

PAPER = Paper(
    "Distributed Representations of Words and Phrases and their Compositionality",
    "Mikolov et al.",
    2013,
    arxiv="1310.4546",
)


@register("skipgram", kind="word_vectors", family="prediction", papers=[PAPER])
class SkipGram(WordVectors):
    """Skip-gram with negative sampling: a word's vector tells the words around it from words drawn at random.

    L = log sigmoid(v_c . u_w) + sum over k negatives n ~ U^(3/4) of log sigmoid(-v_n . u_w) is maximised for every word w
    and each word c up to a drawn 1..`window` places away. u: `vectors_` (V, D), kept; v: the output vectors, not kept. U:
    shares of the words. A place of a word with share f > t is trained on with probability (sqrt(f / t) + 1) t / f, as in
    the released C code (the paper has sqrt(t / f)). By `gensim`, one thread, so that a seed gives the same bytes.

    size: D, 100. window: 5. negative: k, 5, the least the paper recommends for small data. sample: t, 1e-3, the default
    of the C code and of gensim (the paper's 1e-5 is for billions of words); 0 keeps every place. min_count: rarer words
    are left out, 5. epochs: 5. phrases: passes that merge pairs of words a b with (count(ab) - min_count) N / (count(a)
    count(b)) > `threshold` into one; 0 by default, the paper has two to four. threshold: 10 (gensim's), halved with every
    pass, as the released script does. N: words in the vocabulary of the pass, gensim's; the C code has the corpus' size.

    A text is the mean of its words' vectors. Needs `pip install 'surefoot[words]'`. Raises RecipeError for options that
    cannot work, DataError for texts with too few words. Reference: Mikolov et al. 2013.
    """

    facts: ClassVar[tuple[str, ...]] = ("pairs_",)

    def __init__(
        self,
        *,
        size: int = 100,
        window: int = 5,
        negative: int = 5,
        sample: float = 1e-3,
        min_count: int = 5,
        epochs: int = 5,
        phrases: int = 0,
        threshold: float = 10.0,
    ) -> None:
        self.size = whole("size", size, least=1)
        self.window = whole("window", window, least=1)
        self.negative = whole("negative", negative, least=1)
        self.sample = positive("sample", sample, zero=True)
        self.min_count = whole("min_count", min_count, least=1)
        self.epochs = whole("epochs", epochs, least=1)
        self.phrases = whole("phrases", phrases)
        self.threshold = positive("threshold", threshold)

    def learn(self, texts: list[str], *, labels: np.ndarray | None, seed: int, progress: Progress) -> None:
        models = require("gensim.models", extra="words", why="skip-gram")
        callbacks = require("gensim.models.callbacks", extra="words", why="skip-gram")
        documents = [tokens(text) for text in texts]
        self.pairs_ = self._phrases(documents)
        documents = [merged(each, self.pairs_) for each in documents]
        known = Vocabulary.of(documents, min_count=self.min_count)
        if len(known) < 2:
            raise DataError(f"only the word `{known.words[0]}` is seen {self.min_count} times: give more texts")
        advance = progress.start(f"skip-gram over {len(known):,} words", self.epochs * len(documents))

        class Epochs(callbacks.CallbackAny2Vec):  # type: ignore[name-defined, misc]
            def on_epoch_end(self, model: Any) -> None:
                advance(len(documents))

        model = models.Word2Vec(
            sentences=_Restartable(documents),
            vector_size=self.size,
            window=self.window,
            negative=self.negative,
            sample=self.sample,
            min_count=self.min_count,
            epochs=self.epochs,
            sg=1,
            workers=1,
            seed=seed + 1,  # gensim takes 0 for a seed of its own choosing
            callbacks=[Epochs()],
        )
        self.vocabulary_ = known
        self.vectors_ = np.stack([model.wv[word] for word in known.words]).astype(np.float32)

    def _phrases(self, documents: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """By pass: the pairs to merge, as `a b`, with their scores."""
        found: list[dict[str, float]] = []
        for number in range(self.phrases):
            phrases = require("gensim.models.phrases", extra="words", why="phrases")
            joined = [merged(each, found) for each in documents]
            limit = self.threshold / 2**number
            seen = phrases.Phrases(joined, min_count=self.min_count, threshold=limit)
            scores = {
                pair: seen.score_candidate(*pair, [])[1] for pair in {two for each in joined for two in pairwise(each)}
            }
            kept = {" ".join(pair): float(score) for pair, score in scores.items() if score is not None}
            found.append(dict(sorted(kept.items())))
        return found

    def words(self, text: str) -> list[str]:
        return merged(tokens(text), self.pairs_)


class _Restartable:
    """Documents in gensim's pieces of at most 10,000 words; longer ones would be cut off without a word."""

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self.documents = documents

    def __iter__(self) -> Iterator[Sequence[str]]:
        for document in self.documents:
            for start in range(0, len(document), 10_000):
                yield document[start : start + 10_000]


def merged(words: Sequence[str], passes: Sequence[Mapping[str, float]]) -> list[str]:
    """Words with the pairs of each pass merged, from the left.

    >>> merged(["new", "york", "city"], [{"new york": 12.0}, {"new_york city": 9.0}])
    ['new_york_city']
    """
    found = list(words)
    for pairs in passes:
        joined: list[str] = []
        waiting: str | None = None
        for word in found:
            if waiting is not None and f"{waiting} {word}" in pairs:
                joined.append(f"{waiting}_{word}")
                waiting = None
                continue
            if waiting is not None:
                joined.append(waiting)
            waiting = word
        found = joined if waiting is None else [*joined, waiting]
    return found
