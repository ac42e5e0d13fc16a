"""An adapter over a stream, beside the frozen model: what both answer, and which of them to believe without labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from surefoot.adapt.adapter import Diverged, Home, TestTimeAdapter, batch_of, consecutive
from surefoot.adapt.collapse import CollapseMonitor
from surefoot.assess.forecast import Forecast, forecast
from surefoot.data.examples import Examples
from surefoot.errors import DataError
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs
from surefoot.models.processor import Encoded
from surefoot.progress import Progress, Silent
from surefoot.tune.step import Output

#: Of home examples that an adapter learns from, the share kept apart for the forecast.
HELD = 0.5
#: Home examples that a forecast is made from, at most.
MOST = 1000


@dataclass(frozen=True)
class Family:
    """Other models that have seen home and the stream: what a line of agreements is drawn through.

    home: logits (F, N, C) of the members on held-out home examples with `labels` (N,), `frozen` (N, C) those of the frozen
    model; stream: (F, M, C) on the stream's rows `rows` (M,).
    """

    labels: np.ndarray
    home: np.ndarray
    frozen: np.ndarray
    stream: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """What can be said without labels: forecasts of both, and whether the adapter's is the lower one.

    harms: None where nothing can be said; `why` is one sentence.
    """

    frozen: Forecast | None
    adapted: Forecast | None
    harms: bool | None
    why: str


@dataclass(frozen=True)
class Adapted:
    """Logits (N, C) of the frozen model and of the adapter in the order of the stream, and which of them is the answer.

    collapsed: the row from which on adaptation was stopped, the frozen model answering instead, or None. kept: "adapted" or
    "frozen".
    """

    frozen: np.ndarray
    adapted: np.ndarray
    kept: Literal["adapted", "frozen"]
    collapsed: int | None
    verdict: Verdict
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def logits(self) -> np.ndarray:
        """(N, C) of the answer."""
        return self.adapted if self.kept == "adapted" else self.frozen


def adapt(
    model: Model,
    examples: Examples,
    adapter: TestTimeAdapter,
    *,
    home: Examples | None = None,
    family: Family | None = None,
    batch_size: int = 64,
    no_harm: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Adapted:
    """Run the adapter over the examples in their order; labels, if there are any, are not looked at.

    home: labelled examples from home that nothing was trained on. The adapter goes over them as over a stream, and the
    forecast compares its accuracy there, which is known, with its scores here. Of an adapter that learns from home, half
    of them are kept apart for that. family: in place of it, a search's members, and how they agree.
    no_harm: where the adapter's forecast is the lower one the frozen model's answers are kept, and the adapter is reset.
    Collapse (see `collapse.py`) stops it at once in either case: from there on the frozen model answers.

    Raises DataError for data that cannot serve, ModelError for a model with nothing to adapt. All is computed in float32.
    """
    if batch_size < 1:
        raise DataError(f"batches of {batch_size} examples: take one or more")
    encoded = encode_inputs(model, examples.inputs, examples.modality, source=examples.source)
    held, learned = _parts(model, adapter, home, seed)
    adapter.begin(model, home=learned, seed=seed)
    advance = (progress or Silent()).start(f"{adapter.name}: stream", len(examples))
    frozen, adapted, collapsed = _through(model, adapter, encoded, batch_size, advance)
    at_home = None
    if held is not None:
        advance = (progress or Silent()).start(f"{adapter.name}: home", len(held))
        adapter.reset()
        at_home = _through(model, adapter, held.encoded, batch_size, advance)
    found = _verdict(adapted, frozen, held, at_home, family)
    kept: Literal["adapted", "frozen"] = "frozen" if no_harm and found.harms else "adapted"
    adapter.reset()
    return Adapted(frozen, adapted, kept, collapsed, found)


def _parts(model: Model, adapter: TestTimeAdapter, home: Examples | None, seed: int) -> tuple[Home | None, Home | None]:
    """Home examples for the forecast, and for the adapter to learn from."""
    if home is None:
        return None, None
    if home.labels is None:
        raise DataError(f"{home.source}: home examples need labels; add a column `label`")
    order = np.random.default_rng([seed, 7]).permutation(len(home))
    if adapter.home == "unused":
        return Home.of(model, home.take(np.sort(order[:MOST]))), None
    cut = max(1, round(HELD * len(home)))
    if len(home) < 2:
        raise DataError(f"{home.source}: {len(home)} home examples: give some hundred")
    return Home.of(model, home.take(np.sort(order[:cut][:MOST]))), Home.of(model, home.take(np.sort(order[cut:])))


def _through(
    model: Model, adapter: TestTimeAdapter, encoded: Encoded, size: int, advance: Any
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Logits (N, C) of the frozen model and the adapter, and the row where it collapsed."""
    frozen, adapted, monitor, collapsed = [], [], CollapseMonitor(), None
    for index in consecutive(len(encoded.lengths), size):
        batch = batch_of(model, encoded, index)
        output = _frozen(model, batch)
        frozen.append(output.logits.cpu().numpy())
        if collapsed is None:
            try:
                answer = adapter.answer(batch, frozen=output).logits.cpu().numpy()
                fallen = monitor.see(answer, frozen[-1])
            except Diverged:
                fallen, answer = True, frozen[-1]
            if fallen:
                collapsed = max(0, int(index[-1]) + 1 - max(monitor.window, len(index)))
                adapter.reset()
        adapted.append(frozen[-1] if collapsed is not None else answer)
        advance(len(index))
    before, after = np.concatenate(frozen), np.concatenate(adapted)
    if collapsed is not None:
        after[collapsed:] = before[collapsed:]
    return before, after, collapsed


