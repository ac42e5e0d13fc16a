"""Tasks of the package `mteb`, run on a surefoot model."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from surefoot.assets import is_offline
from surefoot.embed.geometry import unit_length
from surefoot.errors import DataError, require
from surefoot.models.model import Model


class MtebEncoder:
    """What `mteb` asks of an encoder: batches of texts to (N, D) float32, by `surefoot.embed.Encoder`.

    Prompts that a task may bring are not used: a model whose pooling has a template writes its own.
    """

    def __init__(self, model: Model) -> None:
        from surefoot.embed import Encoder

        meta: Any = require("mteb.models.model_meta", extra="mteb", why="--mteb")
        self.encoder = Encoder(model)
        self.mteb_model_meta = meta.ModelMeta.create_empty(
            overwrites={"name": f"surefoot/{model.name}", "revision": "local"}
        )

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        """inputs: a loader of batches with `text`; mteb's other arguments say nothing that an encoder needs."""
        return self.encoder.encode([text for batch in inputs for text in batch["text"]])

    def similarity(self, first: Any, second: Any) -> np.ndarray:
        """Cosines (N, M)."""
        return np.asarray(_unit(first) @ _unit(second).T)

    def similarity_pairwise(self, first: Any, second: Any) -> np.ndarray:
        """Cosines (N,)."""
        return np.asarray((_unit(first) * _unit(second)).sum(1))


def _unit(vectors: Any) -> np.ndarray:
    return unit_length(np.asarray(vectors, dtype=np.float32))


def evaluate_task(model: Model, name: str) -> dict[str, Any]:
    """The main score of a task of mteb: {"metric", "splits": {split: score from 0 to 1}}.

    The task's data come from the Hugging Face hub or its cache. Raises MissingExtra without mteb, and DataError for a task
    that it does not know, or whose data cannot be had.
    """
    mteb: Any = require("mteb", extra="mteb", why="--mteb")
    if is_offline():
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"mteb has no task `{name}` ({reason}): `mteb available-tasks` lists them") from None
    encoder = MtebEncoder(model)
    try:
        found = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)[0]
    except Exception as error:  # the hub and the data sets have a class for every reason
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"mteb's task `{name}` cannot be run ({type(error).__name__}: {reason}): are its data there?"
        ) from error
    splits = {
        split: float(np.mean([each["main_score"] for each in each_split])) for split, each_split in found.scores.items()
    }
    return {"metric": str(task.metadata.main_score), "splits": splits}
