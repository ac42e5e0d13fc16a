"""A run is a folder: recipe, model, predictions, metrics, environment; resumable until `run.json` says it is complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from surefoot.assess.evaluate import evaluate
from surefoot.assess.metrics import Metrics
from surefoot.data.examples import Examples
from surefoot.environment import environment
from surefoot.errors import RunError
from surefoot.files import write_json, write_text
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.models.predict import Prediction
from surefoot.models.save import check_saveable, save
from surefoot.progress import Progress
from surefoot.tune.checkpoint import Checkpoint
from surefoot.tune.fit import Fit
from surefoot.tune.folder import (
    CHECKPOINT,
    MARK,
    VERSION,
    add_metrics,
    add_predictions,
    check_run,
    claim,
    read_mark,
    refuse_foreign,
)
from surefoot.tune.history import History
from surefoot.tune.identity import identity
from surefoot.tune.recipe import Recipe


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
        """Metrics per test set; with a folder, also added to its metrics.json and predictions.parquet."""
        labels: dict[str, np.ndarray] = {}
        for name, examples in tests.items():
            scored = evaluate(self.model, examples, progress=progress, label=name)
            self.predictions[name], self.metrics[name] = scored
            labels[name] = np.asarray(examples.with_classes(self.model.classes).labels)
        found = {name: self.metrics[name] for name in tests}
        if self.folder is not None and tests:
            add_predictions(self.folder, {name: (self.predictions[name], labels[name]) for name in tests})
            add_metrics(self.folder, found)
        return found

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Run:
        """Open a complete run folder."""
        folder = Path(folder)
        check_run(folder)
        facts = read_mark(folder)
        if facts is None:
            raise RunError(f"{folder}: no complete run there: give the folder that `surefoot tune --out` wrote")
        recipe = Recipe.load(folder / "recipe.yaml")
        return cls(load(folder, device=device), recipe, History(**facts["history"]), folder)


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
    check_saveable(model)
    refuse_foreign(Path(out))
    job = Fit(recipe, model, train, seed=seed, progress=progress)
    return keep(job, out, identity(job))


def keep(
    job: Fit, out: str | Path, facts: Mapping[str, str], *, also: Callable[[Path], None] = lambda folder: None
) -> Run:
    """Run a training that is set up and keep it in a folder; `facts` is what tells it from others.

    also: called with the folder after the training, to write what else belongs to the run.
    """
    folder, recipe, train = Path(out), job.recipe, job.train_set
    checkpoint = Checkpoint(folder / CHECKPOINT)
    if claim(folder, facts):
        checkpoint.remove()
        return Run.load(folder, device=job.device)
    write_text(folder / "recipe.yaml", recipe.to_yaml())
    write_json(folder / "environment.json", environment() | {"seed": job.seed})
    run = Run(job.run(checkpoint=checkpoint), recipe, job.history, folder)
    run.model.name = folder.name
    save(run.model, folder / "model")
    also(folder)
    history = vars(job.history)
    mark = {"version": VERSION, "complete": True, "identity": facts, "train": train.source, "examples": len(train)}
    write_json(folder / MARK, mark | {"seed": job.seed, "history": history})
    checkpoint.remove()
    return run
