"""What a SentenceTransformer folder has after its pooling: dense layers, a normalisation, and that is all we run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.assets import fetch, is_offline
from surefoot.errors import ModelError
from surefoot.models.card import CARD, read_json
from surefoot.models.model import Model

#: Activations that a dense layer may name: looked up, never imported by the name that a file gives.
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    each.__name__: each
    for each in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Mish)
}


class Dense(nn.Module):
    """act(W x + b), (B, in) to (B, out); with a residual x, or R x where the widths differ."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        wide, out = int(config["in_features"]), int(config["out_features"])
        self.linear = nn.Linear(wide, out, bias=config.get("bias", True))
        self.residual = nn.Linear(wide, out, bias=False) if config.get("use_residual") and wide != out else None
        self.adds = bool(config.get("use_residual"))
        name = str(config.get("activation_function") or "torch.nn.modules.activation.Tanh").rpartition(".")[2]
        if name not in _ACTIVATIONS:
            raise ModelError(f"a Dense module has the activation `{name}`: known: {', '.join(sorted(_ACTIVATIONS))}")
        self.activation = _ACTIVATIONS[name]()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.activation(self.linear(x))
        if not self.adds:
            return found
        return found + (x if self.residual is None else self.residual(x))


class Normalize(nn.Module):
    """x / ||x||."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


def read_modules(model: Model) -> nn.Sequential:
    """What follows the pooling in the folder or the hub's files that `model` was loaded from; empty where nothing does.

    Raises ModelError for a module that surefoot does not run: vectors without it would not be the model's.
    """
    found: list[nn.Module] = []
    read = _reader(model)
    listed = read("modules.json") if read is not None else None
    for each in json.loads(listed.read_text("utf8")) if listed is not None else []:
        kind, folder = str(each.get("type", "")).rpartition(".")[2], each.get("path", "")
        if kind in ("Transformer", "Pooling", "Dropout"):
            continue
        if kind == "Normalize":
            found.append(Normalize())
        elif kind in ("Dense", "LayerNorm") and read is not None:
            found.append(_with_weights(kind, read, folder, model))
        else:
            raise ModelError(
                f"`{model.name}` has a module `{kind}` after its pooling, which surefoot does not run: known: Dense, LayerNorm, Normalize"
            )
    return nn.Sequential(*found).eval().requires_grad_(False)


def check_no_modules(model: Model) -> None:
    """Raises ModelError where weights follow the pooling: training moves what is before them, and would leave them behind."""
    if any(not isinstance(each, Normalize) for each in read_modules(model)):
        raise ModelError(
            f"`{model.name}` ends with a Dense or LayerNorm module after its pooling, which training would leave behind: tune a model that ends with its pooling"
        )


def _with_weights(kind: str, read: Any, folder: str, model: Model) -> nn.Module:
    config, weights = read(f"{folder}/config.json"), read(f"{folder}/model.safetensors")
    if config is None or weights is None:
        raise ModelError(
            f"`{model.name}`: its module {folder} has no config.json with model.safetensors: save the model again, with safetensors and no pickle"
        )
    facts = read_json(config)
    if kind == "Dense" and facts.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise ModelError(
            f"`{model.name}`: its Dense module reads tokens, not the pooled vector: surefoot does not run it"
        )
    module = Dense(facts) if kind == "Dense" else nn.LayerNorm(int(facts["dimension"]))
    state = load_file(weights)
    try:
        module.load_state_dict({name.removeprefix("norm."): each.to(torch.float32) for name, each in state.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"`{model.name}`: the weights of {folder} are not those of its config.json ({reason}): save the model again"
        ) from error
    return module


def _reader(model: Model) -> Any:
    """A function from a file's name to its path, or None where there is no such file; None for a model from nowhere."""
    if model.source is None:
        return None
    folder = fetch("minilm") if model.source == "minilm" else Path(model.source)
    if (folder / "model" / CARD).exists():
        folder = folder / "model"
    if folder.is_dir():
        return lambda name: folder / name if (folder / name).is_file() else None
    if model.source.count("/") != 1:
        return None
    from huggingface_hub import hf_hub_download

    def download(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(str(model.source), name, local_files_only=is_offline()))
        except Exception:  # not there, or not to be had: the hub's library has a class for every reason
            return None

    return download
