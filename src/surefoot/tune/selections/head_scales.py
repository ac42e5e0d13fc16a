"""Head scales: one temperature for each attention head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.selection import Selection
from surefoot.tune.selections import check_plain, head_names, train_only
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.sites import all_heads

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Scaled(Reparametrization):
    """The rows of the query projection times a scale for each head; weight (out, in) and bias (out,) share the scales."""

    def __init__(self, scales: Tensor | None = None, *, like: Scaled | None = None) -> None:
        super().__init__()
        if scales is not None:
            self.scales = nn.Parameter(scales)
        self.__dict__["like"] = like  # the part that holds the scales, which are its parameters alone

    def forward(self, weight: Tensor) -> Tensor:
        scales = (self.__dict__["like"] or self).scales
        rows = scales.repeat_interleave(len(weight) // len(scales))
        return weight * rows.view(-1, *[1] * (weight.ndim - 1))


@register(
    "head_scales",
    kind="selection",
    family="scaling",
    papers=[
        Paper(
            "Length Generalization of Causal Transformers without Position Encoding",
            "Wang et al.",
            2024,
            arxiv="2404.12224",
        )
    ],
)
class HeadScales(Selection):
    """A temperature for each attention head trains, and the head of the model; all weights stay.

    attention of head h = softmax(lambda_h q k^T / sqrt(d)) v,  lambda_h >= `least` after every step

    The paper's use: a causal model without position encodings, tuned by its language-model loss on texts longer than it
    knew, where a scale above one undoes the attention's distraction. This library tunes classifiers and embeddings; there
    the scales are a selection of layers x heads numbers like any other, for models with positions or without. The scales
    are folded into the query projection, so that nothing is left of them at inference.

    start: of every scale, 1, the pretrained model; the paper starts at 1.6 for four times the length. least: 1, the
    paper's; 0 lets heads become flatter too. The paper trains them with a learning rate of 0.1 for 200 steps.
    Raises RecipeError for models without query projections of their own in blocks, or that normalise their queries, or
    for `start` below `least`.
    Reference: Wang et al. 2024.

    >>> HeadScales(least=0.0)
    HeadScales(start=1.0, least=0.0)
    """

    wraps = True

    def __init__(self, *, start: float = 1.0, least: float = 1.0) -> None:
        self.least = positive("least", least, zero=True)
        self.start = positive("start", start)
        if self.start < self.least:
            raise RecipeError(f"`start` is {start} and `least` {least}: scales cannot start below the least")

    def apply(self, model: Model) -> None:
        check_plain(model, "head scales")
        found = all_heads(model, asking="a scale of heads", scales=True)
        parts: dict[str, Reparametrization] = {}
        for each in found.values():
            weight = model.get_parameter(f"{each.query}.weight")
            own = Scaled(torch.full((each.count,), self.start, dtype=weight.dtype, device=weight.device))
            parts[f"{each.query}.weight"] = own
            if getattr(model.get_submodule(each.query), "bias", None) is not None:
                parts[f"{each.query}.bias"] = Scaled(like=own)
        train_only(model, head_names(model))
        reparametrize(model, parts)

    @torch.no_grad()
    def after_step(self, model: Model, *, step: int, steps: int) -> None:
        for module in model.modules():
            if isinstance(module, Scaled) and "scales" in module._parameters:
                module.scales.clamp_(min=self.least)

    def finish(self, model: Model) -> None:
        fold(model, Scaled)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"start": Space(1.0, 2.0)}

    def __repr__(self) -> str:
        return f"HeadScales(start={self.start}, least={self.least})"
