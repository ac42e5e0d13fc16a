"""SAFT: under noise on all weights, the layers that it disturbs most train."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.selection import Selection, Training
from surefoot.tune.selections import check_plain, head_names, linear_layers, train_only, whole
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.rounding import check_bits, rows, steps, watch

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Noisy(Reparametrization):
    """A weight that computes with Gaussian noise of the given deviation, (out, 1), in training and with itself after."""

    noise: Tensor

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        if not self.training or not self.noise.any():
            return weight
        return weight + self.noise * torch.randn_like(weight)

    def result(self, weight: Tensor) -> Tensor:
        return weight


@register(
    "saft",
    kind="selection",
    family="depth",
    papers=[
        Paper(
            "Sensitivity-Aware Finetuning for Accuracy Recovery on Deep Learning Hardware",
            "Nair and Bunandar",
            2023,
            arxiv="2306.03076",
        )
    ],
)
class SAFT(Selection):
    """Every linear layer computes with noise in training, and those whose outputs it disturbs most train, and the head.

    W <- W + d e,  e ~ N(0, 1) in each pass;  d_i^2 = delta_i^2 / 12 + (noise max |W|)^2 for row i
    score of a layer = std(y_noisy - y_clean) / std(y_clean),  the largest `share` of the layers train

    delta_i: the step of row i when it is rounded to `bits` with the clip of least squared error, so that delta^2 / 12 is
    the variance of rounding; `noise` adds an analog device's. y: a layer's outputs on `examples` training examples, with
    noise on every layer at once, in eval mode, padding aside. That layers are ranked by what noise does and the rest
    freeze is the paper's; its abstract leaves the score open, and this one is the library's reading.
    Evaluation is without noise. Layers below the lowest that trains run once, without noise, and are cached.

    share: of the linear layers that train, 0.25. bits: 4; noise: 0. examples: 64.
    Raises RecipeError where no linear layer is found, or for options out of range. Reference: Nair and Bunandar 2023.

    >>> SAFT(share=0.5)
    SAFT(share=0.5, bits=4, noise=0.0, examples=64)
    """

    wraps = True

    def __init__(self, *, share: float = 0.25, bits: int = 4, noise: float = 0.0, examples: int = 64) -> None:
        self.share = fraction("share", positive("share", share), one=True)
        self.bits = check_bits(bits)
        self.noise = positive("noise", noise, zero=True)
        self.examples = whole("examples", examples, least=1)
        self.scores_: dict[str, float] = {}
        self.deviations_: dict[str, Tensor] = {}

    def setup(self, model: Model, training: Training) -> None:
        check_plain(model, "SAFT")
        names = self._linear(model)
        noisy = deepcopy(model)
        with torch.no_grad():
            for name in names:
                weight = rows(noisy.get_submodule(name))
                self.deviations_[name] = self.deviation(weight)
                weight += self.deviations_[name] * torch.randn_like(weight)
        outputs: dict[str, list[Tensor]] = {name: [] for name in names}
        differences: dict[str, list[Tensor]] = {name: [] for name in names}
        for batch in training.batches(self.examples):
            here: dict[str, Tensor] = {}
            watch(model, names, [batch], lambda name, x, y, here=here: here.__setitem__(name, y))  # type: ignore[misc]
            watch(noisy, names, [batch], lambda name, x, y, here=here: differences[name].append(y - here[name]))  # type: ignore[misc]
            for name, y in here.items():
                outputs[name].append(y)
        self.scores_ = {
            name: float(torch.cat(differences[name]).std() / torch.cat(outputs[name]).std().clamp_min(1e-12))
            for name in names
            if outputs[name]
        }

    def deviation(self, weight: Tensor) -> Tensor:
        """Of the noise on each row of a weight (out, in): (out, 1)."""
        analog = self.noise * weight.abs().max()
        return torch.sqrt(steps(weight, self.bits).square() / 12 + analog.square())

    def apply(self, model: Model) -> None:
        check_plain(model, "SAFT")
        if not self.scores_:
            raise RecipeError("SAFT chooses by data: call `setup` before `apply`")
        count = max(1, math.ceil(self.share * len(self.scores_) - 1e-9))
        chosen = sorted(self.scores_, key=lambda name: -self.scores_[name])[:count]
        parts: dict[str, Reparametrization] = {}
        for name, module in self._linear(model).items():
            deviation = self.deviations_[name]
            parts[f"{name}.weight"] = Noisy(deviation if isinstance(module, nn.Linear) else deviation.T)
        inside = tuple(f"{name}." for name in chosen)
        train_only(model, [n for n, _ in model.named_parameters() if n.startswith(inside)] + head_names(model))
        reparametrize(model, parts, freeze=False)

    def finish(self, model: Model) -> None:
        fold(model, Noisy)

    def _linear(self, model: Model) -> dict[str, nn.Module]:
        found = linear_layers(model, model.layer_names or ["backbone"])
        if not found:
            raise RecipeError("SAFT found no linear layer in the backbone: choose `all`")
        return found

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"share": Space(0.05, 1.0)}

    def __repr__(self) -> str:
        return f"SAFT(share={self.share}, bits={self.bits}, noise={self.noise}, examples={self.examples})"
