"""Model stock: as far from the base as the angles between tuned models say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from surefoot.merge.combine import Combine, Pieces, mean
from surefoot.registry import Paper, register

PAPER = Paper("Model Stock: All we need is just a few fine-tuned models", "Jang et al.", 2024, arxiv="2403.19522")


@register("model_stock", kind="merge", family="averaging", papers=[PAPER])
class ModelStock(Combine):
    """theta = t mean_k theta_k + (1 - t) theta_0,  t = N cos(a) / (1 + (N - 1) cos(a)), for each tensor.

    a: the angle between the moves theta_k - theta_0 of two models, its cosine averaged over the pairs of the N models
    of one task. Under the paper's model of tuned weights around a centre, theta is the point of their affine hull that
    lies closest to the centre. t: the ratio; 1 where the moves agree, the mean; 0 where they are at right angles, the
    base; where the denominator vanishes the base stays. A tensor that did not move stays.

    Needs two models or more and their base; no option. Raises RecipeError for fewer. Reference: Jang et al. 2024,
    equation 7 and appendix for N models.

    >>> ModelStock().least
    2
    """

    least = 2

    def measure(self, pieces: Pieces, *, name: str = "") -> float:
        gram: Tensor | None = None
        for tuned, base in pieces():
            assert base is not None
            moves = torch.stack([(each - base).flatten() for each in tuned])
            product = (moves @ moves.T).double()
            gram = product if gram is None else gram + product
        assert gram is not None
        count = len(gram)
        norms = gram.diagonal().clamp_min(0).sqrt()
        cosines = (gram / (norms[:, None] * norms[None, :]).clamp_min(1e-12)).clamp(-1, 1)
        cosine = float(cosines[tuple(torch.triu_indices(count, count, 1))].mean())
        below = 1 + (count - 1) * cosine
        return 0.0 if abs(below) < 1e-6 else count * cosine / below

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any) -> Tensor:
        assert base is not None
        return torch.lerp(base, mean(tuned), measured)
