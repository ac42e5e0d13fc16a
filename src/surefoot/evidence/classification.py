"""Tracks of classification under a shift: tune on home, score at home and away."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from torch import Tensor

from surefoot.assess.metrics import Metrics, evaluate_logits
from surefoot.data.examples import Examples
from surefoot.errors import SurefootError
from surefoot.evidence.cost import Clock, nothing_cached
from surefoot.evidence.entry import Arm
from surefoot.evidence.quantities import measure
from surefoot.evidence.track import Track
from surefoot.evidence.trained import Trained, predictions
from surefoot.merge.combine import Combine
from surefoot.merge.fit import Fit as LearnedMerge
from surefoot.merge.fit import Seen
from surefoot.models.model import Model
from surefoot.models.predict import Prediction
from surefoot.search.strategy import Tuning
from surefoot.tune.build import build
from surefoot.tune.fit import Fit
from surefoot.tune.recipe import Recipe
from surefoot.tune.recipes import read
from surefoot.tune.selections import head_names


@dataclass(frozen=True)
class World:
    """What an arm is given: `model` as it is before training, and data whose splits were drawn with the seed.

    tests: by domain, `home` among them; the others are away. validation: home examples that no arm trains on, for
    estimators. true_labels: (N,) of the training set where `train.labels` are wrong on purpose. outside: of no class.
    """

    model: Model
    train: Examples
    tests: Mapping[str, Examples]
    home: str
    validation: Examples
    true_labels: np.ndarray | None = None
    outside: Examples | None = None

    @property
    def away(self) -> list[str]:
        return [name for name in self.tests if name != self.home]


class Classification(Track):
    """A track of this kind gives `world` and `recipe`: the fields of its baseline, of which `schedule` are kept when an
    arm takes a registered recipe instead."""

    metric: ClassVar[str] = "accuracy_away"
    recipe: ClassVar[Mapping[str, Any]]
    schedule: ClassVar[tuple[str, ...]] = ("epochs", "batch_size", "max_length")
    #: Recipes of the family whose logits estimators and priors read; `changes` to the track's own.
    family: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    def world(self, seed: int) -> World:
        """Model and data for one seed."""
        raise NotImplementedError

    def unlabelled(self, world: World) -> list[str]:
        """Texts from home that word vectors learn from."""
        return list(world.train.inputs)

    def recipe_of(self, arm: Arm) -> Recipe:
        """The track's recipe with the arm's changes, or the registered one that the arm names."""
        if arm.named is None:
            return Recipe(**{**self.recipe, **arm.recipe})
        kept = {field: self.recipe[field] for field in self.schedule if field in self.recipe}
        return Recipe(**{**kept, **read(arm.named), **arm.recipe})

    def run(self, arm: Arm, *, seed: int, quantities: Collection[str] = (), store: Path) -> dict[str, float]:
        if arm.words is not None:
            from surefoot.evidence.wording import run_classified

            world = self.world(seed)
            texts = self.unlabelled(world)
            return run_classified(arm.words, world, unlabelled=texts, seed=seed)
        if arm.shift is not None:
            from surefoot.evidence.shifting import run_shift

            return run_shift(self, arm, seed=seed, store=store)
        if arm.adapt is not None:
            from surefoot.evidence.adapting import run_adapter

            return run_adapter(self, arm, seed=seed, store=store)
        if arm.ensemble is not None:
            from surefoot.evidence.assembling import run_ensemble

            return run_ensemble(self, arm, seed=seed, store=store)
        if arm.attack is not None:
            from surefoot.evidence.breaking import run_attack

            return run_attack(self, arm, seed=seed, store=store)
        if arm.compress is not None:
            from surefoot.evidence.compressing import run_compressed

            return run_compressed(self, arm, seed=seed, quantities=quantities)
        if arm.estimator or arm.prior:
            from surefoot.evidence.assessing import assess

            return assess(self, arm, seed=seed, store=store)
        if arm.reading:
            from surefoot.evidence.knowing import know

            return know(self, arm, seed=seed, store=store)
        trained = self.tune(arm, self.world(seed), seed=seed)
        return scores(trained.world, trained.predicted) | measure(trained, quantities) | {"seconds": trained.seconds}

    def tune(self, arm: Arm, world: World, *, seed: int) -> Trained:
        """Train the arm's members, combine them, predict on every set."""
        recipe, clock = self.recipe_of(arm), Clock()
        train = _trusted(world) if arm.trusted else world.train
        states: list[dict[str, Tensor]] = []
        with nothing_cached():
            for member in range(arm.members):
                with clock.running():
                    fit = _fit(arm, recipe, world, train, seed=100 * seed + member)
                    start = _start(world.model, fit.model)
                    depth = fit.model.lowest_trained()
                    model = fit.run()
                states.append({name: value.clone() for name, value in model.state_dict().items()})
        with clock.running():
            if arm.merge is not None:
                merge: Combine = build("merge", arm.merge)
                if isinstance(merge, LearnedMerge):
                    merge.fit(model, states, start, [Seen(world.home, world.validation, model)], seed=seed)
                model.load_state_dict(merge(states, start))
        sets = {**world.tests, "train": world.train}
        if world.outside is not None:
            sets["outside"] = world.outside
        return Trained(
            world=world,
            fit=fit,
            model=model,
            start=start,
            depth=depth,
            predicted=predictions(model, sets, depth=depth),
            seconds=clock.seconds,
        )


