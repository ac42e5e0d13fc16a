"""A bandit as a sampler of Optuna's.

space = {"top_k": [1, 5, 10], "model": ["minilm", "tfidf"]}
sampler = BanditSampler(build("strategy", "hierarchical_bandit"), space, seed=0)
study = optuna.create_study(sampler=sampler, direction="maximize")
study.optimize(lambda trial: reward(trial.suggest_categorical("top_k", space["top_k"]), ...), n_trials=200)
sampler.replay(study).best
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler

from surefoot.search.bandit import Bandit, Play, check_space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


class BanditSampler(BaseSampler):
    """Draws the settings of an Optuna study by a bandit; what the study's finished trials gave is told anew each time.

    Nothing but the seed and those trials has a say, so that a study that is opened again goes on as it would have.
    Values have to be what Optuna keeps (text, numbers, booleans). Hyperparameters outside of the space are drawn at random.
    """

    def __init__(self, bandit: Bandit, space: Mapping[str, Sequence[Any]], *, seed: int = 0) -> None:
        from optuna.samplers import RandomSampler

        self.bandit, self.space, self.seed = bandit, check_space(space), seed
        self._others = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        return {name: CategoricalDistribution(values) for name, values in self.space.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.replay(study).ask()

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def replay(self, study: Study) -> Play:
        """The run of the bandit that the study's finished trials make."""
        from optuna.trial import TrialState

        play = self.bandit.over(self.space, seed=self.seed)
        sign = 1.0 if study.direction.name == "MAXIMIZE" else -1.0
        for each in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if each.value is not None and self.space.keys() <= each.params.keys():
                play.tell({name: each.params[name] for name in self.space}, sign * each.value)
        return play
