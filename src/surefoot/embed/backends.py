"""What runs the network: torch here, onnxruntime or OpenVINO where they are installed."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from surefoot.embed.exported import on_onnx, on_openvino
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
    """The model's own forward pass, or that of an engine which stands in for its backbone."""

    most = 256

    def __init__(self, model: Model, dtype: str, *, name: str = "torch", tokens: int = 8192) -> None:
        self.model, self.name, self.tokens = model, name, tokens
        kind = torch.bfloat16 if dtype == "bfloat16" and name == "torch" else torch.float32
        self.context = autocast(kind, model.device)

    def features(self, encoded: EncodedText, index: np.ndarray) -> np.ndarray:
        inputs = {name: value.to(self.model.device) for name, value in encoded.collate(index).items()}
        labels = torch.zeros(len(index), dtype=torch.long)
        with self.context():
            output = self.model(Batch(inputs=inputs, labels=labels, index=torch.from_numpy(index)))
        found: np.ndarray = output.features.float().cpu().numpy()
        return found


def open_backend(name: str, model: Model, dtype: str) -> Backend:
    """The backend of that name for the model, in float32, bfloat16 or int8.

    Raises ModelError for an unknown name, or where a backend does not have that dtype for the model.
    """
    if name not in BACKENDS:
        raise ModelError(f"unknown backend `{name}`: {nearest(name, BACKENDS)}")
    if name == "onnx":
        return Plain(on_onnx(model, dtype), dtype, name=name, tokens=2048)
    if name == "openvino":
        return Plain(on_openvino(model, dtype), dtype, name=name, tokens=2048)
    if can_pack(model):
        return Packed(model, dtype)
    if dtype == "int8":
        raise ModelError(
            f"int8 on torch is for BERT-like models, and `{model.name}` is none: use bfloat16 or --backend onnx, or `surefoot compress --method int8_dynamic`"
        )
    if can_pack_causal(model):
        return PackedCausal(model, torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    return Plain(model, dtype)
