"""Matryoshka representation learning: the first numbers of a vector are a vector of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.build import Spec
from surefoot.tune.objective import Context, positive
from surefoot.tune.smaller import Nested
from surefoot.tune.step import Step


@register(
    "matryoshka",
    kind="objective",
    family="contrastive",
    papers=[Paper("Matryoshka Representation Learning", "Kusupati et al.", 2022, arxiv="2205.13147")],
)
class Matryoshka(Nested):
    """sum_m c_m L(f[:m]): the inner objective L of the first m numbers of the features, for every m in `dims`.

    inner: "infonce", or any objective of pairs, by name or with options. dims: m; by default the model's width, its half,
    and so on to 32. weights: c_m, as many as `dims`, largest width first, each above 0; 1 by default, the paper's.
    Gives a scalar, in the inner objective's units. One pass of the model for all widths; `Encoder(dim=m)` cuts so. Raises
    RecipeError for an inner objective that does not compare pairs, widths above the model's, and weights that are not as
    many. Reference: Kusupati et al. 2022, equation 1; equal to sentence_transformers' MatryoshkaLoss.

    >>> Matryoshka(dims=[16, 8]).dims
    [16, 8]
    """

    def __init__(
        self, *, inner: Spec = "infonce", dims: Sequence[int] | None = None, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(inner=inner, dims=dims)
        self.weights = None if weights is None else [positive("weights", each) for each in weights]
        if self.weights is not None and len(self.weights) != len(self.dims or self.weights):
            raise RecipeError(f"{len(self.weights)} weights for {len(self.dims or [])} dims: give one for each")

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.shares_ = self.weights or [1.0] * len(self.widths_)
        if len(self.shares_) != len(self.widths_):
            raise RecipeError(f"{len(self.shares_)} weights for {len(self.widths_)} widths: name the `dims` too")

    def forward(self, step: Step) -> Tensor:
        parts = zip(self.widths_, self.shares_, strict=True)
        return torch.stack([share * self.loss(step, dim=width) for width, share in parts]).sum()
