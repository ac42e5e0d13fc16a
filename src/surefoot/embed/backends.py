"""What runs the network: torch here, onnxruntime or OpenVINO where they are installed."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from surefoot.embed.packed import Packed, can_pack
from surefoot.embed.packed_causal import PackedCausal, can_pack_causal
from surefoot.errors import ModelError, nearest
from surefoot.models.model import Model
from surefoot.models.precision import autocast
from surefoot.models.processor import EncodedText
from surefoot.tune.step import Batch

BACKENDS = ("torch", "onnx", "openvino")


class Backend(Protocol):
    """tokens, most: how many tokens, and texts, it likes in a batch. name: as it was asked for."""

    name: str
    tokens: int
    most: int

    def features(self, encoded: EncodedText, index: np.ndarray) -> np.ndarray:
        """Pooled features (B, D) float32 of those rows, before any scaling."""


class Plain:
    """The model's own forward pass."""

    name, tokens, most = "torch", 8192, 256

    def __init__(self, model: Model, dtype: str) -> None:
        self.model = model
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.context = autocast(kind, model.device)

    def features(self, encoded: EncodedText, index: np.ndarray) -> np.ndarray:
        inputs = {name: value.to(self.model.device) for name, value in encoded.collate(index).items()}
        labels = torch.zeros(len(index), dtype=torch.long)
        with self.context():
            output = self.model(Batch(inputs=inputs, labels=labels, index=torch.from_numpy(index)))
        found: np.ndarray = output.features.float().cpu().numpy()
        return found


def open_backend(name: str, model: Model, dtype: str) -> Backend:
    """The backend of that name for the model. Raises ModelError for an unknown one."""
    if name not in BACKENDS:
        raise ModelError(f"unknown backend `{name}`: {nearest(name, BACKENDS)}")
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    if can_pack(model):
        return Packed(model, kind)
    if can_pack_causal(model):
        return PackedCausal(model, kind)
    return Plain(model, dtype)
