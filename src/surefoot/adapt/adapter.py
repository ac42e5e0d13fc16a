"""The contract of a test-time adapter: a trained model and a stream without labels in, logits out, batch by batch.

    adapter = build("test_time_adapter", "tent").begin(model, home=home, seed=0)
    for batch in stream:
        logits = adapter(batch)      # (B, C); the adapter may have changed by the next batch
    adapter.reset()                  # as after `begin`, to the byte

An adapter works on a copy: the model that it was given is never changed. It reads inputs alone, never `batch.labels`.
`surefoot.adapt.stream` runs one over a stream beside the frozen model and takes it back where it does harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from surefoot.data.examples import Examples
from surefoot.errors import DataError, ModelError
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs
from surefoot.models.processor import Encoded
from surefoot.tune.step import Batch, Output


class Diverged(ModelError):
    """Adaptation has led to answers that are not finite; `reset` brings the model back."""


@dataclass(frozen=True)
class Home:
    """Labelled examples from home that nothing was trained on: `encoded`, and `labels` (N,) among the model's classes."""

    encoded: Encoded
    labels: np.ndarray

    @classmethod
    def of(cls, model: Model, examples: Examples) -> Home:
        """From examples. Raises DataError where they have no labels, or labels that the model does not know."""
        examples = examples.with_classes(model.classes)
        if examples.labels is None:
            raise DataError(f"{examples.source}: home examples need labels; add a column `label`")
        encoded = encode_inputs(model, examples.inputs, examples.modality, source=examples.source)
        return cls(encoded, np.asarray(examples.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, model: Model, *, size: int = 64, most: int | None = None) -> Iterator[Batch]:
        """In order, of at most `size` examples; only the first `most` if that is given."""
        for index in consecutive(min(len(self), most or len(self)), size):
            yield batch_of(model, self.encoded, index, labels=self.labels)

    @torch.no_grad()
    def outputs(self, model: Model) -> tuple[Tensor, Tensor]:
        """Features (N, D) and logits (N, C) of the model as it is, in eval mode."""
        model.eval()
        found = [model(batch) for batch in self.batches(model)]
        return torch.cat([each.features for each in found]), torch.cat([each.logits for each in found])


class TestTimeAdapter:
    """A subclass writes `prepare` and `adapt`. Constructor arguments are validated there (RecipeError).

    model: the copy that adapts, in eval mode. frozen: the model as it was given. generator: seeded by `begin` and again
    by `reset`; all that an adapter draws comes from it.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    #: Options under which nothing is adapted: logits are then the frozen model's, to the bit.
    still: ClassVar[Mapping[str, Any]] = {}
    #: Whether it learns from labelled home examples before the stream begins: "required", "used" where there are any, or not.
    home: ClassVar[str] = "unused"
    #: Whether it looks at views of each input (see `views.py`), which arrays of plain numbers do not have.
    views: ClassVar[bool] = False
    #: Whether its copy's weights stay the frozen model's, whose pass over a batch then serves both.
    stays: ClassVar[bool] = False

    model: Model
    frozen: Model
    known: Home | None = None
    seed: int = 0
    _home_outputs: tuple[Tensor, Tensor] | None = None
    _frozen_output: Output | None = None

    def begin(self, model: Model, *, home: Home | None = None, seed: int = 0) -> Self:
        """Take a copy of the model and learn from home what the method needs.

        Raises ModelError for a model with nothing to adapt, DataError where home examples are needed and missing.
        """
        if len(model.classes) < 2:
            raise ModelError(
                f"`{model.name}` has {len(model.classes)} classes: adapt a model that was tuned to two or more"
            )
        if self.home == "required" and home is None:
            raise DataError(
                f"`{self.name}` learns from labelled home examples before the stream begins: give some hundred (--home FILE)"
            )
        self.frozen = model.eval()
        self.known, self.seed = home, seed
        self._home_outputs = None
        self.reset()
        return self

    def reset(self) -> None:
        """Everything as after `begin`."""
        self.model = deepcopy(self.frozen).requires_grad_(False).eval()
        self.generator = torch.Generator().manual_seed(self.seed)
        self.prepare()

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (B, C), after or before the adapter's own step as its paper has it.

        Raises DataError for an empty batch or inputs that are not finite, Diverged for logits that are not.
        """
        return self.answer(batch).logits

    def answer(self, batch: Batch, *, frozen: Output | None = None) -> Output:
        """Features and logits, without gradient: what an adapter around another one reads.

        frozen: what the frozen model gives for the batch, where the caller has it: one that `stays` takes it for its own.
        """
        check_batch(batch)
        self._frozen_output = frozen if self.stays else None
        with torch.enable_grad():
            found = self.adapt(batch)
        logits = found.logits.detach()
        if not torch.isfinite(logits).all():
            raise Diverged(f"`{self.name}` has adapted `{self.frozen.name}` until its answers are not finite: reset it")
        return replace(found, features=found.features.detach(), logits=logits)

    def prepare(self) -> None:
        """Set up `model` and the state, from nothing but `frozen`, `known` and `generator`."""

    def adapt(self, batch: Batch) -> Output:
        """Answer a batch, and change."""
        raise NotImplementedError

    def output(self, batch: Batch) -> Output:
        """The model's pass over the batch, or the frozen model's where that is the same and known."""
        given, self._frozen_output = self._frozen_output, None
        return self.model(batch) if given is None else given

    def home_outputs(self) -> tuple[Tensor, Tensor]:
        """Features (N, D) and logits (N, C) of the frozen model on home's examples, computed once."""
        assert self.known is not None
        if self._home_outputs is None:
            self._home_outputs = self.known.outputs(self.frozen)
        return self._home_outputs

    @property
    def name(self) -> str:
        """What it is registered as."""
        from surefoot.registry import methods

        return next(
            (each.name for each in methods("test_time_adapter") if each.make is type(self)), type(self).__name__
        )


def consecutive(count: int, size: int) -> list[np.ndarray]:
    """0, ..., count - 1 in order, in batches of `size`; a single one that is left over joins the batch before it."""
    parts = [np.arange(begin, min(begin + size, count)) for begin in range(0, count, size)]
    if len(parts) > 1 and len(parts[-1]) == 1 and size > 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


def batch_of(model: Model, encoded: Encoded, index: np.ndarray, *, labels: np.ndarray | None = None) -> Batch:
    """A batch on the model's device; without labels it has zeros in their place, which no adapter reads."""
    inputs = {name: value.to(model.device) for name, value in encoded.collate(index).items()}
    chosen = np.zeros(len(index), np.int64) if labels is None else np.asarray(labels)[index].astype(np.int64)
    return Batch(inputs=inputs, labels=torch.from_numpy(chosen).to(model.device), index=torch.from_numpy(index))


def check_batch(batch: Batch) -> None:
    """DataError for no examples, or for inputs that are not finite."""
    if not len(batch):
        raise DataError("an empty batch: a stream's batches hold one example or more")
    for name, value in batch.inputs.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            wrong = ~torch.isfinite(value).flatten(1).all(1)
            row = int(batch.index[int(wrong.nonzero()[0, 0])]) + 1
            raise DataError(
                f"row {row} of the stream: its {name.replace('_', ' ')} hold NaN or infinity; mend or remove it"
            )
