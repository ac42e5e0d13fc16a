"""The transformer blocks of a backbone: where they are, and what stands in for one."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn


class Pass(nn.Module):
    """Stands where a frozen layer stood and hands on its cached output."""

    def __init__(self, value: Tensor, tuples: bool, layer: nn.Module) -> None:
        super().__init__()
        self.value = (value,) if tuples else value
        self.__dict__["layer"] = layer  # not registered: only asked for what it is like

    def __getattr__(self, name: str) -> Any:
        # Some architectures ask a layer what kind it is before they call it (ModernBERT's `attention_type`).
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["layer"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.value


def find_layers(backbone: nn.Module) -> tuple[str, nn.Module, nn.ModuleList] | None:
    """The stack of transformer blocks: the ModuleList with as many like members as the config has layers."""
    count = getattr(getattr(backbone, "config", None), "num_hidden_layers", None)
    for path, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(layer) for layer in module}) == 1:
            return path, backbone.get_submodule(path.rpartition(".")[0]), module
    return None


def keep_layers(backbone: nn.Module, layers: nn.ModuleList, places: Sequence[int]) -> None:
    """Leave the layers at these places, in this order.

    The configuration becomes a copy with their number, so that the model opens again.
    """
    chosen = [layers[place] for place in places]
    del layers[:]
    layers.extend(chosen)
    config: Any = deepcopy(backbone.config)
    config.num_hidden_layers = len(chosen)
    if isinstance(getattr(config, "layer_types", None), list):
        config.layer_types = [config.layer_types[place] for place in places]
    for module in backbone.modules():
        if hasattr(module, "config"):
            module.config = config
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = number  # type: ignore[assignment]
