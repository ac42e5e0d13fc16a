"""The contract of word vectors: texts in, a fixed vector for every word out; a text is made of those of its words.

A method learns from texts alone (`fit`), or from labelled ones where it is `supervised`. It keeps a vocabulary and arrays
of floats, nothing else, so that a folder of safetensors and JSON holds all of it:

    vectors.safetensors   the arrays
    vocabulary.json       words and their counts, the most frequent first
    method.json           the method's name and options, and what is not an array
    word2vec.bin          the vectors of the words once more, for gensim's KeyedVectors and whatever else reads word2vec
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from surefoot.embed.geometry import unit_length
from surefoot.embed.vocabulary import Vocabulary, tokens
from surefoot.errors import DataError, RunError, SurefootError
from surefoot.files import atomic_folder, atomic_write, write_json
from surefoot.progress import Progress, Silent

VECTORS, VOCABULARY, METHOD, WORD2VEC = "vectors.safetensors", "vocabulary.json", "method.json", "word2vec.bin"


class WordVectors:
    """A subclass writes `learn`, which sets `vocabulary_` and `vectors_`, and `encode_document` or `encode` where a text
    is more than the mean of its words.

    Constructor arguments are keyword-only, validated there (RecipeError) and kept under their own names; what is learned
    ends in `_`. `vectors_`: (V, D) float32, one row for each word of `vocabulary_`.
    """

    #: Whether `fit` asks for labels, of two classes.
    supervised: ClassVar[bool] = False
    #: Learned arrays besides `vectors_`, and learned JSON values, by attribute.
    arrays: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[tuple[str, ...]] = ()

    vocabulary_: Vocabulary | None = None
    vectors_: np.ndarray

    def fit(
        self,
        texts: Sequence[str],
        *,
        labels: np.ndarray | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from texts, and labels (N,) of 0 and 1 where the method is supervised.

        The same texts, seed and number of threads give the same bytes. Raises DataError for texts that cannot serve.
        """
        if not len(texts):
            raise DataError("there are no texts to learn words from")
        if self.supervised:
            labels = _two_classes(labels, len(texts))
        self.learn(list(texts), labels=labels, seed=seed, progress=progress or Silent())
        if not np.isfinite(self.vectors_).all():
            raise DataError("the vectors are not finite: give a smaller learning rate")
        return self

    def learn(self, texts: list[str], *, labels: np.ndarray | None, seed: int, progress: Progress) -> None:
        raise NotImplementedError

    @property
    def vocabulary(self) -> Vocabulary:
        """What is known. Raises SurefootError before `fit`."""
        if self.vocabulary_ is None:
            raise SurefootError("no words are known yet: call `fit` first")
        return self.vocabulary_

    def words(self, text: str) -> list[str]:
        """The words of a text as the method counts them."""
        return tokens(text)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, E) float32, one row a text, whatever the others are; zeros for a text without a known word."""
        found = [self.encode_document(self.vocabulary.rows(self.words(text))) for text in texts]
        return np.stack(found) if found else np.zeros((0, self.vectors_.shape[1]), dtype=np.float32)

    def encode_document(self, rows: np.ndarray) -> np.ndarray:
        """The mean of the vectors of known words, (D,)."""
        if not len(rows):
            return np.zeros(self.vectors_.shape[1], dtype=np.float32)
        return np.asarray(self.vectors_[rows].mean(0, dtype=np.float64), dtype=np.float32)

    def similar(self, word: str, *, k: int = 10) -> list[tuple[str, float]]:
        """The k words nearest by cosine. Raises DataError for a word that is not known."""
        place = self.vocabulary.place.get(word)
        if place is None:
            raise DataError(
                f"`{word}` is not among the {len(self.vocabulary):,} words: it was seen too seldom, or never"
            )
        unit = unit_length(self.vectors_)
        cosine = unit @ unit[place]
        order = [row for row in np.argsort(-cosine, kind="stable") if row != place][:k]
        return [(self.vocabulary.words[row], float(cosine[row])) for row in order]

    def options(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def save(self, folder: str | Path, *, name: str) -> None:
        """Write the folder, whole or not at all; `name`: what the method is registered as. See the module."""
        from safetensors.numpy import save_file

        words = self.vocabulary
        held = {each: np.ascontiguousarray(getattr(self, each)) for each in ("vectors_", *self.arrays)}
        with atomic_folder(folder) as partial:
            save_file(held, partial / VECTORS)
            write_json(partial / VOCABULARY, {"words": list(words.words), "counts": words.counts.tolist()})
            facts = {each: getattr(self, each) for each in self.facts}
            write_json(partial / METHOD, {"method": name, "options": self.options(), "facts": facts})
            write_word2vec(self, partial / WORD2VEC)


def open_words(folder: str | Path) -> WordVectors:
    """What `save` wrote. Raises RunError for a folder that is not such a one."""
    from safetensors.numpy import load_file

    from surefoot.tune.build import build

    folder = Path(folder)
    try:
        method = json.loads((folder / METHOD).read_text("utf8"))
        words = json.loads((folder / VOCABULARY).read_text("utf8"))
        arrays = load_file(folder / VECTORS)
        found: WordVectors = build("word_vectors", {"name": method["method"], **method["options"]})
        found.vocabulary_ = Vocabulary(words["words"], np.array(words["counts"], dtype=np.int64))
        _restore(found, arrays, method["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: not a folder of word vectors ({error}); `surefoot words train` writes one") from None
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):
            raise RunError(f"{folder / VECTORS}: damaged ({error}); copy or train it again") from None
        raise
    return found


def _restore(found: WordVectors, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    for each in ("vectors_", *found.arrays):
        setattr(found, each, arrays[each])
    for each in found.facts:
        setattr(found, each, facts[each])
    if len(found.vectors_) != len(found.vocabulary):
        raise ValueError(f"{len(found.vectors_)} vectors for {len(found.vocabulary)} words")


def write_word2vec(vectors: WordVectors, path: str | Path) -> None:
    """The vectors of the words in word2vec's format: text where the name ends in .txt, binary otherwise.

    gensim opens it by `KeyedVectors.load_word2vec_format(path, binary=...)`. White space in a word becomes `_`.
    """
    words, values = vectors.vocabulary.words, vectors.vectors_.astype("<f4")
    with atomic_write(path) as partial, open(partial, "wb") as file:
        file.write(f"{len(words)} {values.shape[1]}\n".encode())
        for word, row in zip(words, values, strict=True):
            name = "_".join(word.split()).encode()
            if Path(path).suffix == ".txt":
                file.write(name + b" " + " ".join(map(repr, row.tolist())).encode() + b"\n")
            else:
                file.write(name + b" " + row.tobytes() + b"\n")


def _two_classes(labels: np.ndarray | None, count: int) -> np.ndarray:
    if labels is None or len(labels) != count:
        raise DataError(f"{count} texts need as many labels, 0 or 1: give a column `label`")
    found = np.asarray(labels, dtype=np.int64)
    if set(np.unique(found)) != {0, 1}:
        raise DataError("labels must be of two classes, 0 and 1, and both must be there")
    return found
