"""InfoNCE over pairs: each text's own partner among those of the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Objective, Space, one_of, positive
from surefoot.tune.step import Step


@register(
    "infonce",
    kind="objective",
    family="contrastive",
    papers=[
        Paper(
            "Efficient Natural Language Response Suggestion for Smart Reply",
            "Henderson et al.",
            2017,
            arxiv="1705.00652",
        ),
        Paper("SimCSE: Simple Contrastive Learning of Sentence Embeddings", "Gao et al.", 2021, arxiv="2104.08821"),
    ],
)
class InfoNCE(Objective):
    """In-batch negatives: -s(a_i, p_i) / t + log(sum_j exp(s(a_i, p_j) / t) + sum_j exp(s(a_i, n_j) / t)).

    a_i, p_i, n_i: features (D,) of anchor, positive and, where the data have them, hard negative of pair i; all of the
    batch's positives and negatives are candidates for every anchor. s: cosine or dot product. Gives (B,) in nats, log of
    the number of candidates where nothing is told apart.

    Smart Reply's is `similarity: dot` with `temperature: 1`, without negatives; its two towers are one encoder here.
    Supervised SimCSE's is the default: cosine with `temperature` 0.05, above 0, and hard negatives. It is
    sentence_transformers' MultipleNegativesRankingLoss (scale 1 / t), but for `mask_duplicates`.

    symmetric: the mean of it and of the same from each positive along the anchors (False).
    mask_duplicates: a candidate whose text is the pair's own positive or anchor is no negative for it (True); a
    batch of pairs with few distinct answers is full of them.

    Without a second pair, or a negative, there is nothing to tell apart and it is 0. Raises RecipeError for a
    temperature that is not above 0, another similarity, and for data without pairs. Reference: Henderson et al. 2017,
    section 4.3; Gao et al. 2021, equation 5.

    >>> InfoNCE(similarity="dot", temperature=1.0).temperature
    1.0
    """

    needs = frozenset({"pairs"})
    reads_labels = False

    def __init__(
        self,
        *,
        similarity: Literal["cosine", "dot"] = "cosine",
        temperature: float = 0.05,
        symmetric: bool = False,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        self.similarity = one_of("similarity", similarity, ["cosine", "dot"])
        self.temperature = positive("temperature", temperature)
        self.symmetric = symmetric
        self.mask_duplicates = mask_duplicates

    def per_example(self, step: Step) -> Tensor:
        names = ["positive", *(["negative"] if "negative" in step.pairs.encoded else [])]
        anchors = self._scaled(step.output.features)
        candidates = torch.cat([self._scaled(step.pair(name).features) for name in names])
        scores = anchors @ candidates.T / self.temperature  # (B, B) or, with negatives, (B, 2 B)
        if self.mask_duplicates:
            scores = scores.masked_fill(self._duplicates(step, names), -torch.inf)
        own = torch.arange(len(anchors), device=scores.device)
        losses = F.cross_entropy(scores, own, reduction="none")
        if not self.symmetric:
            return losses
        return (losses + F.cross_entropy(scores[:, : len(own)].T, own, reduction="none")) / 2

    def _scaled(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1) if self.similarity == "cosine" else features

    def _duplicates(self, step: Step, names: list[str]) -> Tensor:
        """(B, B) or (B, 2 B): candidates that say what the pair's own positive or anchor says."""
        texts = torch.cat([step.text_ids(name) for name in names])
        same = (step.text_ids("positive")[:, None] == texts) | (step.text_ids("anchor")[:, None] == texts)
        same.diagonal().fill_(False)
        return same

    @classmethod
    def space(cls, context: object = None) -> dict[str, Space]:
        return {"temperature": Space(0.01, 0.2, log=True)}
