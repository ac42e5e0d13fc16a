"""`sts`: how alike two sentences are, from three years of SemEval's task, by MiniLM or by one that starts from nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.stats import spearmanr

from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import stored
from surefoot.errors import SurefootError
from surefoot.evidence.classification import World
from surefoot.evidence.cost import Clock, nothing_cached
from surefoot.evidence.embedding import Reader, opened, reader
from surefoot.evidence.entry import Arm
from surefoot.evidence.geometry import geometry, sensitivity, word_order
from surefoot.evidence.quantities import is_quantity, measure
from surefoot.evidence.track import Track
from surefoot.evidence.trained import Trained, predictions
from surefoot.evidence.undone import sentences, undone
from surefoot.models.model import Model
from surefoot.tune.fit import Fit
from surefoot.tune.recipe import Recipe, build_objective

if TYPE_CHECKING:
    import pandas as pd

#: Pairs drawn of every subset of a year: headlines, forum posts, captions, news, glosses.
PAIRS = 100
#: Unlabelled sentences that an arm trains on, one pass over them: 32 steps.
SENTENCES = 2048
#: Sentences of the same kinds that none trains on, for quantities.
HELD_OUT = 256
#: What an arm's recipe changes. Batch and length are SimCSE's. Its learning rate, 3e-5, is for 15,000 steps; for 32 this
#: one was taken without a search.
RECIPE: Mapping[str, Any] = {
    "objectives": {"simcse": 1.0},
    "head": "zero",
    "optimizer": {"name": "adamw", "lr": 1e-4},
    "epochs": 1,
    "batch_size": 64,
    "max_length": 32,
    "warmup": 0.1,
}


class SentenceSimilarity(Track):
    """Cosine of sentence embeddings against the mean of people's ratings, Spearman's rho: of each year over the pairs of
    all its subsets together, as papers report it, and the mean over years.

    The baseline arm is MiniLM as it is. An arm with a recipe starts from MiniLM with its sentence training undone (see
    `undone.py`), and trains on unlabelled sentences of other sources; `{epochs: 0}` is that start as it is.
    """

    name = "sts"
    summary = "sentence similarity (SemEval STS 2012 to 2014): Spearman's rho, mean over years; MiniLM as it is, or one that is no sentence encoder any more, trained on 2,048 unlabelled sentences"
    metric: ClassVar[str] = "spearman"
    generation: ClassVar[int] = 2
    pairs: ClassVar[int] = PAIRS
    recipe: ClassVar[Mapping[str, Any]] = RECIPE

    def check(self) -> None:
        stored("sts")

    @cached_property
    def rated(self) -> pd.DataFrame:
        """Pairs with `year`, `subset`, `score` (0 to 5), `sentence1` and `sentence2`."""
        import pandas as pd

        return pd.read_parquet(stored("sts"))

    def start(self, store: Path) -> Path:
        """The folder of the model that arms with a recipe start from."""
        return undone(store)

    def model(self, how: Mapping[str, Any], folder: Path | str = "minilm") -> Model:
        """What an arm reads with, from `folder` where its `embedding` names no model."""
        return opened(how, folder)

    def unlabelled(self, seed: int) -> Examples:
        """What arms with a recipe may train on."""
        return sentences(SENTENCES + HELD_OUT, seed=seed)

    def run(self, arm: Arm, *, seed: int, quantities: Collection[str] = (), store: Path) -> dict[str, float]:
        if arm != Arm(recipe=arm.recipe, embedding=arm.embedding):
            raise SurefootError(
                f"track `{self.name}` has recipes and embeddings alone: leave out what else the arm has"
            )
        how = arm.embedding or {}
        drawn = self.rated.groupby(["year", "subset"]).sample(self.pairs, random_state=seed).reset_index(drop=True)
        if not arm.recipe:
            model, clock = self.model(how), Clock()
            with nothing_cached(), clock.running():
                found = scores(reader(how, model, self._for_codes(how, seed), seed=seed), drawn)
            return found | {"seconds": clock.seconds}
        trained = self.tune(arm, seed=seed, store=store)
        asked = [name for name in quantities if is_quantity(name)]
        if asked:
            trained.predicted |= predictions(trained.model, {**trained.world.tests, "train": trained.world.train})
        with nothing_cached():
            found = scores(reader(how, trained.model, self._for_codes(how, seed), seed=seed), drawn)
        return found | measure(trained, asked) | {"seconds": trained.seconds}

    def _for_codes(self, how: Mapping[str, Any], seed: int) -> list[str]:
        return list(self.unlabelled(seed).inputs) if "code" in how else []

    def tune(self, arm: Arm, *, seed: int, store: Path) -> Trained:
        """The start, trained by the arm's recipe."""
        folder, clock = self.start(store), Clock()
        recipe = Recipe(**{**self.recipe, **arm.recipe})
        every = self.unlabelled(seed)
        if any("pairs" in build_objective(name, spec).needs for name, spec in recipe.objectives.items()):
            # A sentence is its own positive, as in SimCSE: the two passes differ by their dropout.
            every = replace(every, positive=np.array(every.inputs, dtype=object))
        test, train = every.take(np.arange(HELD_OUT)), every.take(np.arange(HELD_OUT, len(every)))
        world = World(self.model(arm.embedding or {}, folder), train, {"sentences": test}, "sentences", test)
        with nothing_cached(), clock.running():
            fit = Fit(recipe, world.model, train, seed=100 * seed)
            start = {name: each.clone() for name, each in fit.model.state_dict().items()}
            model = fit.run()
        seconds = clock.seconds if recipe.epochs else 0.0  # setting up is no cost that others are divided by
        return Trained(world=world, fit=fit, model=model, start=start, depth=0, predicted={}, seconds=seconds)


def scores(read: Reader, pairs: pd.DataFrame) -> dict[str, float]:
    """Spearman's rho by year and their mean, on the subsets that are tests; `spearman_train`: on those that are not; and
    what the embeddings of the tests are like (see `geometry.py`)."""
    first, second = read(list(pairs["sentence1"])), read(list(pairs["sentence2"]))
    cosine, rated = (first * second).sum(1), pairs["score"].astype(float).to_numpy()
    test = pairs["subset"].str.endswith(".test").to_numpy()
    found = {
        f"spearman/{year}": rho(cosine[where], rated[where])
        for year in sorted(set(pairs["year"]))
        for where in [test & (pairs["year"] == year).to_numpy()]
    }
    mean = {"spearman": float(np.mean(list(found.values())))}
    if not test.all():
        mean["spearman_train"] = rho(cosine[~test], rated[~test])
    texts = [list(pairs[name][test]) for name in ("sentence1", "sentence2")]
    words = {"overlap_order": word_order(cosine[test], *texts)}
    more = geometry(first[test], second[test], rated[test]) | sensitivity(read, texts[0])
    return mean | found | more | words


def rho(one: np.ndarray, other: np.ndarray) -> float:
    return float(spearmanr(one, other).statistic)


TRACK = SentenceSimilarity()
