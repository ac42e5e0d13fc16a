"""What every registered method of word vectors keeps to: seeded, one text at a time, a folder that opens to the same bits."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import one_thread
from surefoot.embed.word_vectors import METHOD, VECTORS, WORD2VEC, WordVectors, open_words, write_word2vec
from surefoot.errors import DataError, RecipeError, RunError, SurefootError
from surefoot.evidence.tracks.search import documented
from surefoot.registry import methods
from surefoot.tune.build import build

pytest.importorskip("gensim")
METHODS = {each.name: each for each in methods("word_vectors")}
every_method = pytest.mark.parametrize("name", list(METHODS))
#: Options that keep each short; all others are the defaults.
SHORT: dict[str, dict[str, Any]] = {
    "binary_paragraph": {"bits": 16, "epochs": 5},
    "disambiguated_skipgram": {"size": 10, "senses": 2, "epochs": 1},
    "scope": {"size": 8, "filters": 8, "output": 6, "most": 20, "epochs": 1},
    "skipgram": {"size": 12, "epochs": 2, "phrases": 1},
    "squared_norm": {"size": 10, "epochs": 2},
    "wespad": {},
}
#: Of numpy's docstrings, those of functions with a long description are one class, at random for the methods.
TEXTS = [f"{head} {body}" for head, body in documented("numpy")][:60]
LABELS = np.array(["array" in text.split()[:8] for text in TEXTS]).astype(np.int64)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    with one_thread():
        yield


def fitted(name: str, seed: int = 0, texts: list[str] = TEXTS) -> WordVectors:
    made: WordVectors = METHODS[name].make(**SHORT[name])
    labels = LABELS[: len(texts)] if made.supervised else None
    assert made.fit(texts, labels=labels, seed=seed) is made
    return made


@pytest.fixture(scope="module")
def known() -> dict[str, WordVectors]:
    return {name: fitted(name) for name in METHODS}


def test_every_method_has_a_short_setting() -> None:
    assert set(SHORT) == set(METHODS)


@every_method
def test_texts_become_vectors_one_at_a_time(name: str, known: dict[str, WordVectors]) -> None:
    vectors = known[name]
    assert vectors.vectors_.shape[0] == len(vectors.vocabulary)
    assert vectors.vectors_.dtype == np.float32
    found = vectors.encode([*TEXTS[:5], "qqq zzz", ""])
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found[:5].any(1).all()
    assert not found[5:].any(), "no known word, no vector"
    alone = np.concatenate([vectors.encode([text]) for text in TEXTS[:5]])
    assert np.abs(found[:5] - alone).mean() < 1e-4
    assert vectors.encode([]).shape[0] == 0


@every_method
def test_a_seed_gives_the_same_bytes(name: str, known: dict[str, WordVectors]) -> None:
    again, other = fitted(name), fitted(name, seed=1)
    assert (again.vectors_ == known[name].vectors_).all()
    assert (again.encode(TEXTS[:8]) == known[name].encode(TEXTS[:8])).all()
    assert (other.vectors_ != again.vectors_).any()


@every_method
def test_the_folder_holds_all(name: str, known: dict[str, WordVectors], tmp_path: Path) -> None:
    """Opened to the bit, by surefoot and, the words' vectors, by gensim."""
    from gensim.models import KeyedVectors

    vectors = known[name]
    vectors.save(tmp_path / "held", name=name)
    again = open_words(tmp_path / "held")
    assert type(again) is type(vectors)
    assert again.options() == vectors.options()
    assert (again.encode(TEXTS[:8]) == vectors.encode(TEXTS[:8])).all()
    theirs = KeyedVectors.load_word2vec_format(str(tmp_path / "held" / WORD2VEC), binary=True)
    assert theirs.index_to_key == list(vectors.vocabulary.words)
    assert (theirs.vectors == vectors.vectors_).all()
    write_word2vec(vectors, tmp_path / "words.txt")
    told = KeyedVectors.load_word2vec_format(str(tmp_path / "words.txt"), binary=False)
    assert (told.vectors == vectors.vectors_).all()
    word = vectors.vocabulary.words[0]
    assert [each for each, _ in vectors.similar(word, k=3)] == [each for each, _ in theirs.most_similar(word, topn=3)]
    (tmp_path / "held" / METHOD).write_text(json.dumps({"method": name}))
    with pytest.raises(RunError, match="surefoot words train"):
        open_words(tmp_path / "held")
    (tmp_path / "held" / VECTORS).write_bytes(b"no tensors")
    with pytest.raises(RunError, match="damaged"):
        open_words(tmp_path / "held")


@every_method
def test_bad_input_is_a_sentence(name: str) -> None:
    make = METHODS[name].make
    with pytest.raises(DataError, match="no texts"):
        make(**SHORT[name]).fit([])
    with pytest.raises(SurefootError, match="call `fit` first"):
        make(**SHORT[name]).encode(["a"])
    with pytest.raises(DataError):
        fitted(name, texts=["one", "two"])
    with pytest.raises(RecipeError, match="unknown option"):
        build("word_vectors", {"name": name, "sise": 3})
    option, value = next((each, 0.5) for each in (*SHORT[name], "clusters"))
    with pytest.raises(RecipeError, match=f"`{option}` is 0.5: it must be a whole number"):
        make(**{option: value})


@every_method
def test_its_docstring_says_what_it_is(name: str) -> None:
    text = " ".join((inspect.getdoc(METHODS[name].make) or "").split())
    for words in ("Raises", "Reference", "=", "(V, ", "RecipeError", "DataError"):
        if not (words == "(V, " and name in ("wespad", "scope")):
            assert words in text, words
    assert METHODS[name].papers


def test_a_supervised_method_asks_for_labels() -> None:
    made = METHODS["wespad"].make()
    with pytest.raises(DataError, match="60 texts need as many labels"):
        made.fit(TEXTS)
    with pytest.raises(DataError, match="two classes"):
        made.fit(TEXTS, labels=np.zeros(60))


def test_unknown_words_are_named(known: dict[str, WordVectors]) -> None:
    with pytest.raises(DataError, match="`aeroplane` is not among"):
        known["skipgram"].similar("aeroplane")
