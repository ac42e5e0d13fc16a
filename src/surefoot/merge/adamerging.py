"""AdaMerging: coefficients of task vectors that make the merged model sure of itself on unlabelled data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from surefoot.merge.combine import Piece, Weights
from surefoot.merge.learned import Learned
from surefoot.merge.thresholds import thresholds
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, one_of
from surefoot.tune.step import Batch, Output

PAPER = Paper("AdaMerging: Adaptive Model Merging for Multi-Task Learning", "Yang et al.", 2024, arxiv="2310.02575")


@register("adamerging", kind="merge", family="learned", papers=[PAPER])
class AdaMerging(Learned):
    """theta = theta_0 + sum_k lambda_k tau_k, lambda minimising sum over tasks of the entropy -sum_c p_c log p_c (nats).

    tau_k = theta_k - theta_0; p = softmax of the merged model's logits through task k's own head, on unlabelled inputs of
    task k. lambda: one for each model and tensor (`by: layer`, where the authors' code too takes every tensor for a
    layer) or one for each model (`by: task`), clamped to [0, 1] when merging. Needs the base and one unlabelled set for
    each model, whose heads stay as they are; labels are not looked at.

    start: 0.3. lr: 1e-3, of Adam. steps: 500, each with a batch of 16 of every task. All are the authors'.
    ties: AdaMerging++: of each tau_k the largest `density`, 0.2, over all its tensors, are kept, and of these the ones
    with the sign of sum_k tau_k. steps=0 is task arithmetic with scaling 0.3 up to rounding.
    Raises RecipeError for values out of range, or before `fit`. Reference: Yang et al. 2024;
    EnnengYang/AdaMerging, main_layer_wise_adamerging.py and main_layer_wise_adamergingpp.py.

    >>> AdaMerging(by="task").start
    0.3
    """

    sees = "tasks"
    labelled = False

    def __init__(
        self,
        *,
        by: str = "layer",
        start: float = 0.3,
        lr: float = 1e-3,
        steps: int = 500,
        batch_size: int = 16,
        ties: bool = False,
        density: float = 0.2,
    ) -> None:
        super().__init__(lr=lr, steps=steps, batch_size=batch_size)
        self.by = one_of("by", by, ("layer", "task"))
        self.start = fraction("start", start, one=True)
        self.ties = bool(ties)
        self.density = fraction("density", density, one=True)

    def begin(self, names: Sequence[str], vectors: Sequence[Weights]) -> list[nn.Parameter]:
        rows = len(names) if self.by == "layer" else 1
        return [nn.Parameter(torch.full((rows, len(vectors)), self.start))]

    def coefficients(self, learned: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        return learned[0].clamp(0.0, 1.0).expand(len(names), -1)

    def loss(self, output: Output, batch: Batch, learned: Sequence[Tensor]) -> Tensor:
        log_p = output.logits.log_softmax(1)
        return -(log_p.exp() * log_p).sum(1).mean()

    def prepared(self, vectors: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        return trimmed(vectors, self.density) if self.ties else vectors


def trimmed(vectors: list[dict[str, Tensor]], density: float) -> list[dict[str, Tensor]]:
    """TIES without its average: the largest of each vector over all tensors, of these those with the elected sign."""
    names = list(vectors[0])

    def pieces() -> Iterator[Piece]:
        for name in names:
            yield [each[name].flatten() for each in vectors], torch.zeros(vectors[0][name].numel())

    least = [row[0] for row in thresholds(pieces, lambda number, count: [max(1, int(density * count))])]
    kept = [
        {name: each[name].masked_fill(each[name].abs() < low, 0.0) for name in names}
        for each, low in zip(vectors, least, strict=True)
    ]
    for name in names:
        sign = torch.stack([each[name] for each in kept]).sum(0) >= 0
        for each in kept:
            each[name] = each[name].masked_fill((each[name] > 0) != sign, 0.0)
    return kept
