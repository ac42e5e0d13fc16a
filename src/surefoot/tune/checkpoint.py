"""Checkpoints: everything that a killed training needs to go on and end with the same bytes, in safetensors."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from surefoot.files import atomic_folder, clean
from surefoot.tune.identity import identity

if TYPE_CHECKING:
    from surefoot.tune.fit import Fit


STATE = "state.safetensors"


class Checkpoint:
    """Saves the state of a Fit at most every `every` seconds, and restores it if it belongs to the same training."""

    def __init__(self, path: Path, *, every: float = 30.0) -> None:
        self.path = path
        self.every = every
        self._identity: dict[str, str] = {}
        self._last = time.monotonic()

    def restore(self, fit: Fit) -> int:
        """The step to go on from: 0 if there is no checkpoint of this training (or only a damaged one)."""
        self._identity = identity(fit)
        try:
            with safe_open(self.path / STATE, framework="pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError, KeyError, ValueError):
            return 0
        if facts["identity"] != self._identity:
            return 0
        state = inflate(facts["tree"], tensors)
        live = _moving(fit)
        with torch.no_grad():
            for name, value in state["model"].items():
                live[name].copy_(value)
        fit.loss.load_state_dict(state["loss"])
        fit.optimizer.load_state_dict(state["optimizer"])
        fit.history.losses = [float(loss) for loss in state["losses"]]
        return int(facts["step"])

    def tick(self, fit: Fit) -> None:
        """Called after every step."""
        if time.monotonic() - self._last >= self.every:
            self.save(fit)
            self._last = time.monotonic()

    def save(self, fit: Fit) -> None:
        live = _moving(fit)
        state = {
            "model": {name: value.detach() for name, value in live.items()},
            "loss": fit.loss.state_dict(),
            "optimizer": fit.optimizer.state_dict(),
            "losses": torch.tensor(fit.history.losses, dtype=torch.float64),
        }
        tensors: dict[str, Tensor] = {}
        tree = flatten(state, tensors)
        facts = {"identity": self._identity, "step": fit.history.steps, "tree": tree}
        # A folder, because safetensors has temporary files of its own beside the one it writes.
        with atomic_folder(self.path) as partial:
            save_file(tensors, partial / STATE, metadata={"facts": json.dumps(facts)})

    def remove(self) -> None:
        """Forget it, and what a kill left of one."""
        clean(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


def _moving(fit: Fit) -> dict[str, Tensor]:
    """What training changes in the model: the parameters that train, and the buffers that a model saves."""
    frozen = {name for name, parameter in fit.model.named_parameters() if not parameter.requires_grad}
    live = fit.model.state_dict(keep_vars=True)
    return {name: value for name, value in live.items() if name not in frozen}


def flatten(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """A nested state to JSON, its tensors put into `tensors` under their paths.

    Integer keys (torch's optimizer state has them) are kept as integers.
    """
    if isinstance(value, Tensor):
        # A copy, because tensors that share memory are refused by safetensors.
        tensors[path] = value.detach().cpu().clone().contiguous()
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"mapping": [[key, flatten(each, tensors, f"{path}/{key}")] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [flatten(each, tensors, f"{path}/{i}") for i, each in enumerate(value)]}
    return {"value": value}


def inflate(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `flatten`; tuples come back as lists."""
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "mapping" in tree:
        return {key: inflate(each, tensors) for key, each in tree["mapping"]}
    if "list" in tree:
        return [inflate(each, tensors) for each in tree["list"]]
    return tree["value"]
