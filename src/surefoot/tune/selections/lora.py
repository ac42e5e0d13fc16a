"""LoRA: low-rank adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from surefoot.errors import RecipeError, nearest, require
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.selection import Selection
from surefoot.tune.selections import check_plain, head_names, highest, linear_layers, whole

if TYPE_CHECKING:
    from surefoot.models.model import Model


@register(
    "lora",
    kind="selection",
    family="low-rank",
    papers=[Paper("LoRA: Low-Rank Adaptation of Large Language Models", "Hu et al.", 2021, arxiv="2106.09685")],
)
class LoRA(Selection):
    """A low-rank addition to each linear layer trains, and the head; `finish` adds it to the weight.

    h = W x + (alpha / r) B A x,  W (out, in) frozen, A (r, in) drawn at random, B (out, r) zero at the start.

    r: 8, the paper's for RoBERTa. alpha: 16, twice r, as is customary. dropout: of x, 0.
    target_modules: names of linear layers, or ends of names (`query`, `attention.self.query`); by default all in the
    blocks, or in the whole backbone where no blocks are found. layers: only the so many top blocks; None for all.
    Needs `pip install 'surefoot[lora]'`. Raises RecipeError where a target is unknown or the model has fewer layers.

    >>> LoRA(r=4, target_modules=["query", "value"])
    LoRA(r=4, alpha=16.0, dropout=0.0, target_modules=['query', 'value'], layers=None)
    """

    wraps = True

    def __init__(
        self,
        *,
        r: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        target_modules: Sequence[str] | None = None,
        layers: int | None = None,
    ) -> None:
        self.r = whole("r", r, least=1)
        self.alpha = positive("alpha", alpha)
        self.dropout = fraction("dropout", dropout)
        if isinstance(target_modules, str) or (target_modules is not None and not target_modules):
            raise RecipeError(f"`target_modules` is {target_modules!r}: it must be a list of names, or absent for all")
        self.target_modules = None if target_modules is None else list(target_modules)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def apply(self, model: Model) -> None:
        check_plain(model, "LoRA")
        peft = require("peft", extra="lora", why="LoRA")
        targets = self.targets(model)
        config = peft.LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            fan_in_fan_out=not isinstance(model.get_submodule(targets[0]), nn.Linear),  # GPT-2's Conv1D
        )
        peft.inject_adapter_in_model(config, model)
        for name in head_names(model):
            model.get_parameter(name).requires_grad_(True)

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
            raise RecipeError("LoRA found no linear layer in the backbone")
        if self.target_modules is None:
            return found
        for target in self.target_modules:
            if not any(_ends(name, target) for name in found):
                ends = {name.rpartition(".")[2] for name in found} | (set(found) if "." in target else set())
                raise RecipeError(f"no linear layer is named `{target}`: {nearest(target, ends)}")
        return [name for name in found if any(_ends(name, target) for target in self.target_modules)]

    def finish(self, model: Model) -> None:
        layer_class = require("peft.tuners.lora", extra="lora", why="LoRA").LoraLayer
        for name, module in list(model.named_modules()):
            if isinstance(module, layer_class):
                adapted: Any = module
                adapted.merge()
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, adapted.get_base_layer())
        if "peft_config" in model.__dict__:
            del model.__dict__["peft_config"]

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"r": Space(4, 64, log=True, integer=True)}

    def __repr__(self) -> str:
        options = ("r", "alpha", "dropout", "target_modules", "layers")
        return "LoRA(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in options) + ")"


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
