"""What makes two trainings the same: equal identities end with the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.fit import Fit


def identity(fit: Fit) -> dict[str, str]:
    """Hashes and facts of a training that is set up, by what a user would call them."""
    model, train = fit.model, fit.train_set
    columns = [None if column is None else np.asarray(column).tobytes() for column in (train.group, train.weight)]
    said = (train.answer, train.entities, train.positive, train.negative, train.score)
    columns += [repr(column.tolist()).encode() for column in said if column is not None]
    data = (fit.encoded.fingerprint, fit.labels.numpy().tobytes(), train.classes, train.label_texts, columns)
    return {
        "recipe": fit.recipe.fingerprint,
        "data": hashlib.sha256(repr(data).encode()).hexdigest(),
        "model": model_hash(model),
        "seed": str(fit.seed),
        "threads": str(torch.get_num_threads()),
        "precision": str(fit.dtype),
        "device": str(fit.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def model_hash(model: Model) -> str:
    """Of weights, architecture, pooling and normalisation."""
    weights = hashlib.sha256()
    for name, value in model.state_dict().items():
        weights.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    config = getattr(model.backbone, "config", None)
    structure = (repr(model), config.to_json_string() if config is not None else "", model.pool, model.normalize)
    return hashlib.sha256(weights.digest() + repr(structure).encode()).hexdigest()


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Names of what differs, for messages: `seed, data`."""
    return ", ".join(name for name in ours if ours[name] != theirs.get(name))
