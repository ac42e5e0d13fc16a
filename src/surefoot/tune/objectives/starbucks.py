"""Starbucks: a short list of sizes, each a number of layers and of numbers, all of them trained at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.build import Spec
from surefoot.tune.objective import Context, one_of, positive
from surefoot.tune.smaller import Layered, check_count
from surefoot.tune.step import Step


@register(
    "starbucks",
    kind="objective",
    family="contrastive",
    papers=[
        Paper("Starbucks: Improved Training for 2D Matryoshka Embeddings", "Zhuang et al.", 2024, arxiv="2410.13230")
    ],
)
class Starbucks(Layered):
    """L(f^N) + sum over sizes (n, d) of L(f^n[:d]) + w KL(whole || size): representation learning of the paper's sizes.

    L: the inner objective of pairs; f^n (B, D): features pooled from layer n of N. Nothing is drawn: every size is trained
    at every step. KL: with `kl="vectors"` (the authors' code for similarity) over the numbers of a vector, softmax(f^N[:d])
    to softmax(f^n[:d]), by 0.3; with "candidates" (their code for retrieval) over the batch's positives, softmax of
    cosines over `temperature`, theirs being dot products. The whole model's side is fixed.

    inner: "infonce", or any objective of pairs. sizes: (n, d) pairs, smallest first; by default six, layers evenly up to
    N - 1 and widths halved from the whole, as the paper's (2, 32), (4, 64), ..., (12, 768) for BERT. kl_weight: w, 1, at
    least 0. temperature: 0.05, above 0.

    Gives a scalar, in the inner objective's units. One pass of the model for all; `Encoder(first_layers(model, n), dim=d)`
    cuts so. Raises RecipeError for sizes beyond the model's, a model of one layer, and an inner objective that does not
    compare pairs. Reference: Zhuang et al. 2024, section 3;
    ielab/Starbucks, sts/starbucks_loss.py, retrieval/modeling.py. Their masked pre-training is not here.

    >>> Starbucks(sizes=[[1, 16], [2, 32]]).sizes
    [(1, 16), (2, 32)]
    """

    def __init__(
        self,
        *,
        inner: Spec = "infonce",
        sizes: Sequence[Sequence[int]] | None = None,
        kl: Literal["vectors", "candidates"] = "vectors",
        kl_weight: float = 1.0,
        temperature: float = 0.05,
    ) -> None:
        super().__init__(inner=inner)
        if sizes is not None and any(len(each) != 2 for each in sizes):
            raise RecipeError(f"`sizes` is {sizes!r}: pairs of layers and width are wanted, such as [[2, 32], [4, 64]]")
        self.sizes = None if sizes is None else [(check_count("sizes", n), check_count("sizes", d)) for n, d in sizes]
        self.kl = one_of("kl", kl, ["vectors", "candidates"])
        self.kl_weight = positive("kl_weight", kl_weight, zero=True)
        self.temperature = positive("temperature", temperature)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.sizes_ = self.sizes or diagonal(self.layers_, context.model.dim)
        for layers, width in self.sizes_:
            if layers > self.layers_ or width > context.model.dim:
                raise RecipeError(
                    f"`sizes` has {layers} layers of {width} numbers, and the model {self.layers_} of {context.model.dim}"
                )
        self.sizes_ = [size for size in self.sizes_ if size != (self.layers_, context.model.dim)]

    def forward(self, step: Step) -> Tensor:
        terms = [self.loss(step)]
        for layer, dim in self.sizes_:
            terms.append(self.loss(step, layer=layer, dim=dim))
            if self.kl_weight:
                terms.append(self.kl_weight * self._divergence(step, layer, dim))
        return torch.stack(terms).sum()

    def _divergence(self, step: Step, layer: int, dim: int) -> Tensor:
        whole, lower = self.features(step).detach(), self.features(step, layer=layer)[:, :dim]
        if self.kl == "vectors":
            found = F.kl_div(lower.log_softmax(-1), whole[:, :dim].softmax(-1), reduction="batchmean")
            return 0.3 * found
        target, scores = (self._scores(each, len(step.batch)) / self.temperature for each in (whole, lower))
        return F.kl_div(scores.log_softmax(-1), target.softmax(-1), reduction="batchmean")

    @staticmethod
    def _scores(features: Tensor, count: int) -> Tensor:
        """Cosines (B, B) of anchors and positives, which are the first 2 B rows."""
        unit = F.normalize(features[: 2 * count], dim=-1)
        return unit[:count] @ unit[count:].T


def diagonal(layers: int, width: int, count: int = 6) -> list[tuple[int, int]]:
    """At most `count` sizes, the last one the whole: layers evenly, widths by halves.

    >>> diagonal(12, 768)
    [(2, 24), (4, 48), (6, 96), (8, 192), (10, 384), (12, 768)]
    """
    count = min(count, layers)
    return [(round(layers * (i + 1) / count), max(1, width >> (count - 1 - i))) for i in range(count)]