@torch.no_grad()
def _frozen(model: Model, batch: Any) -> Output:
    from surefoot.adapt.adapter import check_batch

    check_batch(batch)
    output: Output = model(batch)
    logits = output.logits.cpu().numpy()
    if not np.isfinite(logits).all():
        row = int(batch.index[int(np.flatnonzero(~np.isfinite(logits).all(1))[0])]) + 1
        raise DataError(
            f"row {row} of the stream: the model's answer is not finite; look at that row, or at the weights"
        )
    return output


def _verdict(
    adapted: np.ndarray,
    frozen: np.ndarray,
    held: Home | None,
    at_home: tuple[np.ndarray, np.ndarray, int | None] | None,
    family: Family | None,
) -> Verdict:
    """Whether the adapter is worse than the frozen model, as far as scores can tell."""
    if np.array_equal(adapted.argmax(1), frozen.argmax(1)):
        return Verdict(None, None, False, "both give every example the same class")
    if held is not None and at_home is not None:
        home, stream = np.stack([at_home[0], at_home[1]]), np.stack([frozen, adapted])
        first, second = (forecast(home, held.labels, stream, member) for member in (0, 1))
    elif family is not None:
        said = _by_family(adapted, frozen, family)
        if isinstance(said, Verdict):
            return said
        first, second = said
    else:
        return Verdict(None, None, None, "there is nothing to forecast from: give labelled home examples (--home FILE)")
    worse = second.value < first.value
    than = "lower than" if worse else "not lower than"
    by = {"aline_d": "agreement on the line", "mean_of_single": "confidence at home and here"}.get(
        second.method, second.method
    )
    return Verdict(first, second, worse, f"by {by} its accuracy is {than} the frozen model's")


def _by_family(adapted: np.ndarray, frozen: np.ndarray, family: Family) -> tuple[Forecast, Forecast] | Verdict:
    """Forecasts of both from the line through a search's members; or that there is none.

    Whether there is a line is asked of the members and the frozen model. What adapting does at home is not known here:
    there the frozen model's answers stand for the adapter's, whose pairs on the stream then place it by ALine-D.
    """
    home = np.concatenate([family.home, family.frozen[None], family.frozen[None]])
    stream = np.concatenate([family.stream, frozen[None, family.rows], adapted[None, family.rows]])
    count = len(family.home)
    first = forecast(home[:-1], family.labels, stream[:-1], count)
    if first.method != "aline_d":
        why = f"the search's members do not show it ({first.note}): give labelled home examples (--home FILE)"
        return Verdict(first, None, None, why)
    second = forecast(home, family.labels, stream, count + 1)
    line = second.estimates["aline_d"]
    return first, replace(second, value=line.value, low=line.low, high=line.high, method="aline_d", note=None)
