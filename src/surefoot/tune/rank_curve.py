"""Effective rank of a model's vectors while it trains: where the first phase of a contrastive training ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from surefoot.models.predict import encode_inputs, predict
from surefoot.tune.fit import Fit
from surefoot.tune.objectives.rank_reduction import log_rank


class RankCurve:
    """Looks at a training: `fit.run(looks=range(0, 1000, 50), look=curve)`, with `curve = RankCurve(fit, texts)`.

    After each of the steps `looks` it takes the effective rank of the vectors of `texts`, R = exp(-sum_j p_j log p_j),
    p: the singular values of the vectors (N, D), scaled to unit length, over their sum; between 1 and min(N, D). In
    contrastive fine-tuning R rises to a peak, which ends phase 1, and falls in phase 2, in which what was found of the
    first (that STS scores rise with the rank) turns round. The training itself goes on unchanged.

    steps, ranks: what was seen. Reference: Jung et al. 2024, Unveiling Key Aspects of Fine-Tuning in Sentence Embeddings:
    A Representation Rank Analysis, section 2.
    """

    def __init__(self, fit: Fit, texts: Sequence[str]) -> None:
        self.fit = fit
        self.texts = list(texts)
        self.steps: list[int] = []
        self.ranks: list[float] = []

    def __call__(self, step: int) -> None:
        model = self.fit.snapshot()
        features = predict(model, encode_inputs(model, self.texts, "text")).features
        self.steps.append(step)
        self.ranks.append(float(log_rank(torch.from_numpy(features).double(), spectrum="singular").exp()))

    @property
    def peak(self) -> int | None:
        """The step after which the rank was largest; None where nothing was seen."""
        return self.steps[self.ranks.index(max(self.ranks))] if self.ranks else None
