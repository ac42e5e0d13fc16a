"""The contract of a code: what stands in for vectors and takes less room, learned from some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from surefoot.progress import Progress


class Code:
    """Learned once from vectors, then applied to any of the same width. Constructor arguments are keyword-only, and
    validated there (`ModelError`)."""

    def fit(
        self,
        vectors: np.ndarray,
        positives: np.ndarray | None = None,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from vectors (N, D). positives: (N, D), of what belongs to each, where that is known."""
        raise NotImplementedError

    def encode(self, vectors: np.ndarray) -> Any:
        """The codes of vectors (M, D): M rows, of which `scores` takes any two sets."""
        raise NotImplementedError

    def decode(self, codes: Any) -> np.ndarray:
        """The vectors (M, D) that codes stand for, as near as they come."""
        raise NotImplementedError

    def scores(self, queries: Any, documents: Any) -> np.ndarray:
        """How alike codes are: (Q, N), greater for more alike."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write it to a folder, whole or not at all; safetensors and JSON."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote. Raises ModelError where it is missing or damaged."""
        raise NotImplementedError
