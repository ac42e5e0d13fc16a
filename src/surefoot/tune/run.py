"""A run is a folder: recipe, model, predictions, metrics, environment; resumable until `run.json` says it is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surefoot.assess.metrics import Metrics, evaluate_logits
from surefoot.data.examples import Examples
from surefoot.environment import environment
from surefoot.errors import RunError, nearest
from surefoot.files import atomic_write, write_json, write_text
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.models.predict import Prediction, encode_inputs, predict
from surefoot.models.save import save
from surefoot.progress import Progress, Silent
from surefoot.tune.checkpoint import Checkpoint
from surefoot.tune.fit import Fit, History
from surefoot.tune.recipe import Recipe

#: Raised when the folder's layout changes; folders of another version are refused, not guessed at.
VERSION = 1
MARK = "run.json"


@dataclass
class Run:
    """A trained model with the recipe that made it and what it scored."""

    model: Model
    recipe: Recipe
    history: History = field(default_factory=History)
    folder: Path | None = None
    metrics: dict[str, Metrics] = field(default_factory=dict)
    predictions: dict[str, Prediction] = field(default_factory=dict)

    def evaluate(self, tests: Mapping[str, Examples], *, progress: Progress | None = None) -> dict[str, Metrics]:
        """Metrics per test set; with a folder, also written to metrics.json and predictions.parquet."""
        for name, examples in tests.items():
            self.predictions[name], self.metrics[name] = evaluate(
                self.model, examples, max_length=self.recipe.max_length, progress=progress, label=name
            )
        if self.folder is not None:
            _write_predictions(self.folder, self.predictions, tests)
            write_json(
                self.folder / "metrics.json", {name: metrics.as_json() for name, metrics in self.metrics.items()}
            )
        return {name: self.metrics[name] for name in tests}

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Open a complete run folder."""
        folder = Path(folder)
        check_run(folder)
        if read_mark(folder) is None:
            raise RunError(f"{folder}: no complete run there: give the folder that `surefoot tune --out` wrote")
        return cls(model=load(folder), recipe=Recipe.load(folder / "recipe.yaml"), folder=folder)


def evaluate(
    model: Model,
    examples: Examples,
    *,
    max_length: int | None = None,
    progress: Progress | None = None,
    label: str = "evaluate",
) -> tuple[Prediction, Metrics]:
    """Predict and score one labelled set, whose labels must be among the model's classes."""
    if not model.classes:
        raise RunError(f"`{model.name}` has no classes: tune it first, or give the folder of a run")
    examples = examples.with_classes(model.classes)
    if examples.labels is None:
        raise RunError(f"{examples.source}: no labels to compare with: add a `label` column")
    encoded = encode_inputs(model, examples.inputs, examples.modality, source=examples.source, max_length=max_length)
    advance = (progress or Silent()).start(label, len(examples))
    prediction = predict(model, encoded, advance=advance)
    return prediction, evaluate_logits(prediction.logits, examples.labels, clusters=examples.group)


def fit(
    recipe: Recipe,
    model: Model,
    train: Examples,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train a copy of `model`. With `out`, the run is kept there and a killed one goes on where it was.

    Calling it again on a complete run of the same training opens that run; on another training's folder it refuses.
    """
    if out is None:
        job = Fit(recipe, model, train, seed=seed, progress=progress)
        return Run(job.run(), recipe, job.history)
    folder = Path(out)
    _refuse_foreign(folder)
    facts = read_mark(folder)
    job = Fit(recipe, model, train, seed=seed, progress=progress)
    identity = job.identity
    if facts is not None:
        if facts.get("identity") != identity:
            raise RunError(
                f"{folder}: holds another run (other data, recipe, model or seed): choose another folder, or delete it"
            )
        return Run.load(folder)
    checkpoint = Checkpoint(folder / "checkpoint.safetensors")
    if checkpoint.owner not in (None, identity):
        raise RunError(
            f"{folder}: holds another run, not finished (other data, recipe, model or seed): choose another folder, or delete it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}): choose a folder you can write to") from error
    write_text(folder / "recipe.yaml", recipe.to_yaml())
    write_json(folder / "environment.json", environment() | {"seed": seed})
    run = Run(job.run(checkpoint=checkpoint), recipe, job.history, folder)
    run.model.name = folder.name
    save(run.model, folder / "model")
    write_json(
        folder / MARK,
        {
            "version": VERSION,
            "identity": identity,
            "seed": seed,
            "train": train.source,
            "examples": len(train),
            "history": _history(job.history),
        },
    )
    checkpoint.path.unlink(missing_ok=True)
    return run


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The facts of a complete run, None if there is none; RunError for one of another version."""
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


def check_run(folder: Path) -> None:
    """Raise RunError for a folder that is not there, a run of another version, and one that was never finished."""
    if not folder.is_dir():
        hint = nearest(folder.name, [each.name for each in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
        raise RunError(f"{folder}: no such folder: {hint if hint.startswith('did') else 'check the path'}")
    if read_mark(folder) is None and (folder / "recipe.yaml").exists():
        raise RunError(f"{folder}: no complete run there: give the same command again, which resumes it")


def _refuse_foreign(folder: Path) -> None:
    """A folder with somebody's other files in it is not ours to write into."""
    if folder.is_file():
        raise RunError(f"{folder}: is a file: choose a folder for the run")
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not (folder / "recipe.yaml").exists()
        and read_mark(folder) is None
    ):
        leftovers = [each for each in folder.iterdir() if not each.name.startswith(".")]
        if leftovers:
            raise RunError(f"{folder}: is not empty and holds no run ({leftovers[0].name}, ...): choose another folder")


def _history(history: History) -> dict[str, Any]:
    rate = round(history.examples_per_second, 1)
    return {
        "steps": history.steps,
        "seconds": round(history.seconds, 2),
        "examples_per_second": rate,
        "losses": history.losses,
        "notes": history.notes,
    }


def _write_predictions(folder: Path, predictions: Mapping[str, Prediction], tests: Mapping[str, Examples]) -> None:
    """One row per example: split, row, label and the logits, one column a class."""
    parts = []
    for name, prediction in predictions.items():
        if name not in tests:
            continue
        labels = tests[name].labels
        columns: dict[str, Any] = {
            "split": [name] * len(prediction.logits),
            "row": np.arange(len(prediction.logits)),
            "label": labels,
        }
        columns |= {f"logit_{c}": prediction.logits[:, c] for c in range(prediction.logits.shape[1])}
        parts.append(pa.table(columns))
    if not parts:
        return
    with atomic_write(folder / "predictions.parquet") as partial:
        pq.write_table(pa.concat_tables(parts), partial)
