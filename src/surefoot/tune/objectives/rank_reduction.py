"""Rank reduction: keep the features of a batch from spreading over more directions than they need."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Objective, one_of
from surefoot.tune.objectives.pairs import unit
from surefoot.tune.step import Step

#: Below this share a direction counts as empty: its logarithm has no useful derivative.
EMPTY = 1e-12


@register(
    "rank_reduction",
    kind="objective",
    family="features",
    papers=[
        Paper(
            "Unveiling Key Aspects of Fine-Tuning in Sentence Embeddings: A Representation Rank Analysis",
            "Jung et al.",
            2024,
            arxiv="2405.11297",
        )
    ],
)
class RankReduction(Objective):
    """Log of the effective rank of the batch's features: -sum_j p_j log p_j, with p_j = e_j / sum_k e_k.

    e: the eigenvalues of U^T U / B, U (B, D) the features scaled to unit length. Gives a scalar in nats, between 0 (all on
    one line) and log min(B, D). Beside a contrastive loss such as `simcse`, whose effective rank first rises to a peak
    and then falls while the embeddings go on getting better, it brings the second phase on sooner.

    spectrum: "eigenvalues" (default) or "singular", where p are the shares of their roots, the singular values of U: Roy
    and Vetterli's effective rank. Which of the two the authors take, and the size of their weight, could not be verified
    from public sources; no code is public.

    Where the rank peaks in a training, `surefoot.tune.rank_curve.RankCurve` shows. Needs no labels and no pass of its own. Raises RecipeError for another spectrum. Reference: Jung et al. 2024, sections
    2 and 5; Roy and Vetterli 2007.

    >>> RankReduction(spectrum="singular").spectrum
    'singular'
    """

    reads_labels = False

    def __init__(self, *, spectrum: Literal["eigenvalues", "singular"] = "eigenvalues") -> None:
        super().__init__()
        self.spectrum = one_of("spectrum", spectrum, ["eigenvalues", "singular"])

    def forward(self, step: Step) -> Tensor:
        return log_rank(step.output.features, spectrum=self.spectrum)


def log_rank(features: Tensor, *, spectrum: str = "eigenvalues") -> Tensor:
    """The entropy of the shares p of the spectrum of features (B, D) on the unit sphere: a scalar, in nats.

    >>> round(float(log_rank(torch.eye(4)).exp()), 4)
    4.0
    """
    u = unit(features)
    # Of the two products the smaller: their eigenvalues are the same, but for zeros.
    product = u @ u.T if len(u) < u.shape[1] else u.T @ u
    values = torch.linalg.eigvalsh(product / len(u)).clamp_min(EMPTY)
    if spectrum == "singular":
        values = values.sqrt()
    shares: Tensor = values / values.sum()
    return -(shares * shares.log()).sum()
