"""Schedules of the learning rate."""

from __future__ import annotations

import math


def rate_factor(schedule: str, step: int, total: int, *, warmup: float = 0.0) -> float:
    """What the learning rate is multiplied by at `step` of `total`, counted from 0.

    For the first w = warmup * total steps (step + 1) / (w + 1), rising linearly; after it, with r = (total - step) /
    (total - w) falling from 1: `linear` r, `cosine` (1 - cos(pi r)) / 2, `constant` 1.

    >>> [rate_factor("linear", step, 4) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    >>> [round(rate_factor("cosine", step, 4, warmup=0.5), 3) for step in range(4)]
    [0.333, 0.667, 1.0, 0.5]
    """
    warm = warmup * total
    if step < warm:
        return (step + 1) / (warm + 1)
    left = min((total - step) / max(total - warm, 1), 1.0)
    return {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[schedule]
