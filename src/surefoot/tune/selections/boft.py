"""BOFT: orthogonal fine-tuning by butterfly factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space
from surefoot.tune.selections import check_plain, head_names, train_only, whole
from surefoot.tune.selections.injected import Targeted
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.rounding import rows

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Butterfly(Reparametrization):
    """W R_m ... R_1 for W (out, d): each R_i turns blocks of b inputs, gathered with a stride that doubles.

    `angles` (m, d / b, b (b - 1) / 2) are the entries above the diagonals of the skew-symmetric Q, zero at the start.
    """

    orders: Tensor

    def __init__(self, d: int, block_size: int, factors: int, *, transposed: bool = False) -> None:
        super().__init__()
        self.block_size, self.transposed = block_size, transposed
        self.angles = nn.Parameter(torch.zeros(factors, d // block_size, block_size * (block_size - 1) // 2))
        orders = [order(d, block_size, level) for level in range(factors)]
        self.register_buffer("orders", torch.stack(orders), persistent=False)

    def rotations(self) -> Tensor:
        """(I + Q)(I - Q)^-1 for every block: (m, d / b, b, b)."""
        b = self.block_size
        above, right = torch.triu_indices(b, b, 1, device=self.angles.device)
        q = self.angles.new_zeros(*self.angles.shape[:2], b, b)
        q[..., above, right] = self.angles
        q = q - q.transpose(2, 3)
        identity = torch.eye(b, device=q.device, dtype=q.dtype)
        turned: Tensor = torch.linalg.solve(identity - q, identity + q)  # the two factors commute
        return turned

    def forward(self, weight: Tensor) -> Tensor:
        turned = weight.T if self.transposed else weight
        with torch.autocast(weight.device.type, enabled=False):  # what `finish` leaves is in float32 too
            for order, blocks in zip(reversed(self.orders.unbind()), reversed(self.rotations().unbind()), strict=True):
                gathered = turned[:, order].view(len(turned), -1, self.block_size)
                turned = torch.einsum("ogi,gij->ogj", gathered, blocks).flatten(1)[:, order.argsort()]
        return turned.T if self.transposed else turned


def order(d: int, block_size: int, level: int) -> Tensor:
    """Which inputs follow each other in the blocks of that level: halves of blocks, 2^level apart, come together."""
    if level == 0:
        return torch.arange(d)
    half = block_size // 2
    halves = torch.arange(d // half).view(-1, 2, 2**level)  # (group, one or the other, place)
    return (halves.transpose(1, 2).flatten()[:, None] * half + torch.arange(half)).flatten()


@register(
    "boft",
    kind="selection",
    family="orthogonal",
    papers=[
        Paper(
            "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization",
            "Liu et al.",
            2023,
            arxiv="2311.06243",
        )
    ],
)
class BOFT(Targeted):
    """A rotation of each linear layer's inputs, the product of sparse ones, trains, and the head.

    h = W R x,  R = R_m ... R_1,  R_i = P_i diag(R_i1, ..., R_in) P_i^T,  R_ij = (I + Q)(I - Q)^-1, Q = -Q^T (b, b)

    P_1 is the identity; P_i brings together halves of blocks that lie 2^(i-1) halves apart, as a fast Fourier transform
    does, so that b 2^(m-1) inputs meet in m factors where one of OFT's blocks holds b. Q = 0 at the start. The factors
    are the paper's; `peft` computes more than one only with a CUDA compiler and from the third on gathers as in the
    second, so this is not `peft`'s. Without its scale of the outputs.

    block_size: b, 8 and factors: m, 2, the paper's for GLUE. Where a layer's inputs do not divide by b 2^(m-1), the
    largest smaller blocks that do, and fewer factors if there are none. target_modules: names, or ends of names, of
    linear layers; all in the blocks by default. layers: only the so many top blocks; None for all.
    Raises RecipeError where a target is unknown, or a layer's inputs cannot be cut into blocks. Reference: Liu et al. 2023.

    >>> BOFT(factors=3)
    BOFT(block_size=8, factors=3, target_modules=None, layers=None)
    """

    called = "BOFT"
    wraps = True

    def __init__(
        self,
        *,
        block_size: int = 8,
        factors: int = 2,
        target_modules: Sequence[str] | None = None,
        layers: int | None = None,
    ) -> None:
        super().__init__(target_modules=target_modules, layers=layers)
        self.block_size = whole("block_size", block_size, least=2)
        self.factors = whole("factors", factors, least=1)

    def apply(self, model: Model) -> None:
        check_plain(model, self.called)
        parts: dict[str, Reparametrization] = {}
        for name in self.targets(model):
            module = model.get_submodule(name)
            weight = rows(module)
            block_size, factors = fitting(weight.shape[1], self.block_size, self.factors, layer=name)
            part = Butterfly(weight.shape[1], block_size, factors, transposed=not isinstance(module, nn.Linear))
            parts[f"{name}.weight"] = part.to(weight)
        train_only(model, head_names(model))
        reparametrize(model, parts)

    def finish(self, model: Model) -> None:
        fold(model, Butterfly)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"block_size": Space(4, 32, log=True, integer=True), "factors": Space(1, 4, integer=True)}


def fitting(d: int, block_size: int, factors: int, *, layer: str) -> tuple[int, int]:
    """The largest blocks of at most that size, with as many factors as fit. Raises RecipeError if none fit."""
    for fewer in range(factors, 0, -1):
        for size in range(min(block_size, d), 1, -1):
            if d % (size * 2 ** (fewer - 1)) == 0 and (fewer == 1 or size % 2 == 0):
                return size, fewer
    raise RecipeError(
        f"the {d} inputs of `{layer}` cannot be cut into blocks of 2 to {block_size}: choose a larger `block_size`, or other `target_modules`"
    )
