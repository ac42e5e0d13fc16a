"""2D Matryoshka: an encoder that can be cut to fewer layers and to fewer numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.build import Spec
from surefoot.tune.objective import Space, positive
from surefoot.tune.smaller import Layered
from surefoot.tune.step import Step


@register(
    "matryoshka_2d",
    kind="objective",
    family="contrastive",
    papers=[Paper("2D Matryoshka Sentence Embeddings", "Li et al.", 2024, arxiv="2402.14776")],
)
class Matryoshka2D(Layered):
    """L(f^N) + L(f^N[:d]) + L(f^n) + L(f^n[:d]) + w t KL(softmax(f^N / t) || softmax(f^n / t)).

    L: the inner objective of pairs. f^n (B, D): features pooled from layer n of N; n from 1 to N - 1 and d, a width below
    the whole, are drawn anew at every step. The divergence is over the D numbers of a vector, mean over texts, f^N fixed.

    inner: "infonce", or any objective of pairs. dims: what d is drawn from; by default the model's width, its half, and so
    on to 32. kl_weight: w, 1, at least 0. temperature: t, 0.3, above 0. Both are sentence_transformers' AdaptiveLayerLoss';
    the four terms are those of the paper's first version, of which the catalogue has them from memory.

    Gives a scalar, in the inner objective's units. One pass of the model for all; `Encoder(first_layers(model, n), dim=d)`
    cuts so. Raises RecipeError for a model of one layer, for an inner objective that does not compare pairs, and for widths
    above the model's. Reference: Li et al. 2024.

    >>> Matryoshka2D(kl_weight=0.0).temperature
    0.3
    """

    def __init__(
        self,
        *,
        inner: Spec = "infonce",
        dims: Sequence[int] | None = None,
        kl_weight: float = 1.0,
        temperature: float = 0.3,
    ) -> None:
        super().__init__(inner=inner, dims=dims)
        self.kl_weight = positive("kl_weight", kl_weight, zero=True)
        self.temperature = positive("temperature", temperature)

    def forward(self, step: Step) -> Tensor:
        layer = 1 + int(torch.randint(self.layers_ - 1, (), generator=step.generator))
        narrower = [width for width in self.widths_ if width < step.model.dim] or self.widths_
        dim = narrower[int(torch.randint(len(narrower), (), generator=step.generator))]
        sizes = ((None, None), (None, dim), (layer, None), (layer, dim))
        total = torch.stack([self.loss(step, layer=each, dim=width) for each, width in sizes]).sum()
        if not self.kl_weight:
            return total
        whole = (self.features(step).detach() / self.temperature).softmax(-1)
        lower = (self.features(step, layer=layer) / self.temperature).log_softmax(-1)
        return total + self.kl_weight * self.temperature * F.kl_div(lower, whole, reduction="batchmean")

    @classmethod
    def space(cls, context: object = None) -> dict[str, Space]:
        return {"kl_weight": Space(0.1, 10.0, log=True)}