def _fit(arm: Arm, recipe: Recipe, world: World, train: Examples, *, seed: int) -> Fit:
    """The arm's training, set up."""
    if arm.strategy is None:
        return Fit(recipe, world.model, train, seed=seed)
    strategy: Tuning = build("strategy", arm.strategy)
    return strategy.fit(recipe, world.model, train, {world.home: world.validation}, seed=seed)


def _start(pretrained: Model, before: Model) -> dict[str, Tensor]:
    """The weights that training begins with: the pretrained backbone's, under the names of a model that nothing wraps,
    and the head as the recipe starts it."""
    start = {name: value.clone() for name, value in pretrained.state_dict().items() if not name.startswith("head.")}
    names = [name.removeprefix("head.") for name in head_names(pretrained)]  # what it computes with, if it is wrapped
    return start | {f"head.{name}": getattr(before.head, name).detach().clone() for name in names}


def _trusted(world: World) -> Examples:
    if world.true_labels is None:
        raise SurefootError("`trusted` asks for weights by which labels are right: choose a track with label noise")
    return replace(world.train, weight=np.equal(np.asarray(world.train.labels), world.true_labels).astype(np.float64))


def scores(world: World, predicted: Mapping[str, Prediction]) -> dict[str, float]:
    """Accuracy at home, and the means over the domains away of accuracy, AUC and accuracy at the true label prior."""
    found: dict[str, float] = {}
    metrics: dict[str, Metrics] = {}
    for name, examples in world.tests.items():
        labels = np.asarray(examples.labels)
        logits = predicted[name].logits
        metrics[name] = evaluate_logits(logits, labels)
        found[f"accuracy/{name}"] = metrics[name].accuracy.value
        if examples.group is not None:
            right = logits.argmax(1) == labels
            by_group = {str(group): float(right[examples.group == group].mean()) for group in np.unique(examples.group)}
            found |= {f"group/{group}": share for group, share in by_group.items()}
            found["worst_group"] = min(found.get("worst_group", 1.0), *by_group.values())
    away = [metrics[name] for name in world.away]
    found["accuracy_home"] = metrics[world.home].accuracy.value
    if away:
        found["accuracy_away"] = float(np.mean([each.accuracy.value for each in away]))
        found["corrected_away"] = float(np.mean([each.accuracy_at_true_prior for each in away]))
        found["auc_away"] = float(np.mean([each.auc for each in away if each.auc is not None]))
    if world.outside is not None:
        found["out_of_scope_auroc"] = _auroc(predicted["outside"].logits, predicted[world.home].logits)
    return found


def _auroc(outside: np.ndarray, inside: np.ndarray) -> float:
    """How well the largest probability tells examples of some class from those of none; Hendrycks and Gimpel 2017."""
    surest = softmax(np.concatenate([outside, inside]).astype(np.float64), axis=1).max(1)
    return float(roc_auc_score(np.arange(len(surest)) >= len(outside), surest))
