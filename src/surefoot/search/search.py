"""`tune`: the whole search, from data to a run folder with a model, forecasts and what choosing was worth."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surefoot.assess.metrics import Metrics, evaluate_logits
from surefoot.data.examples import Examples
from surefoot.engine import Engine, open_engine
from surefoot.errors import RecipeError
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.models.save import check_saveable
from surefoot.progress import Progress, Silent
from surefoot.search.answer import Answer, find_answer
from surefoot.search.bank import Bank
from surefoot.search.clock import Clock
from surefoot.search.door import at_most, identity_of
from surefoot.search.family import Family, Member, model_with_classes
from surefoot.search.journal import Entry, Ledger
from surefoot.search.keep import Keeper
from surefoot.search.plan import Plan
from surefoot.search.sets import HOME, MOST
from surefoot.search.soups import Soups
from surefoot.search.task import task_of
from surefoot.search.trials import Trials

#: Seconds of a time limit that are kept for the answer, and the least.
RESERVE_SHARE, RESERVE_LEAST = 0.25, 10.0


@dataclass
class Found:
    """What `tune` returns: the model, the answer's facts, the trials, metrics of the test sets, what to know.

    `metrics`: by test set, `Metrics` of a classifier, `Score` of an embedding. `corrected`: metrics of test sets that are named like an unlabelled target, by the decision that fits the target.
    """

    model: Model
    answer: Answer
    trials: list[Entry]
    metrics: dict[str, Any] = field(default_factory=dict)
    corrected: dict[str, Metrics] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "answer": self.answer.as_json(),
            "metrics": {name: each.as_json() for name, each in self.metrics.items()},
            "corrected": {name: each.as_json() for name, each in self.corrected.items()},
            "trials": len(self.trials),
            "classes": list(self.model.classes),
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
            "run": str(self.folder) if self.folder else None,
        }

    def leaderboard(self) -> list[dict[str, Any]]:
        """Every trial in order: number, state, score on the judge, what was drawn, recipe, seconds."""
        return _board(self.trials)


def tune(
    model: Model | str,
    train: Examples,
    *,
    judge: Mapping[str, Any],
    unlabelled: Mapping[str, Any] | None = None,
    validation: Examples | None = None,
    tests: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    family: str | Path | None = None,
    plan: Plan | None = None,
    engine: str | Engine = "local",
    workers: int = 1,
    address: str | None = None,
    progress: Progress | None = None,
    after: Callable[[list[Entry], Clock], None] = lambda entries, clock: None,
    **options: Any,
) -> Found:
    """Search over recipes judged away from home, average what was trained, forecast where there are no labels.

    model: a Model or a name for `load`. train: home. judge: labelled samples of other domains, by domain; a hundred
    each will do. unlabelled: samples of the domains to come, by domain. validation: held-out home examples, by default
    split off the training set. tests: scored in the end, never looked at before. out: the run folder; the same search
    in the same folder goes on where it was. family: a folder of members to share with other searches on the same
    training set; by default that of the run. With `task="embedding"` train holds pairs, and the other sets are pairs (rated,
    where they judge or test), or what `load_similarity` gives: see `search/embedding.py`. plan, or its fields as keywords: see `Plan`. engine, workers, address:
    where trials are trained, as many at a time as a batch of the plan has (see `surefoot.engine.open_engine`), or an
    engine that is open already; workers on other machines need `out`, or `family`, on storage that all share. The answer
    is the same wherever it was, for the same number of threads.

    An interrupt (Ctrl-C) after the first trial ends the trials and gives the answer from those there are.
    Raises DataError, RecipeError or RunError in one sentence for what cannot work, before anything is trained.
    """
    plan = plan or Plan(**options)
    if workers > 1 and plan.batch == 1:
        raise RecipeError(
            f"{workers} workers have nothing to share when trials come one after another: give a `batch` of {workers} or more trials"
        )
    progress = progress or Silent()
    start = load(model) if isinstance(model, str) else model
    task = task_of(plan.task)
    given = {"judge": judge, "unlabelled": unlabelled or {}, "tests": tests or {}}
    train, held, named, notes = task.prepare(start, train, validation, given, plan)
    if out is not None:
        check_saveable(start)
    if task.name == "embedding" and start.classes:
        start = model_with_classes(start, ())
    judge, unlabelled, tests = named["judge"], named["unlabelled"], named["tests"]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        opened = (
            engine
            if isinstance(engine, Engine)
            else stack.enter_context(open_engine(engine, workers=workers, address=address))
        )
        keeper = Keeper(
            Path(out) if out is not None else None, Path(scratch), Path(family) if family is not None else None
        )
        identity = identity_of(start, plan, train, held, judge, unlabelled, threads=opened.threads)
        keeper.claim(identity)
        grouped = Bank.of(plan.bank).conditional
        with Ledger(
            keeper.journal, seed=plan.seed, startup=plan.startup, grouped=grouped, pruner=plan.pruner
        ) as ledger:
            clock = Clock(plan.time_limit)
            if plan.time_limit is not None:
                clock.reserve = min(max(RESERVE_LEAST, RESERVE_SHARE * plan.time_limit), plan.time_limit / 2)
            searcher = _Search(start, plan, train, held, judge, unlabelled, keeper, ledger, clock, opened, progress)
            answer, entries = searcher.run(after)
            notes += searcher.notes
            model = searcher.model(answer)
            keeper.finish(
                model,
                answer,
                entries,
                identity=identity,
                train=train,
                plan=plan,
                home=searcher.trials.home,
                judge=judge,
                base=start.source or start.name,
                leaderboard=_board(entries),
            )
    found = Found(model, answer, entries, notes=notes, folder=keeper.folder)
    predictions = {}
    for name, examples in tests.items():
        predictions[name], found.metrics[name] = task.evaluate(model, examples, progress=progress, label=name)
        labels = examples.with_classes(model.classes).labels if task.labelled else None
        keeper.add(name, predictions[name], labels, found.metrics[name])
        decision = answer.targets[name].decision if name in answer.targets else None
        if decision is not None and labels is not None:
            logits = decision(predictions[name].logits)
            found.corrected[name] = evaluate_logits(logits, labels, clusters=examples.document)
    found.seconds = clock.elapsed
    keeper.write(found.as_json() | {"leaderboard": found.leaderboard()})
    if keeper.folder is not None:
        task.explain(searcher, answer, found.leaderboard(), tests, predictions)
    return found


def _board(entries: list[Entry]) -> list[dict[str, Any]]:
    return [
        {"trial": entry.number, "state": entry.state, "value": entry.value, "params": entry.params, **entry.attrs}
        for entry in entries
    ]


class _Search:
    """One search under way."""

    def __init__(
        self,
        model: Model,
        plan: Plan,
        train: Examples,
        validation: Any,
        judge: Mapping[str, Any],
        unlabelled: Mapping[str, Any],
        keeper: Keeper,
        ledger: Ledger,
        clock: Clock,
        engine: Engine,
        progress: Progress,
    ) -> None:
        self.plan, self.keeper, self.notes = plan, keeper, list[str]()
        task = task_of(plan.task)
        rng = np.random.default_rng([plan.seed, 5])
        few = {name: at_most(each, MOST, np.random.default_rng([plan.seed, 6])) for name, each in unlabelled.items()}
        self.targets = {f"unlabelled/{name}": name for name in few}
        labelled = {HOME: validation, **judge}
        everything = {**labelled, **{key: few[name] for key, name in self.targets.items()}}
        self.family = Family(model_with_classes(model, train.classes), keeper.family)
        if plan.max_length is not None and hasattr(self.family.model.processor, "max_length"):
            processor = self.family.model.processor
            processor.max_length = min(plan.max_length, processor.max_length)
        seat = task.seat(judge, seed=plan.seed)
        self.trials = Trials(
            model,
            at_most(train, plan.trial_examples, rng),
            train,
            task.sets(everything, train=train, max_length=plan.max_length),
            seat,
            plan,
            ledger,
            self.family,
            clock,
            engine,
            progress,
        )
        self.small = Soups(
            self.family,
            task.sets(labelled, train=train, max_length=plan.max_length),
            seat,
            task.rule(plan),
            self.trials.view,
            task.sizes,
            task.shares,
        )

    def run(self, after: Callable[[list[Entry], Clock], None]) -> tuple[Answer, list[Entry]]:
        """The answer and the finished trials."""
        trials = self.trials
        trials.after = lambda entry, member: self._finished(entry, member, after)
        try:
            entries = trials.run()
        except KeyboardInterrupt:
            entries = trials.ledger.done
            if not any(entry.state == "complete" for entry in entries):
                raise
            self.notes.append(f"stopped after {len(entries)} trials: the answer is the best of those")
        answer = find_answer(trials, self.small, list(self.targets))
        self.notes += trials.notes
        if steered := answer.nested["steered"]:
            self.notes.append(
                f"{steered} trials were drawn or given up by what the whole judge said of earlier ones: the estimate for the judge's domains is somewhat high"
            )
        answer.targets = {self.targets[key]: target for key, target in answer.targets.items()}
        return answer, entries

    def model(self, answer: Answer) -> Model:
        """The model to ship: temperature and bias that fit all domains with labels are part of its head."""
        member = answer.member
        model = self.family.build(
            member.load() if not isinstance(member.weights, dict) else member.weights, normalize=member.normalize
        )
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.div_(answer.shipped.temperature)
            model.head.bias.add_(torch.from_numpy(answer.shipped.bias).to(model.head.bias))
        return model.eval()

    def _finished(self, entry: Entry, member: Member | None, after: Callable[[list[Entry], Clock], None]) -> None:
        self.keeper.provisional(entry, member, self)
        after(self.trials.ledger.done, self.trials.clock)
