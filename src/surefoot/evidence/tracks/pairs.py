"""`pairs`: MiniLM fine-tuned on pairs that were made, and asked four kinds of questions, so that what is lost shows too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp
from scipy.stats import spearmanr

from surefoot import load
from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import stored
from surefoot.errors import SurefootError
from surefoot.evidence import paired
from surefoot.evidence.cost import Clock, nothing_cached
from surefoot.evidence.entry import Arm
from surefoot.evidence.reading import embed
from surefoot.evidence.track import Track
from surefoot.evidence.tracks import search
from surefoot.models.model import Model
from surefoot.tune.fit import Fit
from surefoot.tune.recipe import Recipe

#: Pairs that an arm trains on, one pass; rated pairs of each subset; what is asked of each unseen intent.
PAIRS, RATED, UTTERANCES = 1024, 100, 10
#: Pairs that are kept apart, a quarter of them where there are few.
HELD = 256
#: Batch and learning rate are those that sentence-transformers' examples train MiniLM-sized models by; the lower half of
#: the layers is frozen for speed.
RECIPE: Mapping[str, Any] = {
    "objectives": {"infonce": 1.0},
    "selection": {"name": "top_layers", "k": 3},
    "optimizer": {"name": "adamw", "lr": 2e-5},
    "epochs": 1,
    "batch_size": 32,
    "max_length": 128,
    "warmup": 0.1,
}


class Pairs(Track):
    """The baseline is MiniLM as it is; an arm with `pairs` trains its three top layers on 1,024 of them."""

    name = "pairs"
    summary = "MiniLM trained on 1,024 made pairs: Cranfield's questions (nDCG@10), docstrings of three other libraries, paraphrases against negations, STS 2014, intents by description"
    metric: ClassVar[str] = "ndcg"

    def check(self) -> None:
        search.cranfield()
        for name in ("sts", "clinc150"):
            stored(name)

    def run(self, arm: Arm, *, seed: int, quantities: Collection[str] = (), store: Path) -> dict[str, float]:
        model, clock = self.model(), Clock()
        if arm != Arm(pairs=arm.pairs, recipe=arm.recipe) or (arm.recipe and not arm.pairs):
            raise SurefootError(f"track `{self.name}` trains on `pairs` by a recipe: leave out what else the arm has")
        found: dict[str, float] = {}
        if arm.pairs is not None:
            pairs = paired.pairs_of(arm.pairs, most=PAIRS + HELD, seed=seed, store=store)
            held = min(HELD, len(pairs) // 4)
            with nothing_cached(), clock.running():
                train = pairs.take(range(held, len(pairs)))
                model = Fit(Recipe(**{**RECIPE, **arm.recipe}), model, train, seed=100 * seed).run()
            with nothing_cached():
                found = told_apart(model, pairs.take(range(held))) | {"seconds": clock.seconds}
            if arm.recipe.get("epochs") == 0:
                return found  # the baseline, of which the rest is known
        with nothing_cached():
            return found | self.asked(model, seed) | {"seconds": clock.seconds}

    def model(self) -> Model:
        """What arms start from."""
        return load("minilm", max_length=128)

    def asked(self, model: Model, seed: int) -> dict[str, float]:
        """All figures of a model."""
        found = {"ndcg": search._cranfield(model, seed)}
        for library in search.LIBRARIES:
            found[f"ndcg/{library}"] = search._docstrings(model, library, seed)
        found["ndcg_docstrings"] = float(np.mean([found[f"ndcg/{library}"] for library in search.LIBRARIES]))
        return found | self._similarity(model, seed) | self._described(model)

    @cached_property
    def _unseen(self) -> list[tuple[str, str]]:
        """(utterance, intent) of intents that no arm trains on."""
        by_intent: dict[str, list[str]] = {}
        for text, intent, _ in paired.queries("test", first=False):
            by_intent.setdefault(intent, []).append(text)
        return [(text, intent) for intent in sorted(by_intent) for text in by_intent[intent][:UTTERANCES]]

    @staticmethod
    def _similarity(model: Model, seed: int) -> dict[str, float]:
        sentences, same, opposite = (embed(model, list(each)) for each in zip(*paired.negation_triplets(), strict=True))
        right = (sentences * same).sum(1) > (sentences * opposite).sum(1)
        rated = paired.rated_pairs(seed, each=RATED)
        cosine = (embed(model, list(rated["sentence1"])) * embed(model, list(rated["sentence2"]))).sum(1)
        rho = [
            spearmanr(cosine[rows], rated["score"].to_numpy(np.float64)[rows]).statistic
            for subset in sorted(set(rated["subset"]))
            for rows in [(rated["subset"] == subset).to_numpy()]
        ]
        return {
            "paraphrase_over_negation": float(right.mean()),
            "negation_cosine": float((sentences * opposite).sum(1).mean()),
            "spearman": float(np.mean(rho)),
        }

    def _described(self, model: Model) -> dict[str, float]:
        """Of the ten utterances nearest to an unseen intent's description, the share that are of it."""
        texts, intents = zip(*self._unseen, strict=True)
        names = sorted(set(intents))
        scores = embed(model, [paired.in_words(each) for each in names]) @ embed(model, list(texts)).T
        nearest = np.argsort(-scores, axis=1)[:, :UTTERANCES]
        right = np.array(intents)[nearest] == np.array(names)[:, None]
        return {"described_recall": float(right.mean())}


def told_apart(model: Model, pairs: Examples) -> dict[str, float]:
    """Of pairs that were not trained on: in-batch cross-entropy of cosines at temperature 0.05 in nats, the share whose
    positive is the nearest of all, and, where there are negatives, by how much the positive is nearer, in cosines."""
    assert pairs.positive is not None
    anchors, positives = (embed(model, [str(text) for text in each]) for each in (pairs.inputs, pairs.positive))
    scores = anchors @ positives.T
    own = np.diag(scores)
    found = {
        "held_out_loss": float((logsumexp(scores / 0.05, axis=1) - own / 0.05).mean()),
        "held_out_pairs": float((scores.argmax(1) == np.arange(len(scores))).mean()),
    }
    if pairs.negative is not None:
        wrong = (anchors * embed(model, [str(text) for text in pairs.negative])).sum(1)
        found["held_out_margin"] = float((own - wrong).mean())
    return found


TRACK = Pairs()
