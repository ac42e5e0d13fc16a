"""Abstract descriptions: sentences found by what is true of them, and kept from what only sounds true."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.data.pairs.abstract_description import RAVFOGEL
from surefoot.errors import RecipeError
from surefoot.registry import register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.step import Step


@register("abstract_description", kind="objective", family="contrastive", papers=[RAVFOGEL])
class AbstractDescription(Objective):
    """InfoNCE from descriptions to sentences, and a triplet loss against descriptions that are wrong.

    -log softmax_j(cos(d+_i, s_j) / t)[i] + triplet relu(margin + ||s_i - d+_i||_2 - ||s_i - d-_i||_2)

    s_i, d+_i, d-_i: features (D,) of anchor (a sentence), positive (a description of it) and hard negative (one that is
    not true of it); all sentences of the batch are candidates for a description. The paper has an encoder for sentences
    and another for descriptions, and vectors of any length; here one model reads both, and where it ends in a
    normalisation, as MiniLM does, its vectors have length 1. Gives (B,), at least 0.

    temperature t: 0.1, above 0. triplet: 0.1; with 0 it is `infonce` the other way round, without negatives. margin: 1.
    All the authors' code's. Raises RecipeError for settings out of range, and for data without pairs or without negatives.
    Reference: Ravfogel et al. 2023, section 4, as shauli-ravfogel/descriptions computes it.

    >>> AbstractDescription(triplet=0.5).margin
    1.0
    """

    needs = frozenset({"pairs"})
    reads_labels = False

    def __init__(self, *, temperature: float = 0.1, triplet: float = 0.1, margin: float = 1.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.triplet = positive("triplet", triplet, zero=True)
        self.margin = positive("margin", margin)

    def setup(self, context: Context) -> None:
        if self.triplet and (context.pairs is None or "negative" not in context.pairs.encoded):
            raise RecipeError(
                "abstract_description needs pairs with a `negative`, a description that is wrong: add the column, or set triplet: 0"
            )

    def per_example(self, step: Step) -> Tensor:
        sentences, right = step.output.features, step.pair("positive").features
        scores = F.normalize(right, dim=1) @ F.normalize(sentences, dim=1).T / self.temperature
        own = torch.arange(len(scores), device=scores.device)
        losses = F.cross_entropy(scores, own, reduction="none")
        if not self.triplet:
            return losses
        wrong = step.pair("negative").features
        apart = F.triplet_margin_loss(sentences, right, wrong, margin=self.margin, reduction="none")
        return losses + self.triplet * apart

    @classmethod
    def space(cls, context: object = None) -> dict[str, Space]:
        return {"temperature": Space(0.02, 0.5, log=True), "triplet": Space(0.01, 1.0, log=True)}
