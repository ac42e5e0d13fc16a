"""What tracks share that read a model as it is: embeddings of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surefoot.data.examples import Examples
from surefoot.embed.geometry import unit_length
from surefoot.errors import SurefootError
from surefoot.evidence.entry import Arm
from surefoot.evidence.trained import predictions
from surefoot.models.model import Model


def only_baseline(track: str, arm: Arm) -> None:
    """SurefootError for an arm with changes: no registered method acts on these tracks yet."""
    if arm != Arm():
        raise SurefootError(f"track `{track}` reads the model as it is: its only arm is the baseline, {{}}")


def embed(model: Model, texts: Sequence[str]) -> np.ndarray:
    """Features of unit length (N, D); kept between calls, as everything is that frozen layers give."""
    examples = Examples(list(texts), None, (), source="texts")
    features = predictions(model, {"texts": examples}, depth=len(model.layers) + 1)["texts"].features
    return unit_length(features)
