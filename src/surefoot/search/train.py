"""Training of a trial: a job in, a member of the family out, in this process or in a worker of the engine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from surefoot.data.examples import Examples
from surefoot.errors import SurefootError
from surefoot.models.model import Model
from surefoot.progress import Progress, Silent
from surefoot.search.family import Family, Member, model_with_classes
from surefoot.search.journal import REDUCTION, Asked, Pruner
from surefoot.search.judge import Judge
from surefoot.search.plan import Plan
from surefoot.search.task import task_of
from surefoot.tune.fit import Fit
from surefoot.tune.identity import model_hash
from surefoot.tune.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """One training. `asked`: the trial, where it was drawn: such a one may fail, or be given up after an epoch.

    unstarted: whether the family lacks the start. latest, deadline: times on the clock (`time.time()`, which workers on
    other machines have too) after which the training is not begun, and is given up.
    """

    name: str
    start: str
    recipe: Recipe
    facts: Mapping[str, Any]
    asked: Asked | None = None
    unstarted: bool = False
    latest: float = math.inf
    deadline: float = math.inf


@dataclass(frozen=True)
class Trained:
    """What became of it. The member itself is in the family; `start` is what its training began with, where asked for.

    reports: (epoch, figure of merit) of a drawn trial. pruned, failed: why it was given up, why it could not be trained.
    late: there was no time for it.
    """

    seconds: float = 0.0
    start: Member | None = None
    reports: tuple[tuple[int, float], ...] = ()
    pruned: str | None = None
    failed: str | None = None
    late: bool = False


class _Stopped(Exception):
    """A trial is given up after an epoch."""


class _TimeUp(Exception):
    """There is no time to finish the trial: it never happened, so that a search that goes on later draws it again."""


class _Watched:
    """Progress that ends the training when its time is up: it is told of every batch."""

    def __init__(self, progress: Progress, deadline: float) -> None:
        self.progress, self.deadline = progress, deadline

    def start(self, label: str, total: int) -> Callable[[int], None]:
        advance = self.progress.start(label, total)

        def onward(count: int) -> None:
            advance(count)
            if time.time() > self.deadline:
                raise _TimeUp

        return onward


def _looks(pruner: Pruner, fit: Fit) -> dict[int, int]:
    """The steps after which a drawn trial is judged, and what its report there is numbered: epochs, or rungs.

    Halving looks after 1/9 and 1/3 of the training; its rungs are numbered 1 and 3, in ninths.
    """
    if pruner == "none":
        return {}
    if pruner == "median":
        return {end: epoch for epoch, end in enumerate(range(fit.per_epoch, fit.total, fit.per_epoch), 1)}
    rungs = {math.ceil(fit.total * rung / REDUCTION**2): rung for rung in (1, REDUCTION)}
    return {step: rung for step, rung in rungs.items() if step < fit.total}


def _why(pruner: Pruner, number: int, share: float) -> str:
    if pruner == "median":
        return f"worse than the median after epoch {number}"
    return f"not in the best third after {share:.0%} of the training"


@dataclass
class Trainer:
    """Trains members on `train`, and runs them over all `sets`. What a worker has of it shares the family's folder."""

    model: Model
    train: Examples
    sets: Any
    judge: Judge
    plan: Plan
    family: Family
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        #: What a member depends on beside its recipe.
        self.origin = f"{self.train.fingerprint()[:16]}-{self.plan.seed}-{model_hash(self.model)[:16]}"
        #: Whose verdict reports to the pruner are.
        self.seat = "-".join(self.sets.prints[name] for name in self.judge.domains)
        self.task = task_of(self.plan.task)
        #: What home's held-out examples know, as the task compares with it.
        self.home: Any = self.task.home(self.sets)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker: without the family's weights, which the model has, and without the screen."""
        return {**self.__dict__, "family": self.family.folder, "progress": Silent()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self.family = Family(model_with_classes(self.model, self.train.classes), state["family"])

    def __call__(self, job: Job) -> Trained:
        """Train, and keep the member in the family."""
        began = time.monotonic()
        if time.time() > job.latest:
            return Trained(late=True)
        reports: list[tuple[int, float]] = []
        start: list[Member] = []
        why: dict[str, Any] = {}
        try:
            self._train(job, reports, start)
        except _Stopped as stopped:
            why["pruned"] = str(stopped)
        except _TimeUp:
            why["late"] = True
        except SurefootError as error:
            if job.asked is None:
                raise
            why["failed"] = str(error)
        return Trained(time.monotonic() - began, start[0] if start else None, tuple(reports), **why)

    def view(self, logits: Mapping[str, np.ndarray]) -> Any:
        """What rules see of a model."""
        return self.task.view(self.judge, logits, self.home)

    def score(self, logits: Mapping[str, np.ndarray]) -> float:
        """The rule's figure of merit on the whole judge; lower is better."""
        return self.task.rule(self.plan)(self.view(logits), self.judge, np.ones(len(self.judge), dtype=bool))

    def refit(self, member: Member, train: Examples) -> Member:
        """The member's recipe trained on other examples (all of them, where trials saw a part); not kept in the family."""
        fit = Fit(Recipe(**member.facts["recipe"]), self.model, train, seed=self.plan.seed, progress=self.progress)
        depth = fit.model.frozen
        return self._member(member.name, member.start, fit, depth, fit.run(), facts=member.facts)

    def _train(self, job: Job, reports: list[tuple[int, float]], start: list[Member]) -> None:
        progress = self.progress if math.isinf(job.deadline) else _Watched(self.progress, job.deadline)
        fit = Fit(job.recipe, self.model, self.train, seed=self.plan.seed, progress=progress)
        depth = fit.model.frozen
        if job.unstarted:
            start.append(self._start(job.start, fit))
        facts = dict(job.facts)
        if job.asked is None:
            model = fit.run()
        else:
            asked = deepcopy(job.asked)  # the one who asked is told of the reports with the result

            looks = _looks(self.plan.pruner, fit)

            def look(step: int) -> None:
                value = self.score(self.sets.logits(fit.snapshot(), depth=depth))
                reports.append((looks[step], value))
                asked.report(looks[step], value)
                if asked.should_prune():
                    raise _Stopped(_why(self.plan.pruner, looks[step], step / fit.total))

            model = fit.run(looks=looks, look=look)
            facts |= {"reports": reports, "judge": self.seat}
        self.family.add(self._member(job.name, job.start, fit, depth, model, facts=facts))

    def _start(self, name: str, fit: Fit) -> Member:
        """Where this start's members come from: pretrained weights under the head that training begins with."""
        model = fit.snapshot()
        weights = self.family.differing(model)
        return Member(name, name, len(self.model.layers) + 1, model.normalize, {}, weights, {"origin": self.origin})

    def _member(self, name: str, start: str, fit: Fit, depth: int, model: Model, *, facts: Mapping[str, Any]) -> Member:
        return Member(
            name,
            start,
            depth,
            model.normalize,
            self.sets.logits(model, depth=depth),
            self.family.differing(model),
            {
                **facts,
                "start": start,
                "recipe": fit.recipe.model_dump(),
                "origin": self.origin,
                "sets": self.sets.prints,
                "rate": round(fit.history.examples_per_second, 1),
            },
        )
