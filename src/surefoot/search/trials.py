"""The trials of a search: three baselines, anchors and starts as they are, then draws; each a member of the family."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from surefoot.data.examples import Examples
from surefoot.engine import Engine
from surefoot.errors import RecipeError, RunError, SurefootError
from surefoot.models.model import Model
from surefoot.progress import Progress, Silent
from surefoot.search.bank import Bank
from surefoot.search.clock import Clock
from surefoot.search.family import Family, Member
from surefoot.search.journal import Asked, Entry, Ledger
from surefoot.search.judge import Judge
from surefoot.search.plan import Plan
from surefoot.search.space import propose
from surefoot.search.train import Job, Trained, Trainer
from surefoot.search.warm import fitting
from surefoot.tune.recipe import Recipe

#: A classifier's first trials; every task has three.
BASELINES = ("linear_probe", "lp_ft", "wise_ft")
#: Which of the baselines trains and which lies on its way back.
TRAINED, INTERPOLATED = 1, 2
#: After so many failures in a row there is something wrong that another draw does not mend.
HOPELESS = 10


@dataclass(frozen=True)
class Draft:
    """A trial that was asked. `job`: what has to be trained for it. `failed`: why what was drawn makes no recipe."""

    asked: Asked
    job: Job | None = None
    failed: str | None = None


@dataclass
class Trials:
    """Runs trials until the plan is fulfilled, the time is up, or somebody interrupts.

    `train` is what trials train on, a part of `train_all` where that is large. `after`: called with each finished trial and the member that it made.
    """

    model: Model
    train: Examples
    train_all: Examples
    sets: Any
    judge: Judge
    plan: Plan
    ledger: Ledger
    family: Family
    clock: Clock
    engine: Engine
    progress: Progress = field(default_factory=Silent)
    notes: list[str] = field(default_factory=list)
    after: Callable[[Entry, Member | None], None] = lambda entry, member: None

    def __post_init__(self) -> None:
        plan = self.plan
        self.trainer = Trainer(self.model, self.train, self.sets, self.judge, plan, self.family, self.progress)
        self.task, self.home = self.trainer.task, self.trainer.home
        reads = self.model.processor.modality == "text"
        self.bank = Bank.of(plan.bank).suited(text=reads, groups=self.train.group is not None)
        deep = len(self.model.layers)
        most = min(plan.layers[1], deep)
        self.layers = (min(plan.layers[0], most), most) if deep else None
        self.starts = {name: self._base(name) for name in plan.starts if self._possible(name)}
        if not self.starts:
            raise RecipeError(
                f"none of the starts ({', '.join(plan.starts)}) suits a model that does not read text: add fine_tune"
            )
        #: What is trained once, without a draw: draws have to be better than nothing.
        starts = {name: self._on(self.layers and self.layers[1], recipe) for name, recipe in self.starts.items()}
        whole = {name: self._on(plan.anchor_layers, self._base(name)) for name in plan.anchors if self._possible(name)}
        self.anchors = {**starts, **whole}
        self.first_draw = len(BASELINES) + len(self.anchors)
        self.warm = fitting(plan.warm_start, self._propose)
        if left_out := len(plan.warm_start) - len(self.warm):
            self.notes.append(
                f"{left_out} of the {len(plan.warm_start)} draws to start from lie outside this search's space and were left out"
            )

    def run(self) -> list[Entry]:
        """All trials that are left; returns those that are finished, from this process and earlier ones."""
        durations: list[float] = []
        for entry in self.ledger.done:
            self.family.find(_name(entry.number))
            self.after(entry, None)  # an earlier process has done with its member what there is to do
        while len(done := self.ledger.done) < self.plan.count:
            typical = float(np.median(durations[-9:] or [0.0]))
            # The baselines are the promise: they run even when the time is short.
            if len(done) >= len(BASELINES) and self.clock.left() < typical:
                break
            # Between batches, so that one who goes on in the middle of a batch ends where one does who was not stopped.
            fresh = len(done) % self.plan.batch == 0
            if fresh and len(done) >= HOPELESS and all(entry.state == "failed" for entry in done[-HOPELESS:]):
                reason = done[-1].attrs.get("reason")
                self.notes.append(
                    f"{HOPELESS} trials in a row failed, the last one because {reason}: no more were drawn"
                )
                break
            if not self._batch(len(done), typical, durations):
                break
        return self.ledger.done

    def _batch(self, first: int, typical: float, durations: list[float]) -> bool:
        """What is left of the batch of trial `first`, told in order; False where the time did not suffice.

        All are asked first and see what was finished before the batch, so that it makes no difference how many of them
        are trained at the same time, where, and which ends first.
        """
        size = self.plan.batch
        begin = first - first % size
        numbers = range(first, int(min(begin + size, self.plan.count)))
        drafts = {number: self._draft(number, begin, typical) for number in numbers}
        jobs = {_name(number): draft.job for number, draft in drafts.items() if draft.job is not None}
        for job in jobs.values():
            self.family.forget(job.name)
        shown = self.progress if size > 1 and jobs else None
        label = f"trials {first + 1} to {numbers[-1] + 1}"
        trained: dict[str, Trained] = {}
        waiting = deque(numbers)
        with closing(self._trained(jobs, shown, label)) as ends:
            while waiting:
                name = _name(waiting[0])
                while name in jobs and name not in trained:
                    key, trained[key] = next(ends)
                result = trained.get(name, Trained())
                if result.late:
                    return False
                number = waiting.popleft()
                self._tell(drafts[number], result)
                if number in (TRAINED, *range(len(BASELINES), number + 1)):  # it stands for the first draw
                    durations.append(result.seconds)
                self.after(self.ledger.done[-1], self.family.find(name))
        return True

    def _trained(
        self, jobs: Mapping[str, Job], progress: Progress | None, label: str
    ) -> Generator[tuple[str, Trained], None, None]:
        """What the engine makes of the jobs; a start that was not there comes back with the first of its members."""
        for key, result in self.engine.map(self.trainer, jobs, progress=progress, label=label):
            if result.start is not None and not self._started(result.start.name):
                self.family.add(result.start, start=True)
            yield key, result

    def _draft(self, number: int, begin: int, typical: float) -> Draft:
        """Trial `number` as it is asked, with a job where there is something to train that no earlier process trained.

        typical: seconds that a training takes, for which there has to be time.
        """
        drawn = number >= self.first_draw
        warm = self.warm[number - self.first_draw :][:1] if drawn else []
        asked = self.ledger.ask(number, seen=begin, fixed=warm[0] if warm else None)
        if number < len(BASELINES):
            name, start = self.task.baselines[number], self.task.baselines[1]
            recipe = self.baseline(name)
            if number == INTERPOLATED:
                return Draft(asked)
        elif not drawn:
            name = start = list(self.anchors)[number - len(BASELINES)]
            recipe = self.anchors[name]
        else:
            try:
                start, recipe = self._propose(asked.trial)
            except SurefootError as error:
                return Draft(asked, failed=str(error))
            name = recipe.name
        if self._known(_name(number), recipe) is not None:
            return Draft(asked)
        ends = math.inf if number < len(BASELINES) else time.time() + self.clock.left()
        job = Job(
            _name(number),
            start,
            recipe,
            {"name": name},
            asked=asked if drawn else None,
            unstarted=not self._started(start),
            latest=ends - typical,
            deadline=ends,
        )
        return Draft(asked, job)

    def _propose(self, trial: Any) -> tuple[str, Recipe]:
        plan = self.plan
        return propose(trial, self.starts, bank=self.bank, layers=self.layers, per_layer=plan.per_layer)

    def _tell(self, draft: Draft, result: Trained) -> None:
        """Finish a trial that has a member, was given up, or failed."""
        asked, began = draft.asked, time.monotonic()
        for epoch, value in result.reports:
            asked.report(epoch, value)
            asked.should_prune()  # a pruner that keeps a record keeps it on the trial
        if result.pruned is not None:
            self.ledger.tell(asked, None, pruned=True, attrs={"reason": result.pruned})
            return
        if (reason := draft.failed or result.failed) is not None:
            self.ledger.fail(asked, reason)
            return
        name = _name(asked.number)
        member = self._wise_ft(name) if asked.number == INTERPOLATED else self.family.find(name)
        if member is None:
            raise RunError(
                f"{self.family.folder}: {name}, which a worker trained, is not there: give a folder for the run on storage that all workers share"
            )
        try:
            value = self.trainer.score(member.logits)  # weights that are not finite come out here
        except SurefootError as error:
            if asked.number < self.first_draw:
                raise
            self.ledger.fail(asked, str(error))
            return
        if draft.job is None and member.facts.get("judge") == self.trainer.seat:  # trained by an earlier process
            for epoch, report in member.facts["reports"]:
                asked.report(epoch, report)
                asked.should_prune()
        seconds = result.seconds + time.monotonic() - began
        self.ledger.tell(asked, value, attrs={"seconds": round(seconds, 3), **member.facts})

    def view(self, member: Member) -> Any:
        """What rules see of a member."""
        return self.trainer.view(member.logits)

    def refit(self, member: Member, train: Examples) -> Member:
        """The member's recipe trained on other examples (see `Trainer.refit`)."""
        return self.trainer.refit(member, train)

    # --- what trains

    def baseline(self, name: str) -> Recipe:
        """A baseline's recipe, training as many layers as the plan says."""
        recipe = self._base(name)
        return recipe if name == self.task.baselines[0] else self._on(self.plan.baseline_layers, recipe)

    def _on(self, layers: int | None, recipe: Recipe) -> Recipe:
        """The recipe on so many top layers; None, or a model without layers, leaves it as it is."""
        if layers is None or self.layers is None:
            return recipe
        return recipe.changed(selection={"name": "top_layers", "k": min(layers, len(self.model.layers))})

    def _base(self, name: str) -> Recipe:
        own: dict[str, Any] = {"batch_size": self.plan.batch_size, "max_length": self.plan.max_length}
        if name != self.task.baselines[0]:
            own["epochs"] = self.plan.epochs
        return Recipe.named(name, **own)

    def _possible(self, start: str) -> bool:
        """FLYP needs a model that reads the labels' texts."""
        return start != "flyp" or self.model.processor.modality == "text"

    def _wise_ft(self, name: str) -> Member:
        """What was plainly trained on the way back to its start: nothing to train."""
        tuned = self.family.find(_name(TRAINED))
        assert tuned is not None
        recipe = self.baseline(self.task.baselines[INTERPOLATED])
        share = float(recipe.after[0]["alpha"])
        weights = self.family.mix([tuned], share=share)
        model = self.family.build(weights, normalize=tuned.normalize)
        logits = self.sets.logits(model, depth=tuned.depth)
        facts = {"name": recipe.name, "start": tuned.start, "share": share, "recipe": recipe.model_dump()}
        return self.family.add(Member(name, tuned.start, tuned.depth, tuned.normalize, logits, weights, facts))

    # --- what there is already

    def _known(self, name: str, recipe: Recipe) -> Member | None:
        """The member, where an earlier process trained it and was stopped before it could say so."""
        member = self.family.find(name)
        wanted = {"recipe": json.loads(json.dumps(recipe.model_dump())), "origin": self.trainer.origin}
        if member is None or any(member.facts.get(key) != value for key, value in wanted.items()):
            return None
        if not self._started(member.start):
            return None
        stored = member.facts.get("sets", {})
        if any(stored.get(name) != each for name, each in self.sets.prints.items()):
            model = self.family.build(member.load(), normalize=member.normalize)
            member.logits |= self.sets.logits(model, depth=member.depth)
            member.facts["sets"] = stored | self.sets.prints
            self.family.add(member)
        return member

    def _started(self, start: str) -> bool:
        known = self.family.find(start, start=True)
        return known is not None and known.facts.get("origin") == self.trainer.origin


def _name(number: int) -> str:
    return f"trial-{number:04d}"
