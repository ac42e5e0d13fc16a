"""The run folder of a search: the journal, the family, and from the first trial on a model that can be used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.data.examples import Examples
from surefoot.environment import environment
from surefoot.files import write_json, write_text
from surefoot.models.model import Model
from surefoot.models.save import save
from surefoot.search.answer import Answer
from surefoot.search.family import Member
from surefoot.search.journal import Entry
from surefoot.search.plan import Plan
from surefoot.search.task import task_of
from surefoot.tune.folder import MARK, VERSION, add_metrics, add_predictions, claim
from surefoot.tune.recipe import Recipe

if TYPE_CHECKING:
    from surefoot.search.search import _Search

#: The facts of the answer.
SEARCH = "search.json"
JOURNAL = "study.log"
#: Until there is an answer: the best trial so far, and what to expect of it.
PROVISIONAL = "provisional.json"
#: Members, one file each; `surefoot estimate` needs them for a line.
FAMILY = "family"
#: A better model is written at most so often, in seconds, while trials go on.
OFTEN = 20.0


class Keeper:
    """Writes what a search finds into its folder; without one, only a scratch folder for the family is used."""

    def __init__(self, folder: Path | None, scratch: Path, family: Path | None = None) -> None:
        self.folder = folder
        self.family = family or (folder or scratch) / FAMILY
        self.journal = folder / JOURNAL if folder else None
        self._best: float | None = None
        self._base = ""
        self._written = float("-inf")

    def claim(self, identity: Mapping[str, str]) -> None:
        """Make the folder ours or go on in it; RunError if it holds something else."""
        if self.folder is not None and claim(self.folder, identity, work=JOURNAL):
            # Going on: until there is a new answer, nothing must take the old files for one.
            write_json(self.folder / MARK, {"version": VERSION, "complete": False, "identity": dict(identity)})
            for name in ("metrics.json", "predictions.parquet"):
                (self.folder / name).unlink(missing_ok=True)
        self.family.mkdir(parents=True, exist_ok=True)

    def provisional(self, entry: Entry, member: Member | None, search: _Search) -> None:
        """After the first trial, and now and then when a better one comes, a model that can be used and its forecasts:
        whoever stops early has them."""
        if self.folder is None or entry.value is None:
            return
        if member is None:  # an earlier process wrote the best of its trials, or nothing yet
            known = self._best if self._best is not None else entry.value
            self._best = min(known, entry.value) if (self.folder / "model").exists() else None
            return
        if self._best is not None and (entry.value >= self._best or time.monotonic() - self._written < OFTEN):
            return
        model = search.family.build(member.load(), normalize=member.normalize)
        model.name = self.folder.name
        save(model, self.folder / "model")
        trials = search.trials
        seen = {
            name: trials.task.look_at(key, member, [member], trials.home, trials.judge).forecast.as_json()
            for key, name in search.targets.items()
        }
        facts = {"trial": entry.number, "score": entry.value, "forecasts": seen}
        write_json(self.folder / PROVISIONAL, facts)
        self._best, self._written = entry.value, time.monotonic()

    def finish(
        self,
        model: Model,
        answer: Answer,
        entries: list[Entry],
        *,
        identity: Mapping[str, str],
        train: Examples,
        plan: Plan,
        home: Any,
        judge: Mapping[str, Any],
        base: str,
        leaderboard: list[dict[str, Any]],
    ) -> None:
        """The answer's model and facts; the mark that the run is complete comes last."""
        if self.folder is None:
            return
        model.name = self.folder.name
        save(model, self.folder / "model")
        (self.folder / PROVISIONAL).unlink(missing_ok=True)
        best = answer.member.facts.get("recipe") or _recipe_of(answer, entries)
        write_text(self.folder / "recipe.yaml", Recipe(**best).to_yaml())
        write_text(self.folder / "plan.yaml", _yaml(plan))
        write_json(self.folder / "environment.json", environment() | {"seed": plan.seed})
        self._base = base
        task_of(plan.task).write(self.folder, home, judge, answer)
        self.write({"answer": answer.as_json(), "leaderboard": leaderboard})
        mark = {"version": VERSION, "complete": True, "identity": dict(identity), "train": train.source}
        write_json(self.folder / MARK, mark | {"examples": len(train), "seed": plan.seed, "history": {}})

    def add(self, name: str, prediction: Any, labels: np.ndarray | None, metrics: Any) -> None:
        """A test set's metrics and, of a classifier, logits."""
        if self.folder is None:
            return
        if labels is not None:
            add_predictions(self.folder, {name: (prediction, labels)})
        add_metrics(self.folder, {name: metrics})

    def write(self, facts: Mapping[str, Any]) -> None:
        """Everything that was found, with the test sets and the time it took."""
        if self.folder is not None:
            write_json(self.folder / SEARCH, {"base": self._base, **facts})


def _recipe_of(answer: Answer, entries: list[Entry]) -> dict[str, Any]:
    """The recipe of a soup is that of its first member; which others it is made of is in search.json."""
    number = int(answer.member.facts["soup"][0].rpartition("-")[2])
    found: dict[str, Any] = entries[number].attrs["recipe"]
    return found


def _yaml(plan: Plan) -> str:
    import yaml

    return yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False)
