"""What a task is: where training happens, and the worlds it is tested in."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from surefoot.data.examples import Examples
from surefoot.errors import DataError


@dataclass(frozen=True)
class Task:
    """`train` and `validation` come from the domain `home`; `tests` are labelled, by domain, `home` among them.

    `pools`: by domain, examples of the other domains that no test holds: what a judge or unlabelled target data are
    drawn from. What surefoot splits itself is disjoint; published splits stay as published (CLINC150 repeats two
    training queries in its test).
    """

    train: Examples
    validation: Examples | None
    tests: dict[str, Examples]
    home: str
    label_texts: tuple[str, ...]
    pools: dict[str, Examples] = field(default_factory=dict)


def draw(examples: Examples, size: int | None, *, seed: int) -> Examples:
    """`size` examples drawn without replacement; all of them, in their order, for None."""
    if size is None:
        return examples
    check_size(examples.source, size, len(examples))
    return examples.take(np.random.default_rng(seed).permutation(len(examples))[:size])


def split_off(examples: Examples, size: int, *, seed: int) -> tuple[Examples, Examples]:
    """(the rest, `size` examples drawn without replacement)."""
    check_size(examples.source, size, len(examples) - 1)
    order = np.random.default_rng(seed).permutation(len(examples))
    return examples.take(np.sort(order[size:])), examples.take(order[:size])


def check_size(source: str, size: int, most: int) -> None:
    if not 0 < size <= most:
        raise DataError(f"{source}: cannot draw {size} examples; choose from 1 to {most}")
