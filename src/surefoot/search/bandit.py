"""The contract of a bandit: settings of named hyperparameters, tried one after another, each for a noisy reward.

    play = build("strategy", "hierarchical_bandit").over({"top_k": [1, 5, 10], "model": ["minilm", "tfidf"]}, seed=0)
    for query in stream:
        setting = play.ask()
        play.tell(setting, reward=quality_of(setting, query) - cost_of(setting))
    play.best

`surefoot.search.bandit_sampler` lets Optuna draw the settings, so that its studies, journals and pictures serve too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from surefoot.errors import RecipeError
from surefoot.search.strategy import Strategy

Setting = dict[str, Any]


class Arms:
    """So many arms with the mean of their rewards and how often they were pulled, chosen by upper confidence bounds.

    The next arm is argmax_a mean_a + alpha sqrt(ln t / n_a), t: pulls of all; arms without a pull come first, in an order
    drawn with the generator. alpha = sqrt(2) is UCB1 for rewards between 0 and 1.
    """

    def __init__(self, count: int, *, alpha: float, rng: np.random.Generator) -> None:
        self.alpha = alpha
        self.pulls = np.zeros(count, dtype=np.int64)
        self.means = np.zeros(count)
        self._order = rng.permutation(count)

    def choose(self) -> int:
        new = self._order[self.pulls[self._order] == 0]
        if len(new):
            return int(new[0])
        return int((self.means + self.alpha * np.sqrt(math.log(self.pulls.sum()) / self.pulls)).argmax())

    def reward(self, arm: int, value: float) -> None:
        self.pulls[arm] += 1
        self.means[arm] += (value - self.means[arm]) / self.pulls[arm]

    @property
    def known(self) -> np.ndarray:
        """Means (A,), minus infinity where there was no pull."""
        return np.where(self.pulls > 0, self.means, -np.inf)


class Play:
    """One run of a bandit over settings. A subclass writes `ask`, `tell` and `scores`."""

    def __init__(self, space: Mapping[str, Sequence[Any]], *, seed: int) -> None:
        self.space = check_space(space)
        self.rng = np.random.default_rng(seed)
        self.settings = [dict(zip(self.space, each, strict=True)) for each in product(*self.space.values())]

    def ask(self) -> Setting:
        """The setting to try next; the same until a reward is told."""
        raise NotImplementedError

    def tell(self, setting: Setting, reward: float) -> None:
        """What a setting that was asked for gave; best between 0 and 1, which alpha is made for."""
        raise NotImplementedError

    def scores(self) -> np.ndarray:
        """How good each of `settings` is thought to be, (S,)."""
        raise NotImplementedError

    def ranking(self, count: int) -> list[Setting]:
        """So many of the settings that are thought best, the best first."""
        return [self.settings[i] for i in np.argsort(-self.scores(), kind="stable")[:count]]

    @property
    def best(self) -> Setting:
        """The setting that is thought best."""
        return self.ranking(1)[0]


class Bandit(Strategy):
    """A strategy that chooses among settings of categorical hyperparameters which somebody else tries."""

    def over(self, space: Mapping[str, Sequence[Any]], *, seed: int = 0) -> Play:
        """A run over all combinations of the values; RecipeError for a space without choices."""
        raise NotImplementedError


def check_space(space: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Names with their values, each value once.

    >>> check_space({"top_k": []})
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `top_k` has no values to choose from: give a list of at least one
    """
    if not space:
        raise RecipeError("nothing is to be tuned: give names with lists of values, such as {top_k: [1, 5, 10]}")
    found = {}
    for name, values in space.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise RecipeError(f"`{name}` has no values to choose from: give a list of at least one")
        if len(set(map(repr, values))) != len(values):
            raise RecipeError(f"`{name}` lists a value twice: {list(values)!r}")
        found[name] = list(values)
    return found
