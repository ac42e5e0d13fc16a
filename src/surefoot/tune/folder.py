"""The files of a run folder: the mark that says whose it is, the scores that are added to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from surefoot.errors import RunError, nearest
from surefoot.files import atomic_write, write_json
from surefoot.models.predict import Prediction
from surefoot.tune.identity import differences

#: Raised when the folder's layout changes; folders of another version are refused, not guessed at.
VERSION = 1
#: Written before anything else with `complete: false`, and last with `complete: true`.
MARK = "run.json"
CHECKPOINT = "checkpoint"


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The facts of a run, finished or not; None if there is none; RunError for one of another version."""
    path = folder / MARK
    try:
        facts = json.loads(path.read_text("utf8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}): delete the folder, or choose another") from error
    if not isinstance(facts, dict):
        raise RunError(f"{path}: holds no JSON object: delete the folder, or choose another")
    if facts.get("version") != VERSION:
        raise RunError(
            f"{folder}: a run of layout version {facts.get('version')}, and this surefoot reads {VERSION}: use the surefoot that made it, or tune again into another folder"
        )
    return facts


def claim(folder: Path, identity: Mapping[str, str], *, work: str = CHECKPOINT) -> bool:
    """Make the folder ours, or see that it is: True if the run in it is complete.

    work: the file whose presence says that something would be lost (a checkpoint, a search's journal).
    Raises RunError where it holds another run (and says what differs), or files that are no run's.
    """
    refuse_foreign(folder)
    facts = read_mark(folder) or {}
    # A training that failed before its first checkpoint left nothing that could be lost.
    if facts.get("complete") or (folder / work).exists():
        differing = differences(identity, facts.get("identity", {}))
        if differing:
            state = "another run" if facts.get("complete") else "another run, not finished"
            raise RunError(f"{folder}: holds {state} (it differs in {differing}): choose another folder, or delete it")
    if facts.get("complete"):
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}): choose a folder you can write to") from error
    write_json(folder / MARK, {"version": VERSION, "complete": False, "identity": dict(identity)})
    return False


def refuse_foreign(folder: Path) -> None:
    """A folder with somebody's files in it and no mark of ours is not ours to write into."""
    if folder.is_file():
        raise RunError(f"{folder}: is a file: choose a folder for the run")
    if not folder.is_dir() or read_mark(folder) is not None:
        return
    others = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    if others:
        raise RunError(f"{folder}: is not empty and holds no run ({others[0]}, ...): choose another folder")


def check_run(folder: Path) -> None:
    """Raise RunError for a folder that is not there, a run of another version, and one that was never finished."""
    if not folder.is_dir():
        hint = nearest(folder.name, [each.name for each in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
        raise RunError(f"{folder}: no such folder: {hint if hint.startswith('did') else 'check the path'}")
    facts = read_mark(folder)
    if facts is not None and not facts.get("complete"):
        raise RunError(f"{folder}: no complete run there: give the same command again, which resumes it")


def add_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add to metrics.json; a set of the same name is replaced, others stay."""
    path = folder / "metrics.json"
    known = json.loads(path.read_text("utf8")) if path.exists() else {}
    write_json(path, known | {name: each.as_json() for name, each in metrics.items()})


def add_predictions(folder: Path, predictions: Mapping[str, tuple[Prediction, np.ndarray]]) -> None:
    """Add logits and labels per set to predictions.parquet: split, row, label (a class index), logit_0, logit_1, ..."""
    path = folder / "predictions.parquet"
    parts = []
    if path.exists():
        known = pq.read_table(path)
        parts.append(known.filter(pc.invert(pc.is_in(known["split"], pa.array(list(predictions))))))
    for name, (prediction, labels) in predictions.items():
        count = len(prediction.logits)
        columns: dict[str, Any] = {"split": [name] * count, "row": np.arange(count), "label": labels}
        columns |= {f"logit_{c}": prediction.logits[:, c] for c in range(prediction.logits.shape[1])}
        parts.append(pa.table(columns))
    with atomic_write(path) as partial:
        pq.write_table(pa.concat_tables(parts), partial)
