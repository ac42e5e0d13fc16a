"""Rows of the table in the documentation: claim, mechanism, effect with its interval, cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from surefoot.evidence.results import read_result
from surefoot.registry import methods


def rows(*, folder: Path | None = None) -> list[dict[str, Any]]:
    """One row for each registered method, sorted by kind and name; what has not been measured is None.

    `kind`, `name`, `papers` (title, authors, year, url), `claim` (in the paper's words, shortened), `mechanism`
    (`quantity`, `with`, `without`, `verdict`), `effect` (`track`, `metric`, `higher_is_better`, `difference`, `low`, `high`,
    `verdict`, `seeds`: their number) or None, `no_track` (why no track can show the claim) or None, `cost_ratio` (of computing
    time, against the baseline) or None, `settings` and `measured` (whether there is a result).
    """
    return [_row(method, folder) for method in methods()]


def _row(method: Any, folder: Path | None) -> dict[str, Any]:
    result = read_result(method.kind, method.name, folder=folder) or {}
    mechanism, effect = result.get("mechanism"), result.get("effect")
    return {
        "kind": method.kind,
        "name": method.name,
        "papers": method.as_json()["papers"],
        "claim": result.get("claim"),
        "settings": result.get("settings"),
        "mechanism": mechanism and {key: mechanism[key] for key in ("quantity", "with", "without", "verdict")},
        "effect": effect
        and {
            key: effect[key] for key in ("track", "metric", "higher_is_better", "difference", "low", "high", "verdict")
        }
        | {"seeds": len(effect["seeds"])},
        "no_track": result.get("no_track"),
        "cost_ratio": result.get("cost_ratio"),
        "measured": bool(result),
    }


def held(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of how many methods what is claimed was seen, with 95% Wilson intervals over methods; `found`: rows or results.

    `mechanism`: of those with one, the share whose quantity moves as it should beyond its interval. `direction`: of those
    with a track, the share whose mean effect has the sign that is claimed. `effect`: the share that helps beyond the
    interval; `harms`: that harms beyond it. Each has `methods`, `count`, `share`, `low`, `high`.
    """
    moved = [row["mechanism"]["verdict"] for row in found if row["mechanism"]]
    effects = [row["effect"] for row in found if row["effect"]]
    counted = {
        "mechanism": (sum(verdict == "as it should" for verdict in moved), len(moved)),
        "direction": (sum(_towards(effect) for effect in effects), len(effects)),
        "effect": (sum(effect["verdict"] == "helps" for effect in effects), len(effects)),
        "harms": (sum(effect["verdict"] == "harms" for effect in effects), len(effects)),
    }
    return {name: _share(*each) for name, each in counted.items() if each[1]}


def _towards(effect: dict[str, Any]) -> bool:
    better = effect["difference"] if effect["higher_is_better"] else -effect["difference"]
    return bool(better > 0)


def _share(count: int, methods: int) -> dict[str, Any]:
    ends = binomtest(count, methods).proportion_ci(method="wilson")
    return {"methods": methods, "count": count, "share": count / methods, "low": ends.low, "high": ends.high}


def share_text(each: dict[str, Any]) -> str:
    """A share as it is printed.

    >>> share_text(_share(30, 40))
    '30 of 40 (75% [60%, 86%])'
    """
    return f"{each['count']} of {each['methods']} ({each['share']:.0%} [{each['low']:.0%}, {each['high']:.0%}])"


def verdicts(kind: str, name: str, *, folder: Path | None = None) -> dict[str, Any] | None:
    """The short form that `surefoot methods --json` shows; None where nothing has been measured."""
    result = read_result(kind, name, folder=folder)
    if result is None:
        return None
    mechanism, effect = result["mechanism"], result["effect"]
    return {
        "mechanism": mechanism and mechanism["verdict"],
        "effect": effect["verdict"] if effect else "no suitable track",
        "track": effect and effect["track"],
        "difference": effect and [effect[key] for key in ("difference", "low", "high")],
        "cost_ratio": result["cost_ratio"],
    }
