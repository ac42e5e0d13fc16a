"""One training whose hyperparameters a strategy moves, with a folder of its own: `surefoot tune` with `--strategy`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as serialise

from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.files import atomic_write, write_json
from surefoot.models.model import Model
from surefoot.models.save import check_saveable
from surefoot.progress import Progress
from surefoot.registry import get, methods
from surefoot.search.strategy import Tuning
from surefoot.tune.build import Spec, build
from surefoot.tune.folder import refuse_foreign
from surefoot.tune.identity import identity
from surefoot.tune.recipe import Recipe
from surefoot.tune.run import Run, keep

#: What was found and how it moved; single tensors of many numbers are in the second file, by name.
FOUND, TENSORS = "hyperparameters.json", "hyperparameters.safetensors"


@dataclass
class TunedRun:
    """`run`: the trained model and its folder. `hyperparameters`: what was found. `moved`: a row for each update."""

    run: Run
    hyperparameters: Mapping[str, Any]
    moved: list[dict[str, float]]


def fit_with(
    strategy: Spec,
    recipe: Recipe,
    model: Model,
    train: Examples,
    judge: Mapping[str, Examples],
    *,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> TunedRun:
    """Train a copy of `model` by the recipe while the strategy of that name moves hyperparameters, as the judge likes.

    strategy: a name, or a mapping with `name` and options, of a strategy that tunes one training. judge: labelled samples
    by domain. out: the run folder, as `Recipe.fit` writes it, with the hyperparameters beside the recipe; a run that was
    killed goes on where it was and ends with the same weights. Raises RecipeError for a strategy of another kind, and
    whatever the recipe's own training raises.

    >>> fit_with("path", Recipe(), None, None, {})
    Traceback (most recent call last):
    surefoot.errors.RecipeError: strategy `path` tunes no training: choose implicit_differentiation or self_tuning_network
    """
    tuning = build("strategy", strategy)
    if not isinstance(tuning, Tuning):
        known = [each.name for each in methods("strategy") if issubclass(get("strategy", each.name).make, Tuning)]
        name = strategy if isinstance(strategy, str) else strategy["name"]
        raise RecipeError(f"strategy `{name}` tunes no training: choose {' or '.join(known)}")
    if out is not None:
        check_saveable(model)
        refuse_foreign(Path(out))
    job = tuning.fit(recipe, model, train, judge, seed=seed, progress=progress)
    if out is None:
        return TunedRun(Run(job.run(), recipe, job.history), job.hyperparameters, job.moved)
    seats = {name: each.fingerprint() for name, each in judge.items()}
    facts = identity(job) | {"strategy": repr(strategy), "judge": repr(sorted(seats.items()))}

    def write(folder: Path) -> None:
        tensors: dict[str, torch.Tensor] = {}
        plain = {name: _plain(value, tensors) for name, value in job.hyperparameters.items()}
        if tensors:
            with atomic_write(folder / TENSORS) as partial:
                partial.write_bytes(serialise(tensors))
        write_json(folder / FOUND, {"strategy": strategy, "found": plain, "moved": job.moved})

    run = keep(job, out, facts, also=write)
    kept = json.loads((Path(out) / FOUND).read_text("utf8"))
    return TunedRun(run, job.hyperparameters if job.moved else kept["found"], kept["moved"])


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Numbers as JSON has them; a mapping of tensors goes into `tensors`, its names stay."""
    if isinstance(value, Mapping) and any(isinstance(each, torch.Tensor) for each in value.values()):
        tensors.update({name: each.detach().cpu().contiguous() for name, each in value.items()})
        return sorted(value)
    return value.tolist() if isinstance(value, np.ndarray) else value
