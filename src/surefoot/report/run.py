"""The report of a run folder, from what is written there and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surefoot.errors import RunError
from surefoot.files import write_json
from surefoot.report.embedding import is_embedding, write_embedding_report
from surefoot.report.findings import read_findings
from surefoot.report.search import write_report
from surefoot.tune.folder import MARK, check_run, read_mark

#: The page, and baselines that were trained apart from the search, with what else the page was told.
REPORT, BESIDE = "report.html", "beside.json"


def report_run(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    baselines: Mapping[str, Any] | None = None,
    home: str | None = None,
    examples: bool = True,
) -> Path:
    """Write the page of a finished search or training; returns its path.

    out: by default `report.html` in the folder. baselines, home: see `write_report`; they are kept in `beside.json`, so
    that the page can be written again. examples: whether the page shows examples lost and won. Raises RunError for a
    folder that holds no finished run, or a file of it that cannot be read.
    """
    folder = Path(folder)
    check_run(folder)
    mark = read_mark(folder)
    if mark is None:
        raise RunError(f"{folder}: no run in it: no {MARK}; give the folder that `surefoot tune --out` wrote")
    if baselines or home:
        write_json(folder / BESIDE, {"baselines": baselines or {}, "home": home})
    beside = _json(folder / BESIDE)
    found = _json(folder / "search.json") or {"run": str(folder)}
    found.setdefault("metrics", {})
    found["metrics"] = _json(folder / "metrics.json") | found["metrics"]
    why = _json(folder / "why.json")
    said = [*(found.get("notes") or []), *mark.get("history", {}).get("notes", [])]
    found["notes"] = list(dict.fromkeys(map(str, said)))
    if _of_another(why, found):
        found["notes"] = [
            *found["notes"],
            "why.json is of another answer than search.json: give the same tune command again to have what it explains",
        ]
        why = {}
    if not examples and isinstance(why.get("changes"), dict):
        why["changes"] = {key: value for key, value in why["changes"].items() if key not in ("won", "lost")}
    found |= {"why": why, "compare": _json(folder / "compare.json"), "run": str(folder)}
    found["findings"] = read_findings(folder)
    shared: dict[str, Any] = {
        "title": "Why this model" if found.get("answer") else "How good this model is",
        "files": {name: _text(folder / name) for name in ("recipe.yaml", "plan.yaml")},
        "environment": _json(folder / "environment.json"),
    }
    if is_embedding(found):
        return write_embedding_report(out or folder / REPORT, found, **shared)
    return write_report(
        out or folder / REPORT,
        found,
        baselines=beside.get("baselines"),
        classes=found.get("classes") or _json(folder / "model" / "surefoot.json").get("classes"),
        home=beside.get("home"),
        **shared,
    )


def _of_another(why: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    answer = found.get("answer") or {}
    return "candidate" in why and (why["candidate"], why.get("trials")) != (
        answer.get("candidate"),
        found.get("trials"),
    )


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    if not text:
        return {}
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}): give the same `tune` command again") from error
    return facts if isinstance(facts, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error}): give the same `tune` command again") from error
