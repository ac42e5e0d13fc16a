"""The contract of a merge that learns from data: coefficients, or weights for every weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.merge.combine import Combine, Weights
from surefoot.models.precision import autocast, resolve
from surefoot.models.predict import encode_inputs
from surefoot.models.prefix import Prefix, cached_prefix
from surefoot.progress import Progress
from surefoot.registry import name_of
from surefoot.tune.step import Batch, Output

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Seen:
    """A data set that a fit looks at, and the head that answers for it.

    head: `head.weight` and `head.bias` of the model whose task this is, which stay as they are; None where all models
    share the task and their heads are merged like everything else. labels: (N,), or None.
    """

    def __init__(
        self, name: str, examples: Examples, model: Model, *, head: Weights | None = None, max_length: int | None = None
    ) -> None:
        self.name, self.examples = name, examples
        self.encoded = encode_inputs(
            model, examples.inputs, examples.modality, source=examples.source, max_length=max_length
        )
        self.labels = None if examples.labels is None else torch.from_numpy(np.asarray(examples.labels))
        self.head: dict[str, Tensor] = dict(head or {})
        self.prefix: Prefix | None = None

    def freeze(self, model: Model) -> None:
        """Compute what the model's frozen layers make of the examples, once."""
        if 0 < model.frozen <= len(model.layers):
            dtype = resolve(model.precision, model.device)
            run = autocast(dtype, model.device)
            self.prefix = cached_prefix(model, self.encoded, depth=model.frozen, dtype=dtype, autocast=run)

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, index: np.ndarray) -> Batch:
        """Those examples; label 0 where there are none."""
        where = torch.from_numpy(np.asarray(index, dtype=np.int64))
        labels = self.labels[where] if self.labels is not None else torch.zeros_like(where)
        prefix = None if self.prefix is None else self.prefix.batch(np.asarray(index))
        return Batch(inputs=self.encoded.collate(index), labels=labels, index=where, prefix=prefix)

    def batches(self, size: int, *, seed: int, most: int | None = None) -> Iterator[Batch]:
        """All examples, or `most` of them, once, in an order of the seed."""
        order = np.random.default_rng(seed).permutation(len(self))[:most]
        for first in range(0, len(order), size):
            yield self.batch(order[first : first + size])

    def endless(self, size: int, *, seed: int) -> Iterator[Batch]:
        """Batches for ever, shuffled anew for each pass."""
        turn = 0
        while True:
            yield from self.batches(min(size, len(self)), seed=seed + 7919 * turn)
            turn += 1


class Runner:
    """Runs a copy of a model with other weights than its own, in eval mode and in the precision that it was tuned in.

    Layers that are the same in all checkpoints run once: the copy holds them, and what they give is cached.
    """

    def __init__(
        self, model: Model, checkpoints: Sequence[Weights], base: Weights | None, seen: Sequence[Seen]
    ) -> None:
        self.model = deepcopy(model).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        start = base if base is not None else checkpoints[0]
        own = {name: value for name, value in start.items() if name.startswith("backbone.")}
        self.model.load_state_dict(own, strict=False)
        self.model.freeze(common_depth(self.model, checkpoints, start))
        for each in seen:
            each.freeze(self.model)
        #: Floating-point tensors that differ somewhere: what there is to merge.
        self.names = [
            name
            for name in floats(checkpoints[0])
            if name in start and any(not torch.equal(each[name], start[name]) for each in checkpoints)
        ]

    def __call__(self, weights: Mapping[str, Tensor], batch: Batch, head: Weights) -> Output:
        found: Any
        with autocast(resolve(self.model.precision, self.model.device), self.model.device)():
            found = functional_call(self.model, {**weights, **head}, (batch,))
        return found  # type: ignore[no-any-return]

    @torch.no_grad()
    def accuracy(self, weights: Weights, seen: Sequence[Seen], *, size: int = 64) -> float:
        """The mean over the sets."""
        shares = []
        for each in seen:
            right = [
                self(weights, batch, each.head).logits.argmax(1) == batch.labels for batch in each.batches(size, seed=0)
            ]
            shares.append(float(torch.cat(right).double().mean()))
        return sum(shares) / len(shares)


def common_depth(model: Model, checkpoints: Sequence[Weights], start: Weights) -> int:
    """How many of the lowest layers, and all that runs below them, are the same everywhere."""
    moved = {
        model.height(name)
        for name in start
        if name.startswith("backbone.")
        and name not in model.unreached
        and start[name].is_floating_point()
        and any(not torch.equal(each[name], start[name]) for each in checkpoints)
    }
    layers = len(model.layers)
    return max(0, layers - max(moved, default=0))


class Fit(Combine):
    """A merge that learns: `fit` looks at data and keeps what it found in attributes that end in `_`; calling it merges.

    It works on weights in memory. sees: `judge`, labelled sets of the task that all models share, whose heads are
    merged too; or `tasks`, one set for each model, which answers by its own head.
    labelled: whether labels are looked at.
    """

    sees: ClassVar[Literal["judge", "tasks"]]
    labelled: ClassVar[bool] = True
    streams = False

    def fit(
        self,
        model: Model,
        checkpoints: Sequence[Weights],
        base: Weights | None,
        seen: Sequence[Seen],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Learn. `model` runs the weights and is left as it is; with `tasks`, `seen` are in the order of `checkpoints`."""
        raise NotImplementedError

    @property
    def fitted(self) -> bool:
        """Whether it has learned; merging before is refused."""
        found = {name: value for name, value in vars(self).items() if name.endswith("_")}
        return any(value is not None and not (isinstance(value, list) and not value) for value in found.values())

    def facts(self) -> dict[str, Any]:
        """What was learned, for people and programs."""
        return {}

    def setup(self, model: Model, training: Any, base: Weights) -> None:
        raise RecipeError(
            f"`{name_of(self)}` merges several models and learns from data of its own: use `surefoot merge`"
        )

    def merged(self, checkpoints: Sequence[Weights], base: Weights | None) -> dict[str, Tensor]:
        """The merge by what was learned."""
        raise NotImplementedError

    def __call__(self, checkpoints: Sequence[Weights], base: Weights | None) -> dict[str, Tensor]:
        self.check(len(checkpoints))
        if not self.fitted:
            what = "a judge's labels" if self.sees == "judge" else "data of each model's task"
            raise RecipeError(f"`{name_of(self)}` learns from {what}: fit it first")
        return self.merged(checkpoints, base)


def floats(weights: Weights) -> list[str]:
    """Names of what is merged: integers are not."""
    return [name for name, each in weights.items() if each.is_floating_point()]
