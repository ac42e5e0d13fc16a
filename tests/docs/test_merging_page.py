"""The tables of docs/merge.md: as the benchmark has them, and by hand."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def merging_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "merging_page", raising=False)
    return importlib.import_module("merging_page")


def test_speed_is_shown_as_it_was_measured(merging_page: ModuleType) -> None:
    assert merging_page.speed() in (ROOT / "docs" / "merge.md").read_text("utf8"), "make readme"


def test_the_gap_to_models_of_their_own(
    merging_page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of one method: means, the gap and the interval, computed by hand."""

    def run(merged: float, own: float) -> dict[str, float]:
        found = {f"accuracy/{name}": merged for name in merging_page.TASKS}
        return {**found, **{f"own/{name}": own for name in merging_page.TASKS}, "accuracy": merged, "own": own}

    effect = {"track": "tasks", "difference": 0.03, "low": -0.01, "high": 0.07, "verdict": "no effect seen"}
    seeds = [{"with": run(0.6, 0.8), "without": run(0.5, 0.8)}, {"with": run(0.7, 0.9), "without": run(0.7, 0.9)}]
    facts = {"name": "adamerging", "effect": effect, "arm": {}, "against": {"merge": {"name": "task_arithmetic"}}}
    folder = tmp_path / "evidence" / "results"
    folder.mkdir(parents=True)
    (folder / "merge-adamerging.json").write_text(json.dumps(facts | {"per_seed": seeds}))
    monkeypatch.setattr(merging_page, "ROOT", tmp_path)
    rows = merging_page.tasks().splitlines()
    assert rows[2] == "| each task's own model | 85.0 | 85.0 | 85.0 | 85.0 | 85.0 | +0.0 |"
    assert rows[3] == "| adamerging | 65.0 | 65.0 | 65.0 | 65.0 | 65.0 | -20.0 |"
    assert rows[4] == "| task_arithmetic | 60.0 | 60.0 | 60.0 | 60.0 | 60.0 | -25.0 |"
    assert "adamerging over task_arithmetic +3.0 [-1.0, +7.0]" in rows[-1]
