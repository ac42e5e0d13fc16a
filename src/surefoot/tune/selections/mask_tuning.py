"""Mask tuning: which of the pretrained weights are used trains, and not one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, one_of, positive
from surefoot.tune.selection import Selection
from surefoot.tune.selections import check_plain, head_names, highest, linear_layers, train_only, whole
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.sites import is_attention

if TYPE_CHECKING:
    from surefoot.models.model import Model

PAPER = Paper(
    "Regularized Mask Tuning: Uncovering Hidden Knowledge in Pre-trained Vision-Language Models",
    "Zheng et al.",
    2023,
    arxiv="2307.15049",
)
#: Scores at the start, and below which a weight is left out.
START, THRESHOLD = 1e-2, 5e-3


class _Above(torch.autograd.Function):
    """1[s > threshold], whose gradient is passed on as if it were the identity."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return (scores > THRESHOLD).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Binary(Reparametrization):
    """W * 1[s > threshold], with a score s for every weight."""

    def __init__(self, weight: Tensor, *, penalty: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.full_like(weight, START))
        if penalty:
            self.scores.register_hook(lambda gradient: gradient + penalty * _direction(self.scores))  # type: ignore[no-untyped-call]

    def forward(self, weight: Tensor) -> Tensor:
        kept: Tensor = _Above.apply(self.scores)  # type: ignore[no-untyped-call]
        return weight * kept


def _direction(scores: Tensor) -> Tensor:
    """d ||s||_2 / ds."""
    length: Tensor = scores.detach().norm()
    return scores.detach() / length.clamp_min(1e-12)


@register("mask_tuning", kind="selection", family="sparse", papers=[PAPER])
class MaskTuning(Selection):
    """A binary mask over the pretrained weights trains, and the head; the weights that it keeps stay what they were.

    W_eff = W * 1[s > 0.005],  dL/ds = W * dL/dW_eff (straight through),  s = 0.01 everywhere at the start

    Of each linear layer in the chosen places; a bias stays. The loss has `penalty` times ||s||_2 of every layer added,
    by its gradient, as in the authors' code. With the optimizer `gradient_dropout` this is R-AMT (recipe `r_amt`). What
    a task adds to the model is one bit a weight. A weight that is left out comes back when its score rises again.

    site: `attention`, the paper's; `feed_forward` or `both`. penalty: 1e-4, the authors'. layers: only the so many top
    blocks; None for all. A plain module's linear layers are all masked. The authors train with Adam at 8e-5, where a
    weight is left out after about sixty steps in one direction.
    Raises RecipeError where no such layer is found. Reference: Zheng et al. 2023.

    >>> MaskTuning(site="both")
    MaskTuning(site='both', penalty=0.0001, layers=None)
    """

    wraps = True

    def __init__(self, *, site: str = "attention", penalty: float = 1e-4, layers: int | None = None) -> None:
        self.site = one_of("site", site, ["attention", "feed_forward", "both"])
        self.penalty = positive("penalty", penalty, zero=True)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def apply(self, model: Model) -> None:
        check_plain(model, "mask tuning")
        blocks = highest(model, self.layers) if self.layers else model.layer_names
        found = linear_layers(model, blocks or ["backbone"])
        if blocks and self.site != "both":
            wanted = self.site == "attention"
            found = {
                name: module
                for name, module in found.items()
                if any(name.startswith(f"{block}.") and is_attention(name, block) == wanted for block in blocks)
            }
        if not found:
            raise RecipeError("mask tuning found no linear layer there: choose another `site`, or `both`")
        train_only(model, head_names(model))
        parts = {
            f"{name}.weight": Binary(module.get_parameter("weight").detach(), penalty=self.penalty)
            for name, module in found.items()
        }
        reparametrize(model, parts)

    def finish(self, model: Model) -> None:
        fold(model, Binary)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"penalty": Space(1e-5, 1e-2, log=True)}

    def __repr__(self) -> str:
        return f"MaskTuning(site={self.site!r}, penalty={self.penalty}, layers={self.layers})"
