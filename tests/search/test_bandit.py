"""Bandits over categorical settings: UCB1 by hand and against its regret bound, two levels, and Optuna."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from surefoot.errors import RecipeError
from surefoot.search.bandit import Arms
from surefoot.search.bandit_sampler import BanditSampler
from surefoot.search.strategies.hierarchical_bandit import HierarchicalBandit

SPACE = {"top_k": [1, 2, 5, 10], "model": ["small", "large"], "share": [0.25, 0.5, 1.0]}


def quality(setting: dict[str, object]) -> float:
    """Additive; the best is top_k 5, large, 0.5."""
    return (
        {1: 0.1, 2: 0.2, 5: 0.35, 10: 0.3}[setting["top_k"]]
        + (0.2 if setting["model"] == "large" else 0.0)
        + {0.25: 0.1, 0.5: 0.2, 1.0: 0.05}[setting["share"]]
    )


def test_the_bound_is_the_papers() -> None:
    """argmax mean + alpha sqrt(ln t / n), by hand."""
    arms = Arms(3, alpha=0.5, rng=np.random.default_rng(0))
    for arm, value in ((0, 0.5), (1, 0.7), (2, 0.2), (1, 0.9), (1, 0.5)):
        arms.reward(arm, value)
    bounds = [
        0.5 + 0.5 * math.sqrt(math.log(5)),
        0.7 + 0.5 * math.sqrt(math.log(5) / 3),
        0.2 + 0.5 * math.sqrt(math.log(5)),
    ]
    assert arms.choose() == int(np.argmax(bounds)) == 0
    assert arms.means[1] == pytest.approx(0.7)


def test_flat_it_keeps_ucb1s_bound_on_regret() -> None:
    """Auer, Cesa-Bianchi and Fischer 2002, theorem 1: E regret <= sum 8 ln n / gap + (1 + pi^2 / 3) sum gap."""
    chances = np.array([0.9, 0.6, 0.5, 0.3])
    gaps = (chances.max() - chances)[1:]
    regrets = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        play = HierarchicalBandit(levels=1).over({"arm": [0, 1, 2, 3]}, seed=seed)
        total = 0.0
        for _ in range(1000):
            setting = play.ask()
            total += chances.max() - chances[setting["arm"]]
            play.tell(setting, float(rng.random() < chances[setting["arm"]]))
        regrets.append(total)
        assert play.best == {"arm": 0}
    assert np.mean(regrets) <= (8 * math.log(1000) / gaps).sum() + (1 + math.pi**2 / 3) * gaps.sum()
    assert np.mean(regrets) < 0.5 * 1000 * gaps.sum() / 4, "half of what drawing at random would lose"


def test_two_levels_move_one_hyperparameter_at_a_time_and_lose_less() -> None:
    """Three noisy calls for each of 24 settings are few for one level; hyperparameters add up here."""
    lost = {1: 0.0, 2: 0.0}
    for seed in range(30):
        for levels in lost:
            rng = np.random.default_rng(seed)
            play = HierarchicalBandit(levels=levels).over(SPACE, seed=seed)
            before = {"top_k": 1, "model": "small", "share": 0.25}
            for _ in range(72):
                setting = play.ask()
                assert play.ask() == setting, "the same until a reward is told"
                if levels == 2:
                    assert sum(setting[name] != before[name] for name in SPACE) <= 1
                play.tell(setting, quality(setting) + 0.2 * rng.normal())
                before = setting
            lost[levels] += (0.75 - quality(play.best)) / 30
    assert lost[2] < lost[1] < 0.25, "drawing at random loses 0.275 on average"


def test_a_large_alpha_goes_through_all_settings_in_turn() -> None:
    play = HierarchicalBandit(levels=1, alpha=1e6).over(SPACE, seed=3)
    for turn in range(3):
        seen = []
        for _ in range(24):
            setting = play.ask()
            seen.append(tuple(setting.values()))
            play.tell(setting, quality(setting))
        assert len(set(seen)) == 24, f"turn {turn}"


def test_no_exploration_stays_with_what_was_best() -> None:
    """The limit: alpha = 0 is greedy once every arm has been pulled."""
    play = HierarchicalBandit(levels=1, alpha=0.0).over(SPACE, seed=0)
    for _ in range(24):
        setting = play.ask()
        play.tell(setting, quality(setting))
    for _ in range(5):
        assert play.ask() == {"top_k": 5, "model": "large", "share": 0.5}
        play.tell(play.ask(), 0.75)


def test_rewards_of_settings_that_were_not_asked_for_count() -> None:
    play = HierarchicalBandit().over(SPACE)
    play.tell({"top_k": 10, "model": "small", "share": 0.25}, 0.4)
    assert play.lower["top_k"].means[3] == pytest.approx(0.4)  # type: ignore[attr-defined]
    flat = HierarchicalBandit(levels=1).over(SPACE)
    flat.tell({"share": 0.5, "model": "large", "top_k": 5}, 0.9)
    assert flat.best == {"top_k": 5, "model": "large", "share": 0.5}


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_optuna_draws_by_it_and_goes_on_where_it_was(direction: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sign = 1.0 if direction == "maximize" else -1.0

    def objective(trial: optuna.Trial) -> float:
        setting = {name: trial.suggest_categorical(name, values) for name, values in SPACE.items()}
        return sign * quality(setting)

    drawn = []
    for stops in ([40], [15, 25]):
        study = optuna.create_study(direction=direction, sampler=BanditSampler(HierarchicalBandit(), SPACE, seed=1))
        for count in stops:
            study.sampler = BanditSampler(HierarchicalBandit(), SPACE, seed=1)
            study.optimize(objective, n_trials=count)
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
    best = BanditSampler(HierarchicalBandit(), SPACE, seed=1).replay(study).best
    assert quality(best) >= 0.6, "0.475 on average"


def test_bad_input() -> None:
    for options in ({"levels": 3}, {"levels": True}, {"alpha": -1.0}):
        with pytest.raises(RecipeError):
            HierarchicalBandit(**options)
    for space in ({}, {"top_k": []}, {"top_k": "five"}, {"top_k": [1, 1]}):
        with pytest.raises(RecipeError):
            HierarchicalBandit().over(space)
