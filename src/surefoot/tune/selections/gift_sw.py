"""GIFT-SW: salient columns train, the others get noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.selection import Selection, Training
from surefoot.tune.selections import check_plain, head_names, highest, linear_layers, train_only, whole
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.rounding import check_bits, rounded, rows, steps, watch

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Salient(Reparametrization):
    """W (out, in) with the columns `where` training; in training mode, noise of deviation `noise` (out, 1) on the others."""

    where: Tensor
    noise: Tensor

    def __init__(self, weight: Tensor, where: Tensor, noise: Tensor, *, transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed
        self.register_buffer("where", where)
        self.register_buffer("noise", noise, persistent=False)
        self.columns = nn.Parameter(weight.detach()[:, where].clone())

    def forward(self, weight: Tensor) -> Tensor:
        return self._with(weight, noisy=self.training)

    def result(self, weight: Tensor) -> Tensor:
        return self._with(weight, noisy=False)

    def _with(self, weight: Tensor, *, noisy: bool) -> Tensor:
        weight = weight.T if self.transposed else weight
        if noisy and self.noise.any():
            weight = weight + self.noise * torch.randn_like(weight)
        weight = weight.index_copy(1, self.where, self.columns)
        return weight.T if self.transposed else weight


@register(
    "gift_sw",
    kind="selection",
    family="sparse",
    papers=[
        Paper(
            "GIFT-SW: Gaussian noise Injected Fine-Tuning of Salient Weights for LLMs",
            "Zhelnin et al.",
            2024,
            arxiv="2408.15300",
        )
    ],
)
class GIFTSW(Selection):
    """The columns that rounding would hurt most train, and the head; the others stay, under noise while training lasts.

    s_j = ||D_j||_2 ||X_j||_inf,  D = W - round(W),  the `columns` largest s_j of each linear layer train, and in training
    W_i,j <- W_i,j + noise delta_i e,  e ~ N(0, 1),  for the others;  delta_i = alpha_i / (2^(bits - 1) - 1)

    W (out, in); D_j its column j's error when rows are rounded to so many bits with clips alpha_i of least squared error;
    X_j input j over `examples` training examples, padding aside. The paper's family is ||D_j||_tau ||X_j||_rho^gamma;
    its released code takes the largest inputs alone, whose rho = inf this is, with tau = 2 and gamma = 1 for the rest.
    Evaluation is without noise, and `finish` leaves the trained columns in the weights.

    columns: 128, the paper's for widths of 4,096 (so 12 for 384); all of a layer that has fewer. bits: 4 and noise: 0.5,
    the authors'; 0 for none. examples: 512, theirs. layers: only the so many top blocks; None for all.
    Raises RecipeError where no linear layer is found, or for options out of range. Reference: Zhelnin et al. 2024.

    >>> GIFTSW(columns=12)
    GIFTSW(columns=12, bits=4, noise=0.5, examples=512, layers=None)
    """

    wraps = True

    def __init__(
        self,
        *,
        columns: int = 128,
        bits: int = 4,
        noise: float = 0.5,
        examples: int = 512,
        layers: int | None = None,
    ) -> None:
        self.columns = whole("columns", columns, least=1)
        self.bits = check_bits(bits)
        self.noise = positive("noise", noise, zero=True)
        self.examples = whole("examples", examples, least=1)
        self.layers = None if layers is None else whole("layers", layers, least=1)
        self.where_: dict[str, Tensor] = {}
        self.steps_: dict[str, Tensor] = {}

    def setup(self, model: Model, training: Training) -> None:
        check_plain(model, "GIFT-SW")
        names = self._linear(model)
        largest: dict[str, Tensor] = {}

        def see(name: str, inputs: Tensor, outputs: Tensor) -> None:
            here = inputs.abs().amax(0).float()
            largest[name] = torch.maximum(largest[name], here) if name in largest else here

        watch(model, names, training.batches(self.examples), see)
        self.where_ = {}
        for name in names:
            weight = rows(names[name])
            self.steps_[name] = steps(weight, self.bits)
            error = (weight - rounded(weight, self.steps_[name], self.bits)).norm(dim=0)
            scores = error * largest.get(name, torch.zeros_like(error))
            chosen = torch.topk(scores, min(self.columns, len(scores))).indices
            self.where_[name] = chosen.sort().values

    def apply(self, model: Model) -> None:
        if not self.where_:
            raise RecipeError("GIFT-SW chooses by data: call `setup` before `apply`")
        check_plain(model, "GIFT-SW")
        parts: dict[str, Reparametrization] = {}
        for name, module in self._linear(model).items():
            weight = rows(module)
            noise = self.noise * self.steps_[name]
            parts[f"{name}.weight"] = Salient(
                weight, self.where_[name], noise, transposed=not isinstance(module, nn.Linear)
            )
        train_only(model, head_names(model))
        reparametrize(model, parts)

    def finish(self, model: Model) -> None:
        fold(model, Salient)

    def _linear(self, model: Model) -> dict[str, nn.Module]:
        found = linear_layers(model, highest(model, self.layers) if self.layers else model.layer_names or ["backbone"])
        if not found:
            raise RecipeError("GIFT-SW found no linear layer in the backbone: choose `all`")
        return found

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"columns": Space(4, 256, log=True, integer=True), "noise": Space(0.1, 1.0)}

    def __repr__(self) -> str:
        return f"GIFTSW(columns={self.columns}, bits={self.bits}, noise={self.noise}, examples={self.examples}, layers={self.layers})"
