"""Weight compander: bounded weights that are pushed away from zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.selection import Selection
from surefoot.tune.selections import check_plain, linear_layers, top_names, train_only, whole
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Companded(Reparametrization):
    """a arctan(v / b), with log a and log b as parameters that may train."""

    def __init__(self, a: Tensor, *, learn: bool) -> None:
        super().__init__()
        # b = a at first: the slope at zero is 1, as without it.
        self.log_a = nn.Parameter(a.log(), requires_grad=learn)
        self.log_b = nn.Parameter(a.log(), requires_grad=learn)

    def forward(self, v: Tensor) -> Tensor:
        return self.log_a.exp() * torch.arctan(v / self.log_b.exp())

    def inverse(self, weight: Tensor) -> Tensor:
        """The v of a weight."""
        return self.log_b.exp() * torch.tan(weight / self.log_a.exp())


@register(
    "weight_compander",
    kind="selection",
    family="regularised",
    papers=[
        Paper(
            "Weight Compander: A Simple Weight Reparameterization for Regularization",
            "Cakaj, Mehnert and Yang",
            2023,
            arxiv="2306.16993",
        )
    ],
)
class WeightCompander(Selection):
    """Weights of linear layers are trained through a bounded curve, w = a arctan(v / b), and folded back at the end.

    |w| < a pi / 2, and dw / dv = (a / b) / (1 + (v / b)^2): large weights stop growing, while weights near zero move
    the fastest, so that fewer stay there. v starts where w is the pretrained weight; biases, embeddings, norms and the
    head train as they are. Weight decay and objectives on weights act on v.

    That the map is nonlinear and bounded and that its hyperparameters can be learned is the abstract's; there is no
    public code, and the arctangent and what follows are ours to state: a = scale * max |w| of each matrix, b = a, which
    makes the slope at zero 1. scale: above 2 / pi, where the largest weight would be out of reach; 1; large values
    approach plain training. learn: whether a and b (their logarithms, one each for every matrix) train along, as in the
    paper's extension. layers: only the so many top blocks train, as in `top_layers`; None for everything.
    Raises RecipeError if no linear layer trains or for other values. Reference: Cakaj, Mehnert and Yang 2023.

    >>> WeightCompander(scale=2.0)
    WeightCompander(scale=2.0, learn=False, layers=None)
    """

    wraps = True

    def __init__(self, *, scale: float = 1.0, learn: bool = False, layers: int | None = None) -> None:
        self.scale = positive("scale", scale)
        if self.scale <= 2 / math.pi:
            raise RecipeError(f"`scale` is {scale}: it must be above {2 / math.pi:.3f}, or weights are out of reach")
        if not isinstance(learn, bool):
            raise RecipeError(f"`learn` is {learn}: it must be true or false")
        self.learn = learn
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def apply(self, model: Model) -> None:
        check_plain(model, "Weight compander")
        names = [name for name, _ in model.named_parameters()]
        train_only(model, names if self.layers is None else top_names(model, self.layers))
        found = linear_layers(model, ["backbone"])
        # A matrix of zeros has no scale of its own.
        weights = {
            f"{name}.weight": each.weight
            for name, each in found.items()
            if each.weight.requires_grad and each.weight.any()  # type: ignore[operator]
        }
        if not weights:
            raise RecipeError(
                "weight_compander found no linear layer that trains in the backbone: choose another selection"
            )
        parts = {
            name: Companded(self.scale * weight.detach().abs().max(), learn=self.learn)  # type: ignore[operator]
            for name, weight in weights.items()
        }
        reparametrize(model, parts, freeze=False)
        with torch.no_grad():
            for name, part in parts.items():
                owner, _, attribute = name.rpartition(".")
                v = model.get_parameter(f"{owner}.parametrizations.{attribute}.original")
                v.copy_(part.inverse(v))

    def finish(self, model: Model) -> None:
        fold(model, Companded)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"scale": Space(0.7, 5.0, log=True)}

    def __repr__(self) -> str:
        return f"WeightCompander(scale={self.scale}, learn={self.learn}, layers={self.layers})"
