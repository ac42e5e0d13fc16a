"""`few_shot`: which of ten services a query is for, from eight examples of each, by an encoder that learns from pairs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.metrics import f1_score

from surefoot import load, load_task
from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import stored
from surefoot.embed.geometry import unit_length
from surefoot.errors import SurefootError, nearest
from surefoot.evidence.cost import Clock, nothing_cached
from surefoot.evidence.entry import Arm
from surefoot.evidence.track import Track
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.tune.few_shot import encoders, fused, label_descriptions, setfit, with_probe
from surefoot.tune.recipe import Recipe

SHOTS, TEST_SIZE, MAX_LENGTH = 8, 300, 32
WAYS: Mapping[str, Callable[..., Model]] = {"setfit": setfit, "label_descriptions": label_descriptions}
#: What `recipe` changes in an arm that fine-tunes with a head, in 100 steps.
RECIPE: Mapping[str, Any] = {
    "head": "random",
    "selection": "all",
    "optimizer": {"name": "adamw", "lr": 5e-5},
    "epochs": 20,
    "batch_size": 16,
    "max_length": MAX_LENGTH,
    "warmup": 0.1,
}


class FewShot(Track):
    """Macro F1 on seen intents; `away`, on intents of the same services that no example is of. The baseline is logistic
    regression on MiniLM as it is. `few_shot: fusionsent` shows, beside itself, what each of the two encoders does alone, and
    what the mean of their answers does."""

    name = "few_shot"
    summary = "services of CLINC150 from eight examples each (MiniLM): macro F1 over ten classes"
    metric: ClassVar[str] = "macro_f1"

    def check(self) -> None:
        stored("clinc150")

    def run(self, arm: Arm, *, seed: int, quantities: Collection[str] = (), store: Path) -> dict[str, float]:
        if arm != Arm(few_shot=arm.few_shot, recipe=arm.recipe) or (arm.few_shot and arm.recipe):
            raise SurefootError(f"track `{self.name}` takes `few_shot` or a recipe: leave out what else the arm has")
        train, tests = self.data(seed)
        clock = Clock()
        with nothing_cached(), clock.running():
            models = self._models(arm, train, seed)
        with nothing_cached():
            found = self._scores(models[:1], tests)
            for name, some in {"first": models[1:2], "second": models[2:3], "ensemble": models[1:3]}.items():
                if some:
                    found |= {
                        f"{key}_{name}": each for key, each in self._scores(some, tests).items() if "/" not in key
                    }
            return found | {"seconds": clock.seconds}

    def model(self) -> Model:
        """What arms start from."""
        return load("minilm", max_length=MAX_LENGTH)

    def data(self, seed: int) -> tuple[Examples, dict[str, Examples]]:
        """Eight examples of each class, drawn with the seed, and tests by domain, home first."""
        task = load_task("clinc150_domains", seed=seed, test_size=TEST_SIZE)
        labels = np.asarray(task.train.labels)
        order = np.random.default_rng(seed).permutation(len(labels))
        chosen = [order[labels[order] == label][:SHOTS] for label in np.unique(labels)]
        return task.train.take(np.concatenate(chosen)), dict(task.tests)

    def _models(self, arm: Arm, train: Examples, seed: int) -> list[Model]:
        if arm.recipe:
            return [Recipe(**{**RECIPE, **arm.recipe}).fit(self.model(), train, seed=seed).model]
        if arm.few_shot is None:
            return [with_probe(deepcopy(self.model()), train)]
        if arm.few_shot == "fusionsent":
            pair = encoders(self.model(), train, seed=seed)
            return [with_probe(each, train) for each in (fused(*pair), *pair)]
        if arm.few_shot not in WAYS:
            raise SurefootError(f"unknown way `{arm.few_shot}`: {nearest(arm.few_shot, [*WAYS, 'fusionsent'])}")
        return [WAYS[arm.few_shot](self.model(), train, seed=seed)]

    @staticmethod
    def _scores(models: list[Model], tests: Mapping[str, Examples]) -> dict[str, float]:
        found = {}
        for place, (name, examples) in enumerate(tests.items()):
            labels = np.asarray(examples.labels)
            outputs = [predict(each, encode_inputs(each, examples.inputs, "text")) for each in models]
            answers = np.mean([softmax(each.logits, axis=1) for each in outputs], axis=0).argmax(1)
            found[f"macro_f1/{name}"] = float(f1_score(labels, answers, average="macro"))
            if place == 0:
                found["macro_f1"] = found[f"macro_f1/{name}"]
                found["class_contrast"] = float(np.mean([contrast(each.features, labels) for each in outputs]))
        found["macro_f1_away"] = float(np.mean([found[f"macro_f1/{name}"] for name in list(tests)[1:]]))
        return found


def contrast(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean cosine of two examples of one class less that of two examples of different classes."""
    unit = unit_length(features)
    cosines, same = unit @ unit.T, labels[:, None] == labels
    others = ~np.eye(len(labels), dtype=bool)
    return float(cosines[same & others].mean() - cosines[~same].mean())


TRACK = FewShot()
