"""Which model to make an embedding model of, how, and on how many tokens, for a given amount of computation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.assess.analysis import Analysis, Record, numbers
from surefoot.errors import DataError
from surefoot.registry import Paper, register
from surefoot.tune.objective import positive

#: Runs whose computation differs by less than this share are of one budget.
SAME = 0.1


@dataclass(frozen=True, eq=False)
class Choice(Record):
    """What to train: `method`, a model of `layers` blocks and `width`, of which `trained` blocks get gradients, on `tokens`;
    `loss`: what its line says. `lines`: by method log loss = intercept + slope log(computation), with R2 and the number of
    budgets. `changes`: computation from which another method is best, with the method, the first from 0 on."""

    method: str
    layers: int
    width: int
    trained: int
    tokens: float
    loss: float
    lines: dict[str, dict[str, float]]
    changes: list[dict[str, Any]]


def training_flops(*, tokens: Any, width: Any, layers: Any, trained: Any, exponent: float = 3.0) -> Any:
    """Computation of a training: C = N d^exponent (L + 2 l), one pass forwards through L blocks, two backwards through l.

    N: tokens, d: width, l: blocks with a backward pass, those above the lowest that trains. In units of the products that
    one block makes of a token; numbers or arrays. exponent: 3, as in the authors' code; 2 counts the products of a block
    whose matrices are d by d, and changes which of two widths is called cheap.

    >>> gpt2 = training_flops(tokens=1e9, width=768, layers=12, trained=12)
    >>> round(float(training_flops(tokens=1e9, width=768, layers=12, trained=0) / gpt2), 4)  # nothing trains: a third
    0.3333
    """
    return tokens * np.asarray(width, dtype=float) ** exponent * (layers + 2 * np.asarray(trained))


@register(
    "compute_optimal",
    kind="analysis",
    family="scaling",
    papers=[
        Paper(
            "Repurposing Language Models into Embedding Models: Finding the Compute-Optimal Recipe",
            "Ziarko et al.",
            2024,
            arxiv="2406.04165",
        )
    ],
)
class ComputeOptimal(Analysis):
    """The recipe for a budget: log loss = a_m + b_m log C for each method m, and the lowest line at the budget's C.

    Call with runs that were made, F of them: `method` (F,) names (full, lora, frozen, bias, ...), `layers`, `width`, `trained`,
    `tokens` and `loss` (F,), and `budget`: C, in the units of `training_flops`. A method's line is fitted by least squares to
    its best run of each budget (runs whose C differ by less than 10%), as the paper draws it. Which model: the width
    of those best runs grows with C by a power law, log d = p + q log C, and of the models in the table that the method was
    used on, the one nearest to it is taken; its tokens are what the budget then pays for. Gives a `Choice`.

    The paper fits a loss in size and tokens too, in a form that could not be verified; it is not here. A budget beyond those
    of the runs is a forecast, and further out less and less of one.

    exponent: of the width in C, 3 (see `training_flops`). Raises RecipeError for one that is not above 0, DataError for a
    budget that is not above 0, runs that do not fit together, or no method with runs at two budgets. Reference: Ziarko et
    al. 2024, and its code (`flops_multiplier.py`).
    """

    def __init__(self, *, exponent: float = 3.0) -> None:
        self.exponent = positive("exponent", exponent)

    def __call__(  # type: ignore[override]
        self, *, method: Any, layers: Any, width: Any, trained: Any, tokens: Any, loss: Any, budget: float
    ) -> Choice:
        names = np.asarray(method).astype(str)
        columns = {"layers": layers, "width": width, "trained": trained, "tokens": tokens, "loss": loss}
        runs = {
            name: numbers(name, each, dimensions=1, low=0.0 if name == "trained" else 1e-12)
            for name, each in columns.items()
        }
        if {len(each) for each in runs.values()} != {len(names)}:
            raise DataError(f"{len(names)} methods and other numbers of runs: give one value of each for every run")
        if not np.isfinite(budget) or budget <= 0:
            raise DataError(
                f"budget {budget}: computation is above zero: give tokens * width^{self.exponent:g} * blocks"
            )
        spent = training_flops(
            **{name: runs[name] for name in ("tokens", "width", "layers", "trained")}, exponent=self.exponent
        )
        best = {name: _best(spent, runs["loss"], names == name) for name in np.unique(names).tolist()}
        best = {name: rows for name, rows in best.items() if len(rows) > 1}
        if not best:
            raise DataError("no method was run at two budgets: a line takes two")
        lines = {name: _line(np.log(spent[rows]), np.log(runs["loss"][rows])) for name, rows in best.items()}
        chosen = min(lines, key=lambda name: _at(lines[name], budget))
        row = self._model(spent, runs, best[chosen], np.flatnonzero(names == chosen), budget)
        size = {name: int(runs[name][row]) for name in ("layers", "width", "trained")}
        paid = budget / float(training_flops(tokens=1.0, **size, exponent=self.exponent))
        return Choice(
            method=chosen, **size, tokens=paid, loss=float(np.exp(_at(lines[chosen], budget))), lines=lines,
            changes=_envelope(lines),
        )  # fmt: skip

    @staticmethod
    def _model(
        spent: np.ndarray, runs: dict[str, np.ndarray], best: np.ndarray, tried: np.ndarray, budget: float
    ) -> int:
        """The run whose model is nearest to the width that the best runs lead to."""
        line = _line(np.log(spent[best]), np.log(runs["width"][best]))
        distance = np.abs(np.log(runs["width"][tried]) - _at(line, budget))
        nearest = tried[distance <= distance.min() + 1e-9]
        # Of one width there may be models of several depths, or depths that train: the one that did best for its budget.
        among = np.intersect1d(nearest, best)
        among = among if len(among) else nearest
        return int(among[np.abs(np.log(spent[among] / budget)).argmin()])


def _best(spent: np.ndarray, loss: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The run of least loss at each budget."""
    order = np.flatnonzero(where)[np.argsort(spent[where], kind="stable")]
    cuts = np.flatnonzero(np.diff(np.log(spent[order])) > np.log1p(SAME)) + 1
    return np.array([rows[loss[rows].argmin()] for rows in np.split(order, cuts)])


def _line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    slope, intercept = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - slope * x - intercept) ** 2).sum())
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r2": 1 - left / spread if spread > 0 else 1.0,
        "budgets": float(len(x)),
    }


def _at(line: dict[str, float], budget: float) -> float:
    return line["intercept"] + line["slope"] * float(np.log(budget))


def _envelope(lines: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Which method is lowest from which computation on, from 0: the lower envelope of lines is concave in log C, so the
    steepest fall wins in the end."""
    name = max(lines, key=lambda each: (lines[each]["slope"], -lines[each]["intercept"]))
    found: list[dict[str, Any]] = [{"from": 0.0, "method": name}]
    reached = -np.inf
    while True:
        current = lines[name]
        crossings = {
            other: (line["intercept"] - current["intercept"]) / (current["slope"] - line["slope"])
            for other, line in lines.items()
            if line["slope"] < current["slope"]
        }
        later = {other: place for other, place in crossings.items() if place >= reached}
        if not later:
            return found
        name = min(later, key=lambda other: (later[other], lines[other]["slope"]))
        reached = later[name]
        found.append({"from": float(np.exp(reached)), "method": name})
