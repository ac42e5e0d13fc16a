"""Counterfactually augmented IMDB: movie reviews, and the same reviews revised just enough to turn their sentiment.

Kaushik, Hovy and Lipton, "Learning the Difference that Makes a Difference with Counterfactually-Augmented Data"
(ICLR 2020).
"""

from __future__ import annotations

from dataclasses import replace

from surefoot.data.examples import Examples, concatenate
from surefoot.data.tasks.stored import split_of
from surefoot.data.tasks.task import Task, draw

CLASSES = ("negative", "positive")
LABEL_TEXTS = ("This review expresses a negative opinion.", "This review expresses a positive opinion.")


def load(*, seed: int = 0, train_size: int | None = None, test_size: int | None = None) -> Task:
    """1,707 original reviews to train on, 245 to validate; 488 originals and their 488 revisions to test on."""
    return Task(
        train=draw(_part("train", "original"), train_size, seed=seed),
        validation=_part("validation", "original"),
        tests={
            variant: replace(draw(_part("test", variant), test_size, seed=seed), source=f"cad_imdb/{variant}/test")
            for variant in ("original", "revised")
        },
        home="original",
        label_texts=LABEL_TEXTS,
        pools={"revised": concatenate([_part("train", "revised"), _part("validation", "revised")])},
    )


def _part(split: str, variant: str) -> Examples:
    examples = split_of("cad_imdb", split, columns={"variant": "domain"}, variant=variant)
    return replace(examples.with_classes(("0", "1")), classes=CLASSES, label_texts=LABEL_TEXTS)
