"""CLINC150: 150 intents in ten domains, and queries that belong to none of them.

Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction" (EMNLP 2019).
"""

from __future__ import annotations

from dataclasses import replace

from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import split_of
from surefoot.data.tasks.task import Task, draw

_COLUMNS = {"intent": "label"}


def load(*, seed: int = 0, train_size: int | None = None, test_size: int | None = None) -> Task:
    """15,000 training, 3,000 validation and 4,500 test queries in scope; `pools["out_of_scope"]`: 1,000, unlabelled."""
    train = split_of("clinc150", "train", columns=_COLUMNS, in_scope=True)
    texts = tuple(name.replace("_", " ") for name in train.classes)

    def described(examples: Examples) -> Examples:
        return replace(examples.with_classes(train.classes), label_texts=texts)

    validation = described(split_of("clinc150", "validation", columns=_COLUMNS, in_scope=True))
    test = described(split_of("clinc150", "test", columns=_COLUMNS, in_scope=True))
    outside = split_of("clinc150", "test", columns=_COLUMNS, in_scope=False)
    outside = replace(
        outside, labels=None, classes=train.classes, label_texts=texts, source="clinc150/out_of_scope/pool"
    )
    return Task(
        train=draw(described(train), train_size, seed=seed),
        validation=validation,
        tests={"in_scope": draw(test, test_size, seed=seed)},
        home="in_scope",
        label_texts=texts,
        pools={"out_of_scope": outside},
    )
