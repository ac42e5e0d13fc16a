"""The learning-rate range test: one short training whose rate rises until the loss diverges.

Smith 2018, "A disciplined approach to neural network hyper-parameters: Part 1 -- learning rate, batch size, momentum,
and weight decay", after Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.data.examples import Examples
from surefoot.errors import RecipeError, SurefootError
from surefoot.models.batching import epoch_steps
from surefoot.models.model import Model
from surefoot.progress import Progress
from surefoot.tune.fit import Fit
from surefoot.tune.objective import positive
from surefoot.tune.recipe import Recipe

#: Weight of what went before in the running mean of the losses, and how many times its least it may become before the
#: test is over: fastai's `lr_find`.
MEMORY, DIVERGED = 0.98, 4.0
#: Share of the steps at the beginning that say nothing yet: the running mean is of a few batches.
UNSETTLED = 0.1
#: Fewest steps that make a curve.
LEAST = 10


@dataclass(frozen=True)
class LRRange:
    """What the test found.

    rates, losses, smoothed: (S,) learning rate, loss and running mean of the loss, step by step. lowest: the rate at
    which the running mean is least, the most that a cycle should rise to. steepest: the rate at which it falls fastest
    by the logarithm of the rate. suggestion: a tenth of `lowest`, fastai's rule, for schedules that only sink.
    diverged: whether the loss blew up before the highest rate was reached; if not, higher rates may serve too.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    lowest: float
    steepest: float
    diverged: bool

    @property
    def suggestion(self) -> float:
        return self.lowest / 10

    def as_json(self) -> dict[str, Any]:
        curve = {name: getattr(self, name).tolist() for name in ("rates", "losses", "smoothed")}
        points = {name: getattr(self, name) for name in ("suggestion", "lowest", "steepest")}
        return {**points, "diverged": self.diverged, **curve}


def lr_range(
    recipe: Recipe,
    model: Model,
    train: Examples,
    *,
    low: float = 1e-7,
    high: float = 1.0,
    steps: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> LRRange:
    """Train a copy of `model` for so many steps while the learning rate rises from `low` to `high`; see `LRRange`.

    lr_t = low (high / low)^(t / (steps - 1));  m_t = (1 - MEMORY) sum_s MEMORY^(t - s) l_s / (1 - MEMORY^(t + 1))

    Everything but the rate, its schedule and the number of epochs is the recipe's; what its optimizer's groups have as
    rates keep their proportions. `model` is not changed. The rate rises exponentially, as fastai's does (Smith's rose
    linearly, over a range that had to be known). The test ends early where m_t is 4 times its least, or not finite.
    Defaults: fastai's 1e-7 and 100 steps; its 10 as the highest is more than any encoder bears.
    Raises RecipeError for a range or a number of steps that makes no curve.
    """
    low, high = positive("low", low), positive("high", high)
    if high <= low:
        raise RecipeError(f"`high` is {high:g} and `low` is {low:g}: the rate has to rise, give a higher `high`")
    if steps < LEAST:
        raise RecipeError(f"`steps` is {steps}: give at least {LEAST}, or there is no curve")
    fields = {"epochs": steps / epoch_steps(len(train), recipe.batch_size), "schedule": "constant", "warmup": 0.0}
    rising = _Rising(
        recipe.changed(**fields, after=[], name="learning rates"), model, train, seed=seed, progress=progress
    )
    rising.sweep(low, high)
    return read_curve(rising.rates[: len(rising.history.losses)], rising.history.losses, diverged=rising.diverged)


def read_curve(rates: Any, losses: Any, *, diverged: bool = False) -> LRRange:
    """The points of a curve of losses (S,) over rates (S,), the first tenth apart; SurefootError if too few are finite.

    >>> rates = np.geomspace(1e-4, 1, 100)
    >>> found = read_curve(rates, 1 + np.log10(rates / 0.01) ** 2)  # a valley with its lowest point at 0.01
    >>> bool(0.01 < found.lowest < 0.07)  # a running mean is behind
    True
    """
    rates, losses = np.asarray(rates, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if len(losses) < LEAST:
        raise SurefootError(
            f"the loss diverged within {len(losses)} steps, at a learning rate of {rates[-1] if len(rates) else math.nan:.1e}: begin lower (`low`)"
        )
    smoothed = _running(losses)
    first = math.ceil(UNSETTLED * len(losses))
    settled = smoothed[first:]
    slope = np.gradient(settled, np.log(rates[first:]))
    least = int(settled.argmin())
    # Where it falls fastest on the way down to its lowest point, not in a dip after it.
    steepest = int(slope[: max(least, 1)].argmin())
    return LRRange(rates, losses, smoothed, float(rates[first + least]), float(rates[first + steepest]), diverged)


def _running(losses: np.ndarray) -> np.ndarray:
    found, mean = np.empty(len(losses)), 0.0
    for step, loss in enumerate(losses):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        found[step] = mean / (1 - MEMORY ** (step + 1))
    return found


class _Diverged(Exception):
    """The loss is far above its least: higher rates need not be tried."""


class _Rising(Fit):
    """A training whose learning rate rises with every step."""

    rates: np.ndarray
    diverged = False

    def sweep(self, low: float, high: float) -> None:
        self.rates = np.geomspace(low, high, self.total)
        self.proportions = [rate / self.base_rates[0] for rate in self.base_rates]
        try:
            self.run()
        except _Diverged:
            self.diverged = True
        except SurefootError:  # a loss that is not finite; anything else would have come before the first step
            if not self.history.losses:
                raise
            self.diverged = True
        self.history.losses = [loss for loss in self.history.losses if math.isfinite(loss)]

    def before_step(self) -> None:
        losses = self.history.losses
        if len(losses) > LEAST:
            smoothed = _running(np.asarray(losses))
            if not smoothed[-1] <= DIVERGED * max(smoothed.min(), 1e-12):
                raise _Diverged
        super().before_step()  # what the selection moves; the rate is set anew below
        rate = self.rates[self.history.steps]
        for group, proportion in zip(self.optimizer.param_groups, self.proportions, strict=True):
            group["lr"] = rate * proportion
