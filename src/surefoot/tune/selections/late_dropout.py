"""Late dropout: dropout in the last part of the training alone."""

from __future__ import annotations

from surefoot.registry import register
from surefoot.tune.objective import Space, fraction
from surefoot.tune.selections.early_dropout import PAPER, ScheduledDropout


@register("late_dropout", kind="selection", family="regularised", papers=[PAPER])
class LateDropout(ScheduledDropout):
    """No dropout at first and then a constant rate, for models that overfit.

    p_t = 0 in step t < n = since * steps, and p after that.

    What it acts on is what `early_dropout` acts on. p: 0.1, the rate of the paper's dropout (its late experiments have
    stochastic depth of 0.4, which is not here); 0 is training without dropout. since: a fraction of the training, 1/6,
    the paper's 50 of 300 epochs. layers: only the so many top blocks train, as in `top_layers`; None for everything.
    Raises RecipeError for other values. Reference: Liu et al. 2023; facebookresearch/dropout.

    >>> [LateDropout(p=0.2, since=0.5).rate(step, 4) for step in range(4)]
    [0.0, 0.0, 0.2, 0.2]
    """

    def __init__(self, *, p: float = 0.1, since: float = 1 / 6, layers: int | None = None) -> None:
        super().__init__(layers=layers)
        self.p = fraction("p", p)
        self.since = fraction("since", since)

    def rate(self, step: int, steps: int) -> float:
        return self.p if step >= round(self.since * steps) else 0.0

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"p": Space(0.02, 0.5, log=True), "since": Space(0.05, 0.5)}

    def __repr__(self) -> str:
        return f"LateDropout(p={self.p}, since={self.since:.3g}, layers={self.layers})"
