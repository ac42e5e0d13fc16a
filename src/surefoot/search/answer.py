"""The answer of a search: one model, what choosing it was worth, forecasts, and the target's label prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from surefoot.assess.decision import Decision, fit_decision
from surefoot.assess.forecast import Forecast, forecast
from surefoot.assess.prior import Prior
from surefoot.assess.temperature import Calibration
from surefoot.files import plain
from surefoot.search.family import Member
from surefoot.search.journal import Entry
from surefoot.search.judge import Choice, Judge, choose, shares_of
from surefoot.search.sets import HOME
from surefoot.search.soups import Soups
from surefoot.search.trials import Trials

#: Models that a forecast looks at, at most: the line is as good with thirty as with three hundred.
FAMILY = 30


@dataclass
class Target:
    """What is known of a domain without labels: the metric to expect and, of a classifier, where to cut."""

    forecast: Forecast
    decision: Decision | None = None

    def as_json(self) -> dict[str, Any]:
        if self.decision is None:
            return {"forecast": self.forecast.as_json()}
        decision = {
            "temperature": self.decision.calibration.temperature,
            "bias": self.decision.calibration.bias.tolist(),
            "prior": self.decision.prior.tolist(),
        }
        prior = {key: value for key, value in vars(self.prior).items() if key != "facts"} if self.prior else None
        return {"forecast": self.forecast.as_json(), "decision": decision, "prior": plain(prior)}

    @property
    def prior(self) -> Prior | None:
        """The label shares as they were estimated."""
        return self.decision.estimate if self.decision is not None else None


@dataclass
class Answer:
    """`member` is the model to ship, `choice` how it was found. `nested`: what cross-fitting says of it, by name.

    `shipped`: temperature and bias that go into the head (see `fit_shipped`); `member` has logits without them.
    """

    member: Member
    choice: Choice
    shipped: Calibration
    nested: dict[str, Any]
    targets: dict[str, Target] = field(default_factory=dict)

    def as_shipped(self) -> Member:
        """The member with the logits that the shipped model gives."""
        return replace(self.member, logits={name: self.shipped(each) for name, each in self.member.logits.items()})

    def as_json(self) -> dict[str, Any]:
        return {
            "candidate": self.choice.name,
            "members": self.member.facts.get("soup", [self.member.name]),
            "share": self.member.facts.get("share", 1.0),
            "start": self.member.start,
            "temperature": self.shipped.temperature,
            "bias": self.shipped.bias.tolist(),
            "scores": self.choice.scores,
            "judge domains": self.nested,
            "targets": {name: target.as_json() for name, target in self.targets.items()},
        }


def find_answer(trials: Trials, small: Soups, targets: Sequence[str]) -> Answer:
    """Choose among the baselines and soups of the best; then forecast every target.

    small: soups over home's held-out examples and the judge; what is chosen runs over all sets once more.
    """
    counted = trials.ledger.done[: None if trials.plan.trials is None else trials.plan.trials]
    complete = [entry for entry in counted if entry.state == "complete"]
    members = [found for entry in complete if (found := trials.family.find(f"trial-{entry.number:04d}"))]
    judge, family = trials.judge, trials.family
    choice = choose(small.candidates(members), judge, trials.task.rule(trials.plan))
    final = small.member(choice.name, np.ones(len(judge), dtype=bool))
    if "soup" in final.facts:
        parts = _on_all(trials, [family.members[name] for name in final.facts["soup"]])
        final.weights = family.mix(parts, share=final.facts["share"])
        model = family.build(final.weights, normalize=final.normalize)
        final.logits = trials.sets.logits(model, depth=final.depth)
    else:
        final = _on_all(trials, [final])[0]
    task = trials.task
    shipped = task.shipped(trials.view(final), judge, final.logits, trials.home)
    nested = {"domains": list(judge.domains), "examples": len(judge), "folds": len(choice.picked)}
    baselines = {name: trials.view(member) for name, member in zip(task.baselines, members, strict=False)}
    nested |= {"picked": list(choice.picked), **task.worth(choice, baselines, judge)}
    nested["steered"] = max(0, len(counted) - trials.first_draw - trials.plan.startup)
    answer = Answer(final, choice, shipped, nested)
    for name in targets:
        answer.targets[name] = task.look_at(name, answer.as_shipped(), members, trials.home, judge)
    return answer


def _on_all(trials: Trials, members: list[Member]) -> list[Member]:
    """The members trained again on all examples, where trials saw a part of them and there is time."""
    every, seen = len(trials.train_all), len(trials.train)
    if every == seen:
        return members
    seconds = sum(
        every * member.facts["recipe"]["epochs"] / max(member.facts.get("rate", 0), 1e-9) for member in members
    )
    if seconds > trials.clock.remaining():
        trials.notes.append(
            f"the model saw {seen:,} of {every:,} examples: there was no time to train on all; without a time limit it does"
        )
        return members
    return [trials.refit(member, trials.train_all) for member in members]


def look_at(name: str, final: Member, members: Sequence[Member], home_labels: np.ndarray, judge: Judge) -> Target:
    """Forecast one target, and fit the decision for it; `final` has the logits of the shipped model."""
    # A model agrees with itself: it must not be among the others as well.
    others = _spread([member for member in members if member.name != final.name], FAMILY)
    everyone = [final, *others]
    seen = forecast(
        np.stack([each.logits[HOME] for each in everyone]),
        home_labels,
        np.stack([each.logits[name] for each in everyone]),
        0,
        known=[
            (np.stack([each.logits[domain] for each in everyone]), judge.labels[judge.domain == number])
            for number, domain in enumerate(judge.domains)
        ],
    )
    shares = shares_of(home_labels, final.logits[HOME].shape[1])
    decision = fit_decision(judge.logits(final.logits), judge.labels, shares, final.logits[name])
    return Target(seen, decision)


def leaderboard(entries: Sequence[Entry]) -> list[Entry]:
    """Complete trials, the best first."""
    complete = [entry for entry in entries if entry.state == "complete" and entry.value is not None]
    return sorted(complete, key=lambda entry: (entry.value, entry.number))


def _spread(members: Sequence[Member], most: int) -> list[Member]:
    """At most so many members, evenly over the order in which they were trained."""
    if len(members) <= most:
        return list(members)
    return [members[i] for i in np.linspace(0, len(members) - 1, most).round().astype(int)]
