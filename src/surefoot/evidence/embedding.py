"""How an arm of `sts` makes vectors of texts: which model, pooled how, of how many layers and numbers, in which code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from surefoot import load
from surefoot.embed.code import Code
from surefoot.embed.encoder import Encoder
from surefoot.embed.geometry import unit_length
from surefoot.errors import SurefootError, nearest
from surefoot.models.model import Model
from surefoot.models.shallow import first_layers
from surefoot.tune.build import build

#: What an arm's `embedding` may hold. model: that is read as it is, "minilm" where it is not said. pool: its pooling.
#: layers, dim: how many of them are left of the model and of the vector. code: what stands in for the vectors, learned
#: from the track's unlabelled sentences.
FIELDS = ("model", "pool", "layers", "dim", "code")

Reader = Callable[[Sequence[str]], np.ndarray]


def opened(spec: Mapping[str, Any], folder: Any = "minilm") -> Model:
    """The model that the arm reads, or `folder`'s, with the arm's pooling."""
    for name in spec:
        if name not in FIELDS:
            raise SurefootError(f"an arm's `embedding` has no `{name}`: {nearest(name, FIELDS)}")
    return load(spec.get("model", folder), max_length=64, pool=spec.get("pool"))


def reader(spec: Mapping[str, Any], model: Model, unlabelled: Sequence[str], *, seed: int) -> Reader:
    """Texts to vectors of unit length (N, D). `unlabelled`: what a code learns from."""
    kept = first_layers(model, spec["layers"]) if "layers" in spec else model
    read: Reader = Encoder(kept, dtype="auto", normalize=True).encode
    if "dim" in spec:
        read = partial(_narrow, read, spec["dim"])
    if "code" in spec:
        code: Code = build("code", spec["code"]).fit(read(unlabelled), seed=seed)
        read = partial(_coded, read, code)
    return read


def _narrow(read: Reader, dim: int, texts: Sequence[str]) -> np.ndarray:
    return unit_length(read(texts)[:, :dim])


def _coded(read: Reader, code: Code, texts: Sequence[str]) -> np.ndarray:
    return unit_length(np.asarray(code.encode(read(texts)).todense()))
