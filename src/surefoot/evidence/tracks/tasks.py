"""`tasks`: one MiniLM for four tasks, merged from four that were tuned for one each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from surefoot import load, load_task
from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import stored
from surefoot.errors import SurefootError
from surefoot.evidence.cost import Clock
from surefoot.evidence.entry import Arm
from surefoot.evidence.track import Track
from surefoot.files import atomic_write
from surefoot.merge.combine import Combine
from surefoot.merge.fit import Fit, Runner, Seen
from surefoot.models.model import Model
from surefoot.tune.build import build
from surefoot.tune.recipe import Recipe
from surefoot.tune.selection import Selection
from surefoot.tune.selections.kept import Kept

#: Every task with its home's test.
TASKS = {"clinc150": "in_scope", "banking77": "banking77", "reviews": "movies", "cad_imdb": "original"}
TRAIN_SIZE, HELD_SIZE, TEST_SIZE, MAX_LENGTH = 1000, 200, 400, 48
#: The three top layers train; below, all four are MiniLM, which runs once.
RECIPE: Mapping[str, Any] = {
    "selection": {"name": "top_layers", "k": 3},
    "optimizer": {"name": "adamw", "lr": 1e-4},
    "epochs": 3,
    "max_length": MAX_LENGTH,
}


class Tasks(Track):
    """Accuracy over four tasks of one merged backbone with each task's own head; the baseline is the mean of weights.

    The four are tuned once for each seed, and arms share them. Merges that learn see examples that were neither trained
    on nor are tested on, 200 of each task, without their labels where they look at none.
    """

    name = "tasks"
    summary = "four tasks (CLINC150, Banking77, movie reviews, IMDB) by one MiniLM merged from four: mean accuracy"
    metric: ClassVar[str] = "accuracy"

    def check(self) -> None:
        for name in ("clinc150", "banking77", "cad_imdb"):
            stored(name)

    def model(self) -> Model:
        """What all start from."""
        return load("minilm", max_length=MAX_LENGTH)

    def recipe(self) -> Recipe:
        return Recipe(**RECIPE)

    def sets(self, name: str, seed: int) -> tuple[Examples, Examples, Examples]:
        """Training, held-out and test examples of a task."""
        task = load_task(name, seed=seed, train_size=TRAIN_SIZE, test_size=min(TEST_SIZE, 400))
        held = task.validation if task.validation is not None else task.train
        rows = np.random.default_rng(seed).permutation(len(held))[:HELD_SIZE]
        return task.train, held.take(rows), task.tests[TASKS[name]]

    def names(self) -> list[str]:
        return list(TASKS)

    def run(self, arm: Arm, *, seed: int, quantities: Collection[str] = (), store: Path) -> dict[str, float]:
        if set(arm.recipe) - {"selection"} or arm.named or arm.estimator or arm.prior:
            raise SurefootError(
                "the track `tasks` runs merges, of models tuned by its own recipe but for the selection"
            )
        model, base, tuned = self._family(seed, store, arm.recipe)
        backbones = [{name: each for name, each in state.items() if name.startswith("backbone.")} for state in tuned]
        start = {name: each for name, each in base.items() if name.startswith("backbone.")}
        heads = [{name: each for name, each in state.items() if name.startswith("head.")} for state in tuned]
        held: list[Seen] = []
        tests: list[Seen] = []
        for name, head in zip(self.names(), heads, strict=True):
            _, kept, tested = self.sets(name, seed)
            held.append(Seen(name, kept, model, head=head))
            tests.append(Seen(name, tested, model, head=head))
        method: Combine = build("merge", arm.merge or {"name": "uniform_soup"})
        clock = Clock()
        with clock.running():
            if isinstance(method, Fit):
                method.fit(model, backbones, start, held, seed=seed)
            count = method.most or len(backbones)
            merged = method(backbones[:count], start)
        run = Runner(model, [*backbones, merged], start, [*held, *tests])
        found: dict[str, float] = {}
        for name, own, test in zip(self.names(), backbones, tests, strict=True):
            found[f"accuracy/{name}"] = run.accuracy(merged, [test])
            found[f"own/{name}"] = run.accuracy(own, [test])
        found["accuracy"] = float(np.mean([found[f"accuracy/{name}"] for name in self.names()]))
        found["own"] = float(np.mean([found[f"own/{name}"] for name in self.names()]))
        return found | _looked(run, merged, backbones, start, held) | {"seconds": clock.seconds}

    def _family(
        self, seed: int, store: Path, changes: Mapping[str, Any]
    ) -> tuple[Model, dict[str, Tensor], list[dict[str, Tensor]]]:
        """The model, its weights, and those tuned for each task, trained on the first call with this seed."""
        model, recipe = self.model(), Recipe(**{**self.recipe().model_dump(), **changes})
        selection: Selection = build("selection", recipe.selection)
        if isinstance(selection, Kept):  # what is tuned has parts, and so must what runs it
            model = deepcopy(model)
            selection.attach(model)
        family = f"-{hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:8]}" if changes else ""
        base = {name: each.detach() for name, each in model.state_dict().items()}
        tuned = []
        store.mkdir(parents=True, exist_ok=True)
        for name in self.names():
            path = store / f"{self.name}-{self.generation}{family}-{name}-{seed}.safetensors"
            with FileLock(f"{path}.lock"):
                if not path.is_file():
                    train, _, _ = self.sets(name, seed)
                    fitted = recipe.fit(self.model(), train, seed=seed).model
                    weights = {key: each.contiguous() for key, each in fitted.state_dict().items()}
                    with atomic_write(path) as partial:
                        save_file(weights, partial)
            tuned.append(load_file(path))
        return model, base, tuned


@torch.no_grad()
def _looked(
    run: Runner,
    merged: Mapping[str, Tensor],
    tuned: list[dict[str, Tensor]],
    base: Mapping[str, Tensor],
    held: list[Seen],
) -> dict[str, float]:
    """What merges act on: entropy and loss on what they may look at, and how the merged weights lie among the others."""
    entropies, losses, changed = [], [], []
    for own, each in zip(tuned, held, strict=True):
        for batch in each.batches(64, seed=0):
            log_p = run(merged, batch, each.head).logits.double().log_softmax(1)
            alone = run(own, batch, each.head).logits
            changed += (alone.argmax(1) != log_p.argmax(1)).tolist()
            entropies.append(float(-(log_p.exp() * log_p).sum(1).mean()))
            losses.append(float(-log_p[torch.arange(len(batch)), batch.labels].mean()))
    names = run.names
    move = torch.cat([(merged[name] - base[name]).flatten() for name in names])
    moves = torch.stack([torch.cat([(each[name] - base[name]).flatten() for name in names]) for each in tuned])
    against = ((moves * move) < 0).float().mean()
    norms = moves.norm(dim=1)
    cosines = moves @ move / (norms * move.norm()).clamp_min(1e-12)
    first = (move - moves[0]) @ moves[0] / norms[0].square()
    return {
        "entropy_held_out": float(np.mean(entropies)),
        "loss_held_out": float(np.mean(losses)),
        "changed_answers": float(np.mean(changed)),
        "against_the_merge": float(against),
        "merged_move": float(move.norm() / norms.mean()),
        "merged_moved_share": float((move != 0).float().mean()),
        "alike_all_tasks": float(cosines.min()),
        "along_the_first": float(first.abs()),
    }


TRACK = Tasks()
