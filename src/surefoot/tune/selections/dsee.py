"""DSEE: a low-rank and a sparse addition train, and the weight itself becomes sparse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.selection import Selection
from surefoot.tune.selections import check_plain, head_names, linear_layers, train_only, whole
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.rounding import rows
from surefoot.tune.selections.sites import QUERIES, VALUES

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: Residuals below this are no part of the sparse matrix; alternations at each rank: the authors' script.
THRESHOLD, ALTERNATIONS = 0.01, 10


class Masked(Reparametrization):
    """S_1 * W: the weight, of which `prune` leaves the entries of a mask."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class Embedded(Masked):
    """S_1 * W + (alpha / r) (U V + S_2): U (out, r) and S_2, at fixed places, zero at the start; V (r, in) drawn."""

    where: Tensor

    def __init__(self, module: nn.Module, where: Tensor, *, r: int, alpha: float) -> None:
        super().__init__(module.get_parameter("weight").detach())
        weight = rows(module)
        self.transposed, self.scale = not isinstance(module, nn.Linear), alpha / r
        self.register_buffer("where", where)
        self.u = nn.Parameter(weight.new_zeros(len(weight), r))
        self.v = nn.Parameter(torch.empty(r, weight.shape[1], device=weight.device))
        nn.init.kaiming_uniform_(self.v, a=5**0.5)
        self.s2 = nn.Parameter(weight.new_zeros(len(where)))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # what `finish` adds is in float32 too
            product = self.u @ self.v
        added = self.scale * product.flatten().index_add(0, self.where, self.s2).view(len(self.u), -1)
        return super().forward(weight) + (added.T if self.transposed else added)


@register(
    "dsee",
    kind="selection",
    family="low-rank",
    papers=[
        Paper(
            "DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models",
            "Chen et al.",
            2021,
            arxiv="2111.00160",
        )
    ],
)
class DSEE(Selection):
    """A low-rank matrix and a few single weights are added to queries and values and train; half of the rest is pruned.

    W_eff = S_1 * W + (alpha / r) (U V + S_2),  U (out, r) and S_2 zero at the start, V (r, in) random

    S_2 has `entries` places in each matrix, fixed before training: where the largest entries lie of the sparse part in a
    decomposition W = low rank + sparse + rest. S_1 is 1 until `prune_at` of the steps are done, and then leaves out the
    `sparsity` smallest |W| of all linear layers in the blocks together; the rest of the training recovers. `finish` adds
    the parts up: the additions' targets are then dense, and all other matrices sparse. Pruning whole heads and neurons,
    the paper's other form, is not here.

    r: 16 and entries: 16, the authors' for RTE and SST-2; alpha: r, so that the scale is 1. grown: 100, the rank to which
    their decomposition grows (some seconds a matrix). sparsity: 0.5, the most in the paper; 0 prunes nothing.
    prune_at: 0.5. Where a model has no projections of queries and values by themselves, every linear layer gets the
    additions. Raises RecipeError where no linear layer is found, or for options out of range. Reference: Chen et al. 2021.

    >>> DSEE(entries=64)
    DSEE(r=16, alpha=16.0, entries=64, sparsity=0.5, prune_at=0.5, grown=100)
    """

    wraps = True

    def __init__(
        self,
        *,
        r: int = 16,
        alpha: float | None = None,
        entries: int = 16,
        sparsity: float = 0.5,
        prune_at: float = 0.5,
        grown: int = 100,
    ) -> None:
        self.r = whole("r", r, least=1)
        self.alpha = positive("alpha", self.r if alpha is None else alpha)
        self.entries = whole("entries", entries)
        self.sparsity = fraction("sparsity", sparsity)
        self.prune_at = fraction("prune_at", prune_at, one=True)
        self.grown = whole("grown", grown, least=1)

    def apply(self, model: Model) -> None:
        check_plain(model, "DSEE")
        layers = linear_layers(model, model.layer_names or ["backbone"])
        if not layers:
            raise RecipeError("DSEE found no linear layer in the backbone: choose `all`")
        ends = {*QUERIES, *VALUES}
        targets = {name for name in layers if name.rpartition(".")[2].lower() in ends} or set(layers)
        parts: dict[str, Reparametrization] = {}
        for name, module in layers.items():
            if name in targets:
                where = sparse_support(rows(module), min(self.entries, rows(module).numel()), rank=self.grown)
                parts[f"{name}.weight"] = Embedded(module, where, r=self.r, alpha=self.alpha)
            elif self.sparsity:
                parts[f"{name}.weight"] = Masked(module.get_parameter("weight").detach())
        train_only(model, head_names(model))
        reparametrize(model, parts)

    def after_step(self, model: Model, *, step: int, steps: int) -> None:
        if self.sparsity and step == max(1, round(self.prune_at * steps)):
            prune(model, self.sparsity)

    def finish(self, model: Model) -> None:
        fold(model, Masked)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"r": Space(4, 32, log=True, integer=True), "entries": Space(4, 256, log=True, integer=True)}

    def __repr__(self) -> str:
        return f"DSEE(r={self.r}, alpha={self.alpha}, entries={self.entries}, sparsity={self.sparsity}, prune_at={self.prune_at}, grown={self.grown})"


@torch.no_grad()
def prune(model: Model, sparsity: float) -> None:
    """Mask that share of the frozen weights with the smallest magnitude, one threshold for all."""
    held = {}
    for module in model.modules():
        lists = getattr(module, "parametrizations", None)
        if lists is not None and "weight" in lists and isinstance(lists["weight"][0], Masked):
            held[lists["weight"][0]] = lists["weight"].original
    sizes = torch.cat([weight.abs().flatten() for weight in held.values()])
    count = int(sparsity * len(sizes))
    if count:
        threshold = sizes.kthvalue(count).values
        for part, weight in held.items():
            part.mask.copy_(weight.abs() > threshold)


@torch.no_grad()
def sparse_support(weight: Tensor, entries: int, *, rank: int) -> Tensor:
    """Flat positions, ascending, of the largest entries of S in W = U V + S + rest, by greedy bilateral smoothing.

    U V grows by one rank at a time, up to `rank` or the width, from a random vector of torch's global state.
    """
    rank = min(rank, *weight.shape)
    v = torch.randn(1, weight.shape[1], device=weight.device, dtype=weight.dtype)
    sparse = torch.zeros_like(weight)
    for grown in range(1, rank + 1):
        for _ in range(ALTERNATIONS):
            u = torch.linalg.qr((weight - sparse) @ v.T).Q
            v = u.T @ (weight - sparse)
            rest = weight - u @ v
            sparse = rest.where(rest.abs() >= THRESHOLD, torch.zeros_like(rest))
        if grown < rank:
            v = torch.cat([v, torch.linalg.qr(rest - sparse).R[:1]])
    return torch.topk(sparse.abs().flatten(), entries).indices.sort().values
