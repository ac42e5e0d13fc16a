"""Collecting what the report shows, once, when the answer is found or the recipe trained."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.assess.slices import find_slices
from surefoot.data.examples import Examples
from surefoot.files import plain, write_json
from surefoot.models.predict import Prediction
from surefoot.search.answer import FAMILY, Answer
from surefoot.search.explain.flipped import flipped
from surefoot.search.explain.lines import line
from surefoot.search.explain.looked import ANSWER, RAW, SETS, Looked, confidence, label_shares, versus
from surefoot.search.explain.path import path
from surefoot.search.importance import importance
from surefoot.search.judge import RULES
from surefoot.search.sets import HOME, Sets
from surefoot.search.trials import BASELINES

if TYPE_CHECKING:
    from surefoot.search.search import _Search
    from surefoot.tune.run import Run

#: The file in a run folder, and what it holds: raised when that changes.
WHY, VERSION = "why.json", 1
#: Test examples that models are run on anew, over all test sets; and for each second of a time limit.
MOST, PER_SECOND = 4000, 10
#: Slices that are kept.
SLICES = 12


def explain(
    searcher: _Search,
    answer: Answer,
    board: Sequence[Mapping[str, Any]],
    tests: Mapping[str, Examples],
    predictions: Mapping[str, Prediction],
) -> dict[str, Any]:
    """The facts of a finished search beyond `search.json`, written to `why.json`; returns them.

    predictions: of the shipped model on the tests. At most 4,000 test examples are looked at (with a time limit, ten for
    each of its seconds), an even share of every set, drawn by the seed. On them run the three baselines and the models
    between the start and the answer: with MiniLM on two cores some 20 seconds for 4,000 sentences of a tweet's length.
    """
    began = time.monotonic()
    trials, judge = searcher.trials, searcher.trials.judge
    family = copy(trials.family)
    family.model = deepcopy(family.model)  # the shipped model's weights are where the family builds
    held = searcher.small.sets
    looked = _held_sets(answer, trials, held)
    sampled = _test_sets(tests, predictions, answer, searcher)
    running = _as_sets(sampled, searcher)
    baselines = {name: family.find(f"trial-{number:04d}") for number, name in enumerate(BASELINES)}
    for name, member in baselines.items():
        if member is None:
            continue
        for each in looked:
            each.logits[name] = member.logits[HOME if each.kind == "home" else each.name]
        if running is not None:
            model = family.build(member.load(), normalize=member.normalize)
            for each, logits in zip(sampled, running.logits(model, depth=member.depth).values(), strict=True):
                each.logits[name] = logits
    everything = [*looked, *sampled]
    why: dict[str, Any] = {"version": VERSION, "candidate": answer.choice.name, "trials": len(board)}
    why |= _of_sets(everything, len(trials.train.classes))
    if baselines["linear_probe"] is not None:
        why["changes"] = flipped(everything, "linear_probe")
    why["path"] = path(family, answer.member, held, everything, searcher.plan.max_length, judge, HOME, trials.home)
    why["lines"] = _lines(answer, trials, searcher.targets, sampled)
    why["members"] = _members(answer, trials)
    why["importance"] = importance(board, seed=searcher.plan.seed)
    return written(why, searcher.keeper.folder, began)


def explain_run(run: Run, tests: Mapping[str, Examples]) -> dict[str, Any]:
    """The facts of one recipe's run that need no other model, written to `why.json` of its folder; returns them."""
    began = time.monotonic()
    looked = []
    for name, examples in list(tests.items())[:SETS]:
        labelled = examples.with_classes(run.model.classes)
        each = Looked.of(name, "test", labelled, most=max(1, MOST // len(tests)), seed=0)
        each.logits[ANSWER] = run.predictions[name].logits[each.rows]
        looked.append(each)
    why = {"version": VERSION, **_of_sets(looked, len(run.model.classes))}
    return written(why, run.folder, began)


def written(why: dict[str, Any], folder: Path | None, began: float) -> dict[str, Any]:
    """The facts as JSON has them, with how long they took since `began`; in the folder's `why.json`, where there is one."""
    why = plain(why) | {"seconds": round(time.monotonic() - began, 1)}
    if folder is not None:
        write_json(folder / WHY, why)
    return why


def _of_sets(looked: Sequence[Looked], classes: int) -> dict[str, Any]:
    """What needs nothing but what models say of labelled sets."""
    among = [each for each in looked if each.kind == "test"] or list(looked)
    names = {each.name if each.kind != "home" else "home": each for each in among}
    worst, count = find_slices({name: (each.examples, each.right()) for name, each in names.items()})
    return {
        "versus": {each.key(): versus(each) for each in looked},
        "reliability": {each.key(): confidence(each) for each in looked},
        "labels": label_shares({each.key(): each for each in looked}, classes),
        "slices": {"looked": count, "worst": [each.as_json() for each in worst[:SLICES]]},
    }


def _held_sets(answer: Answer, trials: Any, held: Sets) -> list[Looked]:
    """Home's held-out examples and the judge, where the answer is the one that was chosen without each example."""
    found = []
    shipped = answer.as_shipped().logits
    for name, examples in held.named.items():
        kind, called = ("home", "home") if name == HOME else ("judge", name)
        each = Looked.of(called, kind, examples.with_classes(trials.train.classes), most=len(examples), seed=0)  # type: ignore[arg-type]
        each.logits[RAW] = answer.member.logits[name]
        if name == HOME:
            each.logits[ANSWER] = shipped[name]
        else:
            own = trials.judge.domain == trials.judge.domains.index(name)
            each.logits[ANSWER] = answer.choice.crossed[own]
        found.append(each)
    return found[: SETS + 1]


def _test_sets(
    tests: Mapping[str, Examples], predictions: Mapping[str, Prediction], answer: Answer, searcher: _Search
) -> list[Looked]:
    limit = searcher.plan.time_limit
    most = MOST if limit is None else int(min(MOST, PER_SECOND * limit))
    found = []
    for name, examples in list(tests.items())[:SETS]:
        labelled = examples.with_classes(searcher.trials.train.classes)
        share = max(20, most // min(len(tests), SETS))
        each = Looked.of(name, "test", labelled, most=share, seed=searcher.plan.seed)
        each.logits[ANSWER] = predictions[name].logits[each.rows]
        each.logits[RAW] = (each.logits[ANSWER] - answer.shipped.bias) * answer.shipped.temperature
        found.append(each)
    return found


def _as_sets(sampled: Sequence[Looked], searcher: _Search) -> Sets | None:
    if not sampled:
        return None
    classes, length = searcher.trials.train.classes, searcher.plan.max_length
    return Sets({each.name: each.examples for each in sampled}, classes=classes, max_length=length)


def _lines(answer: Answer, trials: Any, targets: Mapping[str, str], sampled: Sequence[Looked]) -> dict[str, Any]:
    """Agreement of the models that a forecast looks at, on the targets and on the judge."""
    final = answer.as_shipped()
    others = [each for each in trials.family.members.values() if each.name != final.name and HOME in each.logits]
    few = np.unique(np.linspace(0, len(others) - 1, min(FAMILY, len(others))).round().astype(int))
    everyone = [final, *(others[i] for i in few)]
    home = np.stack([each.logits[HOME].argmax(1) for each in everyone])
    found: dict[str, Any] = {}
    for kind, key, name in [("target", k, v) for k, v in targets.items()] + [
        ("judge", d, d) for d in trials.judge.domains
    ]:
        if len(found) >= SETS or any(key not in each.logits for each in everyone):
            continue
        away = np.stack([each.logits[key].argmax(1) for each in everyone])
        labels = (
            trials.judge.labels[trials.judge.domain == trials.judge.domains.index(key)] if kind == "judge" else None
        )
        seen = line(home, away, trials.home, labels)
        if seen is not None:
            found[f"{kind}/{name}"] = {"name": name, "kind": kind, **seen}
    for each in sampled:
        if f"target/{each.name}" in found:
            found[f"target/{each.name}"]["truth"] = round(float(each.right().mean()), 4)
    return found


def _members(answer: Answer, trials: Any) -> list[dict[str, Any]]:
    """What the answer is made of: score, accuracy at home and on each domain of the judge, as each would be shipped."""
    rule, everything = RULES[trials.plan.rule], np.ones(len(trials.judge), dtype=bool)
    names = answer.member.facts.get("soup") or [answer.member.name]
    parts = [trials.family.members[name] for name in names if name in trials.family.members]
    found = []
    for member in [*parts, answer.member] if len(parts) > 1 else parts:
        view = trials.view(member)
        shipped = view.shipped(trials.judge, everything)
        right = shipped(view.logits).argmax(1) == trials.judge.labels
        domains = {
            name: round(float(right[trials.judge.domain == number].mean()), 4)
            for number, name in enumerate(trials.judge.domains)
        }
        home = float((shipped(view.home).argmax(1) == trials.home).mean())
        what = answer.choice.name if member is answer.member and len(parts) > 1 else member.name
        found.append({"name": what, "score": rule(view, trials.judge, everything), "home": home, "judge": domains})
    return found
