"""Why the answer for an embedding is what it is: what the baselines, and models on the way to it, say of the same sets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.assess.changes import paired_difference
from surefoot.assess.similarity import Rated, SimilaritySet, vectors
from surefoot.embed.geometry import describe_geometry
from surefoot.search.answer import Answer
from surefoot.search.explain.collect import VERSION, written
from surefoot.search.explain.looked import ANSWER, SETS
from surefoot.search.explain.path import ALPHAS
from surefoot.search.importance import importance
from surefoot.search.sets import HOME
from surefoot.search.similarities import SimilaritySets

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.search.search import _Search

#: Texts that models are run on anew, over all test sets, and for each second of a time limit; those whose vectors' geometry is measured.
MOST, PER_SECOND, CLOUD = 4000, 10, 1000


@dataclass(eq=False)
class Seen:
    """A set, and what each model says of it: one number per example."""

    name: str
    kind: str
    judged: SimilaritySet
    whole: int
    outputs: dict[str, np.ndarray] = field(default_factory=dict)

    def key(self) -> str:
        """What the set is called in `why.json`: a judge and a test set may have one name."""
        return f"{self.kind}/{self.name}"

    def size(self) -> int:
        """How many texts it has."""
        return sum(len(texts) for texts in self.judged.texts)

    def versus(self) -> dict[str, Any]:
        """The metric of every model, and what the answer is above each, paired, both with 95% intervals.

        Differences of rank correlations are to first order (see `Rated.contributions`).
        """
        mine = self.judged.contributions(self.outputs[ANSWER])
        models: dict[str, Any] = {}
        for name, outputs in self.outputs.items():
            models[name] = self.judged.score(outputs).as_json()
            if name != ANSWER:
                theirs = self.judged.contributions(outputs)
                above = paired_difference(theirs, mine, clusters=self.judged.document)
                models[name]["answer above"] = above.as_json()
        facts = {"name": self.name, "kind": self.kind, "metric": self.judged.metric, "of": self.whole}
        return facts | {"examples": len(self.judged), "models": models}


def explain_embedding(
    search: _Search,
    answer: Answer,
    board: Sequence[Mapping[str, Any]],
    tests: Mapping[str, SimilaritySet],
    outputs: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """The facts of a finished search beyond `search.json`, written to `why.json`; returns them.

    outputs: of the shipped model on the tests. The three baselines and the models a quarter, half and three quarters of the
    way from the start run on at most 4,000 texts of the tests (with a time limit, ten for each of its seconds), an even
    share of every set: some 100 seconds of one core with MiniLM. Of rated pairs a sample is drawn; a retrieval set with
    more texts than its share is left to the answer alone, and one of the judge is left out of the way.
    """
    began = time.monotonic()
    trials = search.trials
    family = copy(trials.family)
    family.model = deepcopy(family.model)  # the shipped model's weights are where the family builds
    seen = [_held(name, each, answer) for name, each in search.small.sets.named.items()]
    limit, length = search.plan.time_limit, search.plan.max_length
    most = MOST if limit is None else int(min(MOST, PER_SECOND * limit))
    seen += _tested(tests, outputs, most=most, seed=search.plan.seed)
    running = SimilaritySets({each.key(): each.judged for each in seen if each.kind == "test"}, max_length=length)
    between = [each for each in seen if each.kind == "test" or each.size() <= most]
    on_the_way = SimilaritySets({each.key(): each.judged for each in between}, max_length=length)
    cloud = _cloud(seen, seed=search.plan.seed)
    geometry: dict[str, Any] = {}
    for number, name in enumerate(trials.task.baselines):
        member = family.find(f"trial-{number:04d}")
        if member is not None:
            model = family.build(member.load(), normalize=member.normalize)
            said = running.logits(model) if len(running) else {}
            for each in seen:
                key = {"home": HOME, "judge": each.name}.get(each.kind)
                each.outputs[name] = said[each.key()] if key is None else member.logits[key]
            geometry[name] = _geometry(model, cloud)
    whole = replace(answer.member, weights=answer.member.load())
    moved = bool(whole.load())  # an answer that is the start has no way to it
    for alpha in ALPHAS[:-1] if moved else ():
        model = family.build(family.mix([whole], share=alpha), normalize=answer.member.normalize)
        said = on_the_way.logits(model) if between else {}
        for each in between:
            each.outputs[_share(alpha)] = said[each.key()]
    geometry[ANSWER] = _geometry(family.build(whole.load(), normalize=answer.member.normalize), cloud)
    why: dict[str, Any] = {"version": VERSION, "task": "embedding", "candidate": answer.choice.name}
    why |= {"trials": len(board), "path": _path(between, answer) if moved else {}, "geometry": geometry}
    why["sets"] = {each.key(): _without_path(each).versus() for each in seen}
    why["importance"] = importance(board, seed=search.plan.seed)
    return written(why, search.keeper.folder, began)


def _held(name: str, judged: SimilaritySet, answer: Answer) -> Seen:
    """Home's held-out pairs or a set of the judge, both of which helped to choose."""
    kind, called = ("home", "home") if name == HOME else ("judge", name)
    return Seen(called, kind, judged, len(judged), {ANSWER: answer.member.logits[name]})


def _tested(
    tests: Mapping[str, SimilaritySet], outputs: Mapping[str, np.ndarray], *, most: int, seed: int
) -> list[Seen]:
    found = []
    for name, judged in list(tests.items())[:SETS]:
        share = max(40, most // min(len(tests), SETS))
        rows = np.arange(len(judged))
        if isinstance(judged, Rated) and 2 * len(judged) > share:
            rows = np.sort(np.random.default_rng([seed, 43]).permutation(len(judged))[: share // 2])
            found.append(Seen(name, "test", judged.take(rows), len(judged), {ANSWER: outputs[name][rows]}))
        else:
            each = Seen(name, "test", judged, len(judged), {ANSWER: outputs[name]})
            found += [each] if each.size() <= share else []
    return found


def _share(alpha: float) -> str:
    return f"path {alpha}"


def _without_path(each: Seen) -> Seen:
    kept = {name: outputs for name, outputs in each.outputs.items() if not name.startswith("path ")}
    return replace(each, outputs=kept)


def _path(seen: Sequence[Seen], answer: Answer) -> dict[str, Any]:
    """The metric on every set at alpha = 0, 1/4, ..., 1 of theta_start + alpha (theta_answer - theta_start)."""
    sets = {}
    for each in seen:
        models = [_share(alpha) for alpha in ALPHAS[:-1]] + [ANSWER]
        values = [round(each.judged.score(each.outputs[name]).value, 4) for name in models]
        sets[each.key()] = {"name": each.name, "kind": each.kind, "metric": each.judged.metric, "values": values}
    return {"alphas": list(ALPHAS), "start": answer.member.start, "sets": sets}


def _cloud(seen: Sequence[Seen], *, seed: int) -> list[str]:
    """Texts of the tests, or of home and the judge where there are none: an even share of every set, drawn."""
    among = [each for each in seen if each.kind == "test"] or list(seen)
    rng, found = np.random.default_rng([seed, 44]), dict[str, None]()
    for each in among:
        texts = list(dict.fromkeys(text for side in each.judged.texts for text in side))
        found |= dict.fromkeys(texts[i] for i in rng.permutation(len(texts))[: max(2, CLOUD // len(among))])
    return list(found)


def _geometry(model: Model, texts: Sequence[str]) -> dict[str, Any]:
    return describe_geometry(vectors(model, texts), k=min(10, len(texts) - 1)).as_json() if len(texts) > 2 else {}
