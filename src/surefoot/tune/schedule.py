"""Schedules of the learning rate, and of the momentum where a schedule moves it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

#: 1cycle's start over its highest rate, and its end over its start: torch's defaults. Smith has 1/10 to 1/20, and an
#: end "several orders of magnitude" below.
START, END = 1 / 25, 1e-4
#: Momentum where the rate is highest and where it is lowest: Smith's, and torch's defaults.
LEAST_MOMENTUM, MOST_MOMENTUM = 0.85, 0.95
#: Share of the steps in which the rate rises where no warm-up is given: the cycle of the paper takes 90% of the
#: training, so that half of it rises; torch's default for the cosine form.
RISE = {"one_cycle": 0.45, "one_cycle_cosine": 0.3}


def rate_factor(schedule: str, step: int, total: int, *, warmup: float = 0.0) -> float:
    """What the learning rate is multiplied by at `step` of `total`, counted from 0.

    For the first w = warmup * total steps (step + 1) / (w + 1), rising linearly; after it, with r = (total - step) /
    (total - w) falling from 1: `linear` r, `cosine` (1 - cos(pi r)) / 2, `constant` 1.

    `one_cycle` (Smith 2018): 1/25 to 1 and back to 1/25, both in w steps, then to 1/250,000, each time linearly.
    `one_cycle_cosine` (fastai, torch): 1/25 to 1 in w steps, then to 1/250,000, each time on a cosine. For these two
    warmup 0 stands for 0.45 and 0.3.

    >>> [rate_factor("linear", step, 4) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    >>> [round(rate_factor("cosine", step, 4, warmup=0.5), 3) for step in range(4)]
    [0.333, 0.667, 1.0, 0.5]
    >>> [round(rate_factor("one_cycle", step, 10, warmup=0.5), 2) for step in range(10)]
    [0.04, 0.28, 0.52, 0.76, 1.0, 0.76, 0.52, 0.28, 0.04, 0.0]
    """
    if schedule in RISE:
        middle = [START] if schedule == "one_cycle" else []
        return _cycle(schedule, step, total, warmup, [START, 1.0, *middle, START * END])
    warm = warmup * total
    if step < warm:
        return (step + 1) / (warm + 1)
    left = min((total - step) / max(total - warm, 1), 1.0)
    return {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[schedule]


def momentum_at(schedule: str, step: int, total: int, *, warmup: float = 0.0) -> float | None:
    """SGD's momentum, or Adam's first beta, at `step` of `total`; None for schedules that leave it alone.

    In 1cycle 0.95 to 0.85 while the rate rises, and back while it falls.

    >>> [round(momentum_at("one_cycle", step, 10, warmup=0.5), 3) for step in (0, 4, 8, 9)]
    [0.95, 0.85, 0.95, 0.95]
    """
    if schedule not in RISE:
        return None
    middle = [MOST_MOMENTUM] if schedule == "one_cycle" else []
    return _cycle(schedule, step, total, warmup, [MOST_MOMENTUM, LEAST_MOMENTUM, *middle, MOST_MOMENTUM])


def set_rates(
    groups: Iterable[dict[str, Any]], rates: Sequence[float], schedule: str, step: int, total: int, *, warmup: float
) -> None:
    """Write the rate of this step, from each group's own `rates`, and the momentum into an optimizer's groups.

    Momentum that is 0 (plain SGD) stays 0, and optimizers that have none keep none.
    """
    factor = rate_factor(schedule, step, total, warmup=warmup)
    momentum = momentum_at(schedule, step, total, warmup=warmup)
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate * factor
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif group.get("momentum"):
            group["momentum"] = momentum


def _cycle(schedule: str, step: int, total: int, warmup: float, values: Sequence[float]) -> float:
    """From value to value, a phase for each pair, at `step`; phases too short to hold a step are passed over."""
    rise = (warmup or RISE[schedule]) * total
    ends = [rise - 1, 2 * rise - 2, total - 1] if schedule == "one_cycle" else [rise - 1, total - 1]
    start = 0.0
    for number, end in enumerate(ends):
        last = number == len(ends) - 1
        if end > start and (step <= end or last):
            share = (step - start) / (end - start)
            low, high = values[number], values[number + 1]
            if schedule == "one_cycle":
                return low + (high - low) * share
            return high + (low - high) / 2 * (1 + math.cos(math.pi * share))
        start = max(start, end)
    return values[-1]
