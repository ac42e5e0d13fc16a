"""The contract of a shift: a batch of inputs, a severity and a seed in, the same inputs as another world shows them out.

A shift is pure: it leaves what it is given alone and depends on nothing but its arguments. It is seeded by example: what
is drawn for one of them comes from (seed, its index), so that batches can be cut and ordered in any way. Labels are kept:
who registers a shift says that it does not change what an input is an example of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from surefoot.errors import DataError, RecipeError
from surefoot.registry import name_of
from surefoot.shifts.draws import Draws

if TYPE_CHECKING:
    from surefoot.data.examples import Examples

#: Severities are 0 (nothing changes) to this, as in ImageNet-C.
STRONGEST = 5


class Shift:
    """Called with a batch and a severity; a subclass writes `apply` for severities of 1 to 5.

    A batch is a list of N texts, or images (N, H, W) or (N, H, W, C), uint8 or floats in [0, 1]; shape and dtype stay.
    Constructor arguments are validated there (`RecipeError`). `slow`: runs a model, and suites name it on purpose.
    """

    reads: ClassVar[Literal["text", "image"]]
    slow: ClassVar[bool] = False

    def __call__(self, batch: Any, severity: int, *, seed: int = 0, index: Any = None) -> Any:
        """The batch under the shift; at severity 0 it is given back as it is.

        index: (N,) whole numbers, which example each is; 0, 1, ... by default. Raises RecipeError for a severity that is
        none of 0 to 5, DataError for a batch that the shift does not read.
        """
        severity = check_severity(severity)
        batch = self._checked(batch)
        if severity == 0 or len(batch) == 0:
            return batch
        index = np.arange(len(batch)) if index is None else np.asarray(index)
        if len(index) != len(batch):
            raise DataError(f"a shift was given {len(batch)} inputs and {len(index)} indices: give one index for each")
        return self.apply(batch, severity, Draws(seed, index))

    def apply(self, batch: Any, severity: int, draws: Draws) -> Any:
        """The batch under the shift; severity is 1 to 5."""
        raise NotImplementedError

    def _checked(self, batch: Any) -> Any:
        name = type(self).__name__
        if self.reads == "text":
            if isinstance(batch, str) or not all(isinstance(each, str) for each in batch):
                raise DataError(f"the shift {name} reads a list of texts: give one, and drop rows without a text")
            return list(batch)
        if not isinstance(batch, np.ndarray) or batch.ndim not in (3, 4):
            raise DataError(f"the shift {name} reads images as an array (N, H, W) or (N, H, W, C): stack them")
        if batch.ndim == 4 and batch.shape[3] not in (1, 3):
            raise DataError(f"the shift {name} reads images of 1 or 3 channels, and these have {batch.shape[3]}")
        if batch.dtype != np.uint8 and not np.issubdtype(batch.dtype, np.floating):
            raise DataError(f"the shift {name} reads uint8 or floats in [0, 1], and these are {batch.dtype}")
        if batch.dtype != np.uint8 and batch.size and not (batch.min() >= 0 and batch.max() <= 1):
            raise DataError(f"the shift {name} reads floats in [0, 1]: divide the pixels by 255")
        return batch


def check_severity(severity: int) -> int:
    """0 to 5.

    >>> check_severity(6)
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `severity` is 6: write a whole number from 0 (nothing changes) to 5
    """
    if isinstance(severity, bool) or severity != int(severity) or not 0 <= severity <= STRONGEST:
        raise RecipeError(f"`severity` is {severity}: write a whole number from 0 (nothing changes) to {STRONGEST}")
    return int(severity)


def scale(name: str, values: Sequence[float], *, low: float = 0.0, high: float = 1.0) -> tuple[float, ...]:
    """Five values, one a severity, that never fall and lie in [low, high].

    >>> scale("rates", [0.1, 0.2, 0.3, 0.2, 0.5])
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `rates` is [0.1, 0.2, 0.3, 0.2, 0.5]: write five numbers from 0 to 1, none below the one before
    """
    found = tuple(float(each) for each in values)
    rising = all(a <= b for a, b in pairwise(found))
    if len(found) != STRONGEST or not rising or not all(low <= each <= high for each in found):
        raise RecipeError(
            f"`{name}` is {list(values)}: write five numbers from {low:g} to {high:g}, none below the one before"
        )
    return found


def shifted(shift: Shift, examples: Examples, severity: int, *, seed: int = 0) -> Examples:
    """The examples under the shift, labels and other columns kept. Images of several sizes go through size by size.

    Raises DataError where the shift does not read what the examples hold.
    """
    inputs = examples.inputs
    if shift.reads == "image" and examples.modality in ("image", "features"):
        moved = _images(shift, inputs, severity, seed)
    elif shift.reads == examples.modality:
        moved = shift(inputs, severity, seed=seed)
    else:
        raise DataError(
            f"{examples.source} holds {examples.modality} and the shift `{name_of(shift)}` reads {shift.reads}: choose a suite for {examples.modality}"
        )
    return examples if severity == 0 else replace(examples, inputs=moved)


def _images(shift: Shift, inputs: Any, severity: int, seed: int) -> Any:
    if isinstance(inputs, np.ndarray):
        return shift(inputs, severity, seed=seed)
    from surefoot.data.images import decode

    arrays = [np.asarray(decode(each)) for each in inputs]
    found: list[Any] = list(arrays)
    for size in {each.shape for each in arrays}:
        where = [place for place, each in enumerate(arrays) if each.shape == size]
        moved = shift(np.stack([arrays[place] for place in where]), severity, seed=seed, index=where)
        for place, image in zip(where, moved, strict=True):
            found[place] = image
    return found
