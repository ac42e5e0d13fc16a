"""`domains`: what is said to a bank, to an assistant and in the news, told apart by one model that is told which it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.metrics import average_precision_score

from surefoot import load
from surefoot.data.domains import marked
from surefoot.data.examples import Examples, concatenate
from surefoot.data.tasks.stored import stored
from surefoot.errors import SurefootError
from surefoot.evidence import paired
from surefoot.evidence.cost import Clock, nothing_cached
from surefoot.evidence.entry import Arm
from surefoot.evidence.reading import embed
from surefoot.evidence.track import Track
from surefoot.models.model import Model
from surefoot.tune.fit import Fit
from surefoot.tune.recipe import Recipe

DOMAINS = ("bank", "assistant", "news")
#: Pairs of a domain that train, one pass; pairs of a kind, the same and not, that are asked about in each.
PAIRS, ASKED = 256, 300
#: Batch and learning rate as on the track `pairs`.
RECIPE: Mapping[str, Any] = {
    "objectives": {"infonce": 1.0},
    "optimizer": {"name": "adamw", "lr": 2e-5},
    "epochs": 1,
    "batch_size": 32,
    "max_length": 64,
    "warmup": 0.1,
}
Pair = tuple[str, str]


class Domains(Track):
    """Pairs that mean the same: queries of one intent (Banking77, CLINC150), sentences rated alike (STS). Asked about are
    intents and a year that no arm trains on: average precision of their cosine against pairs that do not, the mean over
    domains. Every text begins with its domain's word, in training and in the test, for every arm."""

    name = "domains"
    summary = "one MiniLM trained on 256 pairs of each of three domains, which texts begin with: same meaning or not, for intents and news it has not seen (average precision)"
    metric: ClassVar[str] = "precision"

    def check(self) -> None:
        for name in ("banking77", "clinc150", "sts"):
            stored(name)

    def model(self) -> Model:
        """What arms start from."""
        return load("minilm", max_length=64)

    def run(self, arm: Arm, *, seed: int, quantities: Collection[str] = (), store: Path) -> dict[str, float]:
        if arm != Arm(recipe=arm.recipe):
            raise SurefootError(f"track `{self.name}` trains by a recipe alone: leave out what else the arm has")
        train, clock = marked(self.training(seed)), Clock()
        with nothing_cached(), clock.running():
            model = Fit(Recipe(**{**RECIPE, **arm.recipe}), self.model(), train, seed=100 * seed).run()
        with nothing_cached():
            found = {f"precision/{domain}": self.precision(model, domain, domain, seed) for domain in DOMAINS}
            others = [
                self.precision(model, domain, other, seed)
                for domain, other in zip(DOMAINS, (*DOMAINS[1:], DOMAINS[0]), strict=True)
            ]
        mean = float(np.mean(list(found.values())))
        return found | {
            "precision": mean,
            "wrong_domain_cost": mean - float(np.mean(others)),
            "seconds": clock.seconds,
        }

    def training(self, seed: int) -> Examples:
        """Pairs of all domains."""
        parts = []
        for domain in DOMAINS:
            pairs, _ = self.pairs[domain]["train"]
            order = np.random.default_rng([seed, 1]).permutation(len(pairs))[:PAIRS]
            chosen = [pairs[place] for place in order]
            positives = np.array([second for _, second in chosen], dtype=object)
            names = np.full(len(chosen), domain)
            parts.append(Examples([first for first, _ in chosen], None, (), domain=names, positive=positives))
        return concatenate(parts)

    def precision(self, model: Model, domain: str, said: str, seed: int) -> float:
        """Of the domain's pairs, with the word `said` before every text."""
        rng = np.random.default_rng([seed, 2])
        same, other = ([each[i] for i in rng.permutation(len(each))[:ASKED]] for each in self.pairs[domain]["test"])
        first, second = (embed(model, [f"{said} {pair[side]}" for pair in (*same, *other)]) for side in (0, 1))
        truth = np.arange(len(first)) < len(same)
        return float(average_precision_score(truth, (first * second).sum(1)))

    @cached_property
    def pairs(self) -> dict[str, dict[str, tuple[list[Pair], list[Pair]]]]:
        """By domain and split: pairs that mean the same, and pairs that do not."""
        import pandas as pd

        bank, rated = pd.read_parquet(stored("banking77")), pd.read_parquet(stored("sts"))
        intents = np.random.default_rng(77).permutation(sorted(set(bank["intent"])))
        halves = {"train": intents[: len(intents) // 2], "test": intents[len(intents) // 2 :]}
        found: dict[str, dict[str, tuple[list[Pair], list[Pair]]]] = {domain: {} for domain in DOMAINS}
        for split, asked in (("train", False), ("test", True)):
            rows = bank[(bank["split"] == split) & bank["intent"].isin(halves[split])]
            found["bank"][split] = _of_intents(zip(rows["text"], rows["intent"], strict=True))
            spoken = paired.queries(split, first=not asked)
            found["assistant"][split] = _of_intents((text, intent) for text, intent, _ in spoken)
            year = rated[rated["year"] == paired.ASKED] if asked else rated[rated["year"].isin(paired.TRAINED)]
            found["news"][split] = (_pairs(year[year["score"] >= paired.SAME]), _pairs(year[year["score"] <= 2.0]))
        return found


def _of_intents(queries: Iterable[tuple[str, str]]) -> tuple[list[Pair], list[Pair]]:
    """Each query with one of its own intent, and with the one of others that shares most words with it, of 50 drawn."""
    texts, intents = (np.array(each) for each in zip(*queries, strict=True))
    words = [set(text.lower().split()) for text in texts]
    rng = np.random.default_rng(0)
    same, other = [], []
    for row, (text, intent) in enumerate(zip(texts, intents, strict=True)):
        own = np.flatnonzero((intents == intent) & (texts != text))
        if not len(own):
            continue
        same.append((str(text), str(texts[rng.choice(own)])))
        drawn = rng.choice(np.flatnonzero(intents != intent), 50)
        alike = [len(words[row] & words[place]) / len(words[row] | words[place]) for place in drawn]
        other.append((str(text), str(texts[drawn[int(np.argmax(alike))]])))
    return same, other


def _pairs(rows: Any) -> list[Pair]:
    return list(zip(rows["sentence1"], rows["sentence2"], strict=True))


TRACK = Domains()
