"""Banking77: 77 fine-grained intents of customers of a bank.

Casanueva et al., "Efficient Intent Detection with Dual Sentence Encoders" (2020).
"""

from __future__ import annotations

from dataclasses import replace

from surefoot.data.tasks.stored import split_of
from surefoot.data.tasks.task import Task, draw, split_off

VALIDATION_SIZE = 1000


def load(*, seed: int = 0, train_size: int | None = None, test_size: int | None = None) -> Task:
    """10,003 training queries, of which 1,000 are drawn for validation; 3,080 test queries."""
    whole = split_of("banking77", "train", columns={"intent": "label"})
    texts = tuple(name.replace("_", " ").rstrip("?") for name in whole.classes)
    train, validation = split_off(replace(whole, label_texts=texts), VALIDATION_SIZE, seed=seed)
    test = replace(
        split_of("banking77", "test", columns={"intent": "label"}).with_classes(whole.classes), label_texts=texts
    )
    tests = {"banking77": draw(test, test_size, seed=seed)}
    return Task(draw(train, train_size, seed=seed), validation, tests, "banking77", texts)
