"""What objectives share that move the batch's inputs within a ball: pixels of images, embeddings of words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from surefoot.attacks.attack import Target, modality_of
from surefoot.attacks.ball import Ball, Norm
from surefoot.attacks.pgd import ascend
from surefoot.models.modes import evaluating
from surefoot.tune.step import Batch, Output, Step


def target_of(step: Step) -> Target:
    """The step's batch as something to attack: its word embeddings for a model of texts, else its pixels or numbers."""

    def forward(batch: Batch, *, embeddings: Tensor | None = None) -> Output:
        return step.again(embeddings=embeddings, inputs=None if embeddings is not None else batch.inputs)

    moves: Any = "embeddings" if modality_of(step.batch) == "text" else "values"
    return Target(step.model, step.batch, moves, step.generator, forward=forward)


def ball_of(target: Target, epsilon: float, norm: Norm) -> Ball:
    """The ball around x: `norm` for pixels, each token's own l2 ball for embeddings."""
    return target.ball("token_l2" if target.moves == "embeddings" else norm, epsilon)


def worst(
    step: Step,
    target: Target,
    ball: Ball,
    loss: Callable[[Tensor], Tensor],
    *,
    start: Tensor,
    steps: int,
    step_size: float,
) -> Tensor:
    """The x' that ascending loss(logits) (N,) comes to, in eval mode, without gradient to the weights."""
    with evaluating(step.model):
        return ascend(
            lambda x: loss(target.logits(x)), target.x, start, ball, steps=steps, step_size=step_size * target.unit
        )


def noise(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal, from the step's generator."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)
