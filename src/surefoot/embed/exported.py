"""The same model on another engine: an ONNX graph on onnxruntime, or OpenVINO."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.errors import ModelError, require
from surefoot.models.model import Model
from surefoot.progress import Silent


def on_onnx(model: Model, dtype: str) -> Model:
    """`model` on onnxruntime, in float32 or int8. Raises ModelError for bfloat16 and MissingExtra without the library."""
    from surefoot.compress.onnx import Onnx

    _refuse(model, "onnx")
    if dtype == "bfloat16":
        raise ModelError(
            "onnxruntime has no bfloat16 products on a processor: choose float32 or int8, or another backend"
        )
    return Onnx(int8=dtype == "int8").apply(model, None, seed=0, progress=Silent())


def on_openvino(model: Model, dtype: str) -> Model:
    """`model` on OpenVINO, in float32 or bfloat16. Raises ModelError for int8, for which it wants calibration data, and
    MissingExtra without the library."""
    openvino: Any = require("openvino", extra="openvino", why="the backend `openvino`")
    _refuse(model, "openvino")
    if dtype == "int8":
        raise ModelError(
            "OpenVINO's int8 needs a calibration that is not ours: choose bfloat16, or --backend onnx for int8"
        )
    return _around(model, OpenVinoBackbone(openvino, model.backbone, dtype))


def _refuse(model: Model, backend: str) -> None:
    if model.pooling.every_layer:
        raise ModelError(
            f"{model.pooling!r} reads every layer, which a graph for `{backend}` does not show: use --backend torch"
        )
    if model.additions or model.compression:
        raise ModelError(
            f"`{model.name}` holds adapters or compressed layers, which are not exported: use --backend torch"
        )


def _around(model: Model, backbone: nn.Module) -> Model:
    """A model like `model` on another backbone."""
    found = Model(backbone, dim=model.dim, processor=model.processor, pool=model.pool, name=model.name)
    if isinstance(model.pooling, nn.Module):
        found.pooling = model.pooling
    return found.eval()


class OpenVinoBackbone(nn.Module):
    """Token ids and mask to `last_hidden_state` by OpenVINO, with as many threads as torch has when it is made."""

    def __init__(self, openvino: Any, backbone: nn.Module, dtype: str) -> None:
        super().__init__()
        self.config = backbone.config
        example = torch.ones(2, 8, dtype=torch.long)
        inputs = {"input_ids": example, "attention_mask": example}
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                graph = openvino.convert_model(_States(backbone).eval(), example_input=inputs)
                hints = {
                    "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    "PERFORMANCE_HINT": "LATENCY",
                }
                self.compiled = openvino.Core().compile_model(graph, "CPU", hints)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"OpenVINO cannot take the model over ({reason}): use --backend torch") from error

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        found = self.compiled([input_ids.numpy(), attention_mask.numpy()])[0]
        return SimpleNamespace(last_hidden_state=torch.from_numpy(found))


class _States(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found: Tensor = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return found
