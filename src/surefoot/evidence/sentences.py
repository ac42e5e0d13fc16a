"""Unlabelled sentences that sentence embeddings are trained on: of several kinds, and none that a score is taken on."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import pandas as pd

from surefoot.data.tasks.reviews import FILES, reviews_domain
from surefoot.data.tasks.stored import stored

#: Words of a sentence: shorter ones say little, longer ones take more time than they teach.
LEAST, MOST = 4, 24
#: Where a sentence ends.
_END = re.compile(r"(?<=[.!?])[\"')]*\s+")
_TAG = re.compile(r"<[^>]+>")


@lru_cache(maxsize=1)
def corpus() -> tuple[str, ...]:
    """About 75,000 sentences, each once, sorted: movie, product and newspaper sentences and tweets (`reviews`), the
    sentences of IMDB reviews and of Cranfield's abstracts, and what people ask assistants and banks.

    No sentence of the STS pairs is among them, whatever its case and punctuation. Raises DataError where
    `SUREFOOT_DATA` lacks a file.
    """
    texts = [text for domain in FILES for text in reviews_domain(domain).inputs]
    texts += (
        pd.read_parquet(stored("clinc150"))["text"].tolist() + pd.read_parquet(stored("banking77"))["text"].tolist()
    )
    texts += pd.read_parquet(stored("cad_imdb"))["text"].tolist()
    texts += pd.read_parquet(stored("cranfield/corpus"))["text"].tolist()
    found = {bare(sentence): sentence for text in texts for sentence in split(text)}
    pairs = pd.read_parquet(stored("sts"))
    for sentence in (*pairs["sentence1"], *pairs["sentence2"]):
        found.pop(bare(sentence), None)
    return tuple(sorted(found.values()))


def split(text: str) -> list[str]:
    """The sentences of a text that have between LEAST and MOST words.

    >>> split("It was late.<br />Nobody came to the door that night! Why?")
    ['Nobody came to the door that night!']
    """
    parts = (" ".join(part.split()) for part in _END.split(_TAG.sub(" ", text)))
    return [part for part in parts if LEAST <= len(part.split()) <= MOST]


def bare(sentence: str) -> str:
    """Its letters and digits alone, in lower case: what two sentences share that differ by punctuation.

    >>> bare("It's late!") == bare("its late")
    True
    """
    return "".join(each for each in sentence.lower() if each.isalnum())


def drawn(count: int, *, seed: int) -> list[str]:
    """So many sentences of the corpus, without replacement."""
    every = corpus()
    return [every[i] for i in np.random.default_rng(seed).permutation(len(every))[:count]]
