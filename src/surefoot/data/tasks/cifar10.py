"""CIFAR-10: 32x32 colour photographs of ten things.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

from dataclasses import replace

from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import split_of
from surefoot.data.tasks.task import Task, draw, split_off

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LABEL_TEXTS = tuple(f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}." for name in CLASSES)
VALIDATION_SIZE = 1000


def load(*, seed: int = 0, train_size: int | None = None, test_size: int | None = None) -> Task:
    """50,000 training images, of which 1,000 are drawn for validation; 10,000 test images."""
    train, validation = split_off(_part("train"), VALIDATION_SIZE, seed=seed)
    tests = {"cifar10": draw(_part("test"), test_size, seed=seed)}
    return Task(draw(train, train_size, seed=seed), validation, tests, "cifar10", LABEL_TEXTS)


def _part(split: str) -> Examples:
    examples = split_of("cifar10", split).with_classes([str(index) for index in range(len(CLASSES))])
    return replace(examples, classes=CLASSES, label_texts=LABEL_TEXTS)
