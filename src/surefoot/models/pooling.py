"""Pooling: token states (B, T, D) and mask (B, T) to one feature vector per example (B, D)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surefoot.errors import ModelError, nearest


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of the unmasked token states."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)


def cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """State of the first token."""
    return hidden[:, 0]


def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """State of the last unmasked token, wherever the padding is."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), (mask * positions).argmax(1)]


def maximum(hidden: Tensor, mask: Tensor) -> Tensor:
    """Largest value over the unmasked tokens, per dimension."""
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean, "cls": cls, "last": last, "max": maximum}


def pooling(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The pooling of that name."""
    if name not in POOLINGS:
        raise ModelError(f"unknown pooling `{name}`: {nearest(name, POOLINGS)}")
    return POOLINGS[name]
