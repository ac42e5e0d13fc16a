"""Pairs: the texts that belong, or seem to belong, to each training text, run through the same model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.tune.step import Batch

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.models.prefix import Prefix
    from surefoot.models.processor import Encoded

#: What a pair may hold beside its anchor.
MEMBERS = ("positive", "negative")


@dataclass
class Pairs:
    """The other members of N pairs. `encoded`: by name, "positive" and, if the data have it, "negative".

    `text_ids`: (N,) by name, "anchor" too: equal for equal texts, whatever column they are in. `scores`: (N,) or None.
    """

    encoded: Mapping[str, Encoded]
    text_ids: Mapping[str, Tensor]
    scores: Tensor | None = None
    prefixes: dict[str, Prefix] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, train: Examples, *, max_length: int | None = None) -> Pairs:
        """From the data's columns `positive`, `negative` and `score`. Raises RecipeError where there is no positive."""
        if train.positive is None:
            raise RecipeError(
                f"an objective needs pairs, and {train.source} has no `positive` column: give the columns `anchor` and `positive`, or leave the objective out"
            )
        columns = {name: column for name in MEMBERS if (column := getattr(train, name)) is not None}
        encoded = {
            name: model.processor.encode([str(text) for text in column], max_length=max_length)
            for name, column in columns.items()
        }
        texts = {"anchor": train.inputs, **columns}
        _, ids = np.unique([str(text) for column in texts.values() for text in column], return_inverse=True)
        parts = np.split(ids.astype(np.int64), len(texts))
        text_ids = {name: torch.from_numpy(part) for name, part in zip(texts, parts, strict=True)}
        scores = torch.from_numpy(np.asarray(train.score, dtype=np.float32)) if train.score is not None else None
        return cls(encoded, text_ids, scores)

    @property
    def lengths(self) -> np.ndarray:
        """(N,): tokens of all members but the anchor."""
        return np.asarray(sum(each.lengths for each in self.encoded.values()))

    def batch(self, name: str, index: Tensor) -> Batch:
        """What the model runs on for that member of the examples `index` (B,)."""
        if name not in self.encoded:
            raise RecipeError(
                f"an objective needs pairs with a `{name}`, and the training data have no such column: add it, or leave the objective out"
            )
        where = index.cpu().numpy()
        prefix = self.prefixes[name].batch(where).to(index.device) if name in self.prefixes else None
        inputs = {key: value.to(index.device) for key, value in self.encoded[name].collate(where).items()}
        return Batch(inputs=inputs, labels=torch.zeros_like(index), index=index, prefix=prefix)

    def cache(self, model: Model, *, dtype: torch.dtype, autocast: Callable[[], AbstractContextManager[None]]) -> None:
        """Run the frozen layers once over all members; what is too large to keep is run in every step."""
        from surefoot.models.prefix import cached_prefix

        for name, encoded in self.encoded.items():
            found = cached_prefix(model, encoded, depth=model.frozen, dtype=dtype, autocast=autocast)
            if found is not None:
                self.prefixes[name] = found
