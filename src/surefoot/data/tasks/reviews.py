"""Sentiment of sentences in four domains: movie reviews, product reviews, newspaper editorials and tweets.

Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text" (ICWSM 2014):
the mean of twenty people's ratings, from -4 to 4. The label is its sign; sentences within 0.5 of zero are left out.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from surefoot.assets import fetch
from surefoot.data.examples import Examples
from surefoot.data.tasks.task import Task, check_size
from surefoot.errors import DataError, nearest

FILES = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
HOME = "movies"
CLASSES = ("negative", "positive")
LABEL_TEXTS = ("This sentence expresses a negative opinion.", "This sentence expresses a positive opinion.")
VALIDATION_SIZE = 1000


def rated_sentences(name: str) -> list[tuple[str, float, str]]:
    """(id, mean rating, text) of every sentence of a domain whose mean rating is further than 0.5 from zero."""
    if name not in FILES:
        raise DataError(f"reviews: no domain `{name}`; {nearest(name, FILES)}")
    content = (fetch("vader") / FILES[name]).read_bytes().decode("utf-8")
    rows = []
    for line in content.split("\r\n"):
        if line:
            identifier, rating, text = line.split("\t", 2)
            rows.append((identifier, float(rating), text))
    return [row for row in rows if abs(row[1]) > 0.5]


@lru_cache(maxsize=len(FILES))
def reviews_domain(name: str) -> Examples:
    """All sentences of a domain, each text once (its first occurrence), in the file's order.

    `ids` are "DOMAIN/ID". `document`: for Amazon and the NYT the part of the id before the underscore,
    elsewhere the sentence itself.
    """
    first: dict[str, tuple[str, float]] = {}
    for identifier, rating, text in rated_sentences(name):
        first.setdefault(text, (identifier, rating))
    ids = [f"{name}/{identifier}" for identifier, _ in first.values()]
    return Examples(
        inputs=list(first),
        labels=np.array([int(rating > 0) for _, rating in first.values()], dtype=np.int64),
        classes=CLASSES,
        domain=np.full(len(first), name),
        document=np.array([each.partition("_")[0] for each in ids]),
        ids=np.array(ids),
        source=f"reviews/{name}",
        label_texts=LABEL_TEXTS,
    )


def load(*, seed: int = 0, train_size: int | None = None, test_size: int | None = None) -> Task:
    """Train on `train_size` (4,000) movie sentences; test on `test_size` (1,000) sentences of every domain.

    Test, validation and training sentences are taken from one shuffle in that order, so another `train_size` leaves
    the tests as they are. Tests take whole documents until full; `pools` hold only documents that no test touches.
    """
    train_size, test_size = train_size or 4000, test_size or 1000
    tests, pools, held = {}, {}, np.array([], dtype=np.int64)
    for number, name in enumerate(FILES):
        examples = reviews_domain(name)
        check_size(examples.source, test_size, len(examples))
        order, rest = _documents_first(examples, test_size, np.random.default_rng([seed, number]))
        tests[name] = replace(examples.take(order), source=f"reviews/{name}/test")
        if name == HOME:
            held = rest
        else:
            pools[name] = replace(examples.take(rest), source=f"reviews/{name}/pool")
    check_size("reviews/train", train_size, len(held) - VALIDATION_SIZE)
    home = replace(reviews_domain(HOME), document=None)  # a movie sentence stands alone
    validation = replace(home.take(held[:VALIDATION_SIZE]), source="reviews/validation")
    train = replace(home.take(held[VALIDATION_SIZE : VALIDATION_SIZE + train_size]), source="reviews/train")
    return Task(train, validation, tests, HOME, LABEL_TEXTS, pools)


def _documents_first(examples: Examples, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `size` sentences in whole, shuffled documents (the last one cut), and of all untouched documents."""
    assert examples.document is not None
    documents, which = np.unique(examples.document, return_inverse=True)
    rank = np.empty(len(documents), dtype=np.int64)
    rank[generator.permutation(len(documents))] = np.arange(len(documents))
    order = np.argsort(rank[which], kind="stable")
    last = rank[which[order[size - 1]]]
    return order[:size], order[rank[which[order]] > last]
