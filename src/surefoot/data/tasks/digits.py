"""Handwritten digits, 8x8 pixels, from scikit-learn: the smallest real image task, for quick experiments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from surefoot.data.examples import Examples
from surefoot.data.tasks.task import Task, check_size

LABEL_TEXTS = tuple(
    f"the digit {word}" for word in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
)
VALIDATION_SIZE = 200


def load(*, seed: int = 0, train_size: int | None = None, test_size: int | None = None) -> Task:
    """1,797 digits as features (N, 64) in [0, 1]: `train_size` (1,000), 200 for validation, `test_size` (500)."""
    from sklearn.datasets import load_digits

    train_size, test_size = train_size or 1000, test_size or 500
    pixels, labels = load_digits(return_X_y=True)
    examples = Examples(
        inputs=(pixels / 16).astype(np.float32),
        labels=labels.astype(np.int64),
        classes=tuple("0123456789"),
        modality="features",
        domain=np.full(len(labels), "digits"),
        source="digits",
        label_texts=LABEL_TEXTS,
    )
    check_size("digits", train_size, len(examples) - test_size - VALIDATION_SIZE)
    order = np.random.default_rng(seed).permutation(len(examples))
    parts = np.split(order, [test_size, test_size + VALIDATION_SIZE, test_size + VALIDATION_SIZE + train_size])
    test, validation, train = (
        replace(examples.take(part), source=f"digits/{name}")
        for name, part in zip(("test", "validation", "train"), parts[:3], strict=True)
    )
    return Task(train, validation, {"digits": test}, "digits", LABEL_TEXTS)
