"""The set that an attack may move an input in: a ball around it, within the range that inputs can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2", "token_l2"]
NORMS = ("linf", "l2")
TINY = 1e-12


@dataclass(frozen=True)
class Ball:
    """{x' : ||x' - x|| <= epsilon, low <= x' <= high} around every x of a batch (N, ...).

    norm: `linf` and `l2` take the norm over each example, `token_l2` over each of its tokens, the last dimension.
    """

    norm: Norm
    epsilon: float
    low: float | None = None
    high: float | None = None

    def size(self, delta: Tensor) -> Tensor:
        """||delta|| of each example, or token, in a shape that broadcasts with delta."""
        if self.norm == "token_l2":
            tokens: Tensor = torch.linalg.vector_norm(delta, dim=-1, keepdim=True)
            return tokens
        flat = delta.flatten(1)
        length: Tensor = flat.abs().amax(1) if self.norm == "linf" else torch.linalg.vector_norm(flat, dim=1)
        return length.view(-1, *[1] * (delta.ndim - 1))

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest direction of length 1: the sign of the gradient, or the gradient over its norm."""
        return gradient.sign() if self.norm == "linf" else gradient / self.size(gradient).clamp_min(TINY)

    def project(self, x: Tensor, moved: Tensor) -> Tensor:
        """The nearest point of the ball, then of the range: both hold, since x lies in both."""
        delta = moved - x
        if self.norm == "linf":
            delta = delta.clamp(-self.epsilon, self.epsilon)
        else:
            delta = delta * (self.epsilon / self.size(delta).clamp_min(TINY)).clamp(max=1.0)
        return (x + delta).clamp(self.low, self.high) if self.low is not None else x + delta

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A point drawn uniformly from the ball, put into the range."""
        if self.norm == "linf":
            noise = self.epsilon * (2 * _uniform(x.shape, x, generator) - 1)
        else:
            noise = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
            size = self.size(noise)
            dimensions = x.shape[-1] if self.norm == "token_l2" else x[:1].numel()
            noise = self.epsilon * noise / size.clamp_min(TINY) * _uniform(size.shape, x, generator) ** (1 / dimensions)
        return self.project(x, x + noise)

    def draw_surface(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random direction followed to the surface, put into the range: where APGD starts."""
        shape = x.shape
        noise = (
            2 * _uniform(shape, x, generator) - 1
            if self.norm == "linf"
            else torch.randn(shape, generator=generator, device=generator.device).to(x.device)
        )
        return self.project(x, x + self.epsilon * noise / self.size(noise).clamp_min(TINY))


def _uniform(shape: torch.Size, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(like.device)
