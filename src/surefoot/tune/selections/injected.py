"""What `peft` puts beside or around linear layers, brought under the contract: LoRA and its kin.

A method of this kind is a configuration of `peft`'s, which merges it into plain weights in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from surefoot.errors import RecipeError, nearest, require
from surefoot.tune.selection import Selection
from surefoot.tune.selections import check_plain, head_names, highest, linear_layers, whole

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Targeted(Selection):
    """What acts on linear layers that a recipe may name.

    target_modules: names of linear layers, or ends of names (`query`, `attention.self.query`); by default all in the
    blocks, or in the whole backbone where no blocks are found. layers: only the so many top blocks; None for all.
    """

    wraps = True
    #: what messages call it
    called: ClassVar[str]

    def __init__(self, *, target_modules: Sequence[str] | None = None, layers: int | None = None) -> None:
        if isinstance(target_modules, str) or (target_modules is not None and not target_modules):
            raise RecipeError(f"`target_modules` is {target_modules!r}: it must be a list of names, or absent for all")
        self.target_modules = None if target_modules is None else list(target_modules)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def targets(self, model: Model) -> list[str]:
        """Full names of the linear layers that are adapted."""
        within = highest(model, self.layers) if self.layers else model.layer_names or ["backbone"]
        # torch's own attention reads its output projection's weight without calling it: the addition would be lost.
        found = [
            name
            for name, module in linear_layers(model, within).items()
            if not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
        ]
        if not found:
            raise RecipeError(f"{self.called} found no linear layer in the backbone")
        if self.target_modules is None:
            return self.preferred(model, found)
        for target in self.target_modules:
            if not any(_ends(name, target) for name in found):
                ends = {name.rpartition(".")[2] for name in found} | (set(found) if "." in target else set())
                raise RecipeError(f"no linear layer is named `{target}`: {nearest(target, ends)}")
        return [name for name in found if any(_ends(name, target) for target in self.target_modules)]

    def preferred(self, model: Model, found: list[str]) -> list[str]:
        """Which of the linear layers are adapted if nobody says: all."""
        return found

    def __repr__(self) -> str:
        options = [name for name in vars(self) if not name.endswith("_") and name not in ("target_modules", "layers")]
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in (*options, "target_modules", "layers"))
        return f"{type(self).__name__}({shown})"


class Injected(Targeted):
    """Something small in each target trains, and the head; `finish` merges it into the weights."""

    #: The best rate for LoRA is ten times full fine-tuning's over models and data (Schulman et al. 2025, "LoRA Without
    #: Regret"); the papers' own rates of the others, 3e-4 to 1e-2, are as far from it.
    rate_scale = 10.0

    def config(self, peft: ModuleType, model: Model, targets: list[str], *, transposed: bool) -> Any:
        """The configuration for linear layers of those names; `transposed`: they hold their weights as GPT-2 does."""
        raise NotImplementedError

    def apply(self, model: Model) -> None:
        check_plain(model, self.called)
        peft = require("peft", extra="lora", why=self.called)
        targets = self.targets(model)
        transposed = not isinstance(model.get_submodule(targets[0]), nn.Linear)  # GPT-2's Conv1D
        config = self.config(peft, model, targets, transposed=transposed)
        try:
            self.inject(peft, config, model)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{self.called} cannot serve this model: {' '.join(str(error).split())}") from error
        for name in head_names(model):
            model.get_parameter(name).requires_grad_(True)

    def inject(self, peft: ModuleType, config: Any, model: Model) -> None:
        """Put it into the model; what trains of the backbone is then what was put in."""
        peft.inject_adapter_in_model(config, model)

    def finish(self, model: Model) -> None:
        layer_class = require("peft.tuners.tuners_utils", extra="lora", why=self.called).BaseTunerLayer
        for name, module in list(model.named_modules()):
            if isinstance(module, layer_class):
                adapted: Any = module
                adapted.merge()
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, adapted.get_base_layer())
        if "peft_config" in model.__dict__:
            del model.__dict__["peft_config"]


def narrow(model: Model, targets: list[str], block_size: int) -> int:
    """The largest size of at most `block_size` that divides the inputs of every target."""
    sizes = [_inputs(model.get_submodule(name)) for name in targets]
    return max(size for size in range(1, block_size + 1) if all(each % size == 0 for each in sizes))


def _inputs(module: Any) -> int:
    return int(module.in_features if isinstance(module, nn.Linear) else module.nx)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
