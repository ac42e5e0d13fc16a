"""Warm start: what an earlier search found best is drawn first in this one, and judged anew.

Only draws carry over, not scores: those are another judge's, or another training set's, and the sampler would take them
for its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.errors import RunError

#: Draws that are taken over.
MOST = 4
#: The facts of a search, as `keep.py` writes them into its folder.
SEARCH = "search.json"


def best_draws(run: str | Path, *, most: int = MOST) -> list[dict[str, Any]]:
    """The parameters of the best `most` complete drawn trials of the search in that run folder, the best first.

    Raises RunError if there is no finished search in the folder, or none of its trials was drawn.
    """
    path = Path(run) / SEARCH
    try:
        board = json.loads(path.read_text(encoding="utf-8"))["leaderboard"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(
            f"{run}: no finished search to start from: give the run folder of a `surefoot tune` with a judge"
        ) from None
    drawn = [each for each in board if each["state"] == "complete" and each["params"] and each["value"] is not None]
    if not drawn:
        raise RunError(f"{run}: none of its {len(board)} trials was drawn: it ran too few to start another from")
    best = sorted((each for each in drawn if math.isfinite(each["value"])), key=lambda each: each["value"])
    return [dict(each["params"]) for each in best[:most]]


class _Unfit(Exception):
    """A draw lies outside this search's space."""


class _Replay:
    """Stands for an Optuna trial that has been drawn: gives what was, and remembers it."""

    number = 0

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params, self.used = params, dict[str, Any]()

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(self._take(name, low, lambda value: isinstance(value, int | float) and low <= value <= high))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._take(name, low, lambda value: isinstance(value, int) and low <= value <= high))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, choices[0], lambda value: value in choices)

    def _take(self, name: str, otherwise: Any, fits: Callable[[Any], bool]) -> Any:
        if name not in self.params:
            return otherwise  # this search draws it
        value = self.params[name]
        if not fits(value):
            raise _Unfit
        self.used[name] = value
        return value


def fitting(draws: Sequence[Mapping[str, Any]], propose: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Of each draw what this search's `propose` asks for; draws that lie outside its space are left out."""
    found = []
    for params in draws:
        replay = _Replay(params)
        try:
            propose(replay)
        except _Unfit:
            continue
        if replay.used:
            found.append(replay.used)
    return found
