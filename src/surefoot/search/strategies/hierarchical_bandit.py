"""AutoRAG-HP: a bandit that chooses which hyperparameter to move, and bandits that choose its value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.search.bandit import Arms, Bandit, Play, Setting
from surefoot.tune.objective import Space, positive


@register(
    "hierarchical_bandit",
    kind="strategy",
    family="bandit",
    papers=[
        Paper(
            "AutoRAG-HP: Automatic Online Hyper-Parameter Tuning for Retrieval-Augmented Generation",
            "Fu et al.",
            2024,
            arxiv="2406.19251",
        )
    ],
)
class HierarchicalBandit(Bandit):
    """Online tuning of categorical hyperparameters from noisy rewards, one setting a call, by bandits on two levels.

    h = argmax_h  m_h + alpha sqrt(ln t / n_h);   v = argmax_v  m_hv + alpha sqrt(ln t_h / n_hv)

    The upper bandit chooses which hyperparameter h moves, the lower one of h its value v; the others stay at what they
    are. The setting's reward r goes into the means m and counts n of both arms; t_h: pulls of h. For retrieval r is
    quality - beta * tokens / most tokens. A setting is thought as good as the sum of its values' means, so that fewer
    pulls are needed than one level does where hyperparameters add up, and the best may be missed where they do not. A
    value is credited with what the others were at the time: with a small alpha it may stay with a bad one for good.
    The first setting is the first value of each.

    levels: 2; 1 is one bandit over all combinations (UCB1, Auer et al. 2002), which misses none and needs many. alpha:
    sqrt(2), UCB1's for rewards in [0, 1]; a very large one tries all arms in turn, as grid search does.
    The authors' code has not been seen: levels, arms and updates follow the paper's abstract and descriptions of it, the
    bonus is UCB1's, and how settings are ranked in the end is this library's choice.
    Raises RecipeError for settings out of range and for a space without choices. Reference: Fu et al. 2024.

    >>> play = HierarchicalBandit().over({"top_k": [1, 5], "model": ["small", "large"]})
    >>> for _ in range(60):
    ...     setting = play.ask()
    ...     play.tell(setting, reward=0.1 * setting["top_k"] + 0.3 * (setting["model"] == "large"))
    >>> play.best
    {'top_k': 5, 'model': 'large'}
    """

    def __init__(self, *, levels: int = 2, alpha: float = math.sqrt(2)) -> None:
        if levels not in (1, 2) or isinstance(levels, bool):
            raise RecipeError(f"`levels` is {levels}: it must be 1 (all combinations are arms) or 2")
        self.levels = levels
        self.alpha = positive("alpha", alpha, zero=True)

    def over(self, space: Mapping[str, Sequence[Any]], *, seed: int = 0) -> Play:
        return (_Flat if self.levels == 1 else _Two)(space, alpha=self.alpha, seed=seed)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"alpha": Space(0.05, 2.0, log=True)}


class _Flat(Play):
    """Every combination is an arm."""

    def __init__(self, space: Mapping[str, Sequence[Any]], *, alpha: float, seed: int) -> None:
        super().__init__(space, seed=seed)
        self.place = {_key(setting): number for number, setting in enumerate(self.settings)}
        self.arms = Arms(len(self.settings), alpha=alpha, rng=self.rng)

    def ask(self) -> Setting:
        return dict(self.settings[self.arms.choose()])

    def tell(self, setting: Setting, reward: float) -> None:
        self.arms.reward(self.place[_key(setting)], reward)

    def scores(self) -> np.ndarray:
        return self.arms.known


class _Two(Play):
    """A bandit over hyperparameters, and one over the values of each."""

    def __init__(self, space: Mapping[str, Sequence[Any]], *, alpha: float, seed: int) -> None:
        super().__init__(space, seed=seed)
        self.names = list(self.space)
        self.upper = Arms(len(self.names), alpha=alpha, rng=self.rng)
        self.lower = {name: Arms(len(values), alpha=alpha, rng=self.rng) for name, values in self.space.items()}
        self.now = dict.fromkeys(self.space, 0)

    def _next(self) -> tuple[str, int]:
        name = self.names[self.upper.choose()]
        return name, self.lower[name].choose()

    def ask(self) -> Setting:
        name, value = self._next()
        return {each: self.space[each][value if each == name else now] for each, now in self.now.items()}

    def tell(self, setting: Setting, reward: float) -> None:
        name, value = self._next()
        if _key(setting) != _key(self.ask()):
            # Somebody tried another setting: it counts for the values in which it differs from what was.
            given = {each: self.space[each].index(setting[each]) for each in self.space}
            name = next((each for each in self.space if given[each] != self.now[each]), name)
            value = given[name]
            self.now = given
        self.now[name] = value
        self.upper.reward(self.names.index(name), reward)
        self.lower[name].reward(value, reward)

    def scores(self) -> np.ndarray:
        found = np.zeros(len(self.settings))
        for name, arms in self.lower.items():
            where = [self.space[name].index(setting[name]) for setting in self.settings]
            found += arms.known[where]
        return found


def _key(setting: Setting) -> tuple[tuple[str, str], ...]:
    return tuple((name, repr(value)) for name, value in sorted(setting.items()))
