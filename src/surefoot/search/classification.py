"""The search for a classifier: members say logits, judged by labelled samples of other domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from surefoot.assess.evaluate import evaluate
from surefoot.assess.metrics import Metrics
from surefoot.assess.temperature import Calibration, fit_temperature
from surefoot.data.check import check_training
from surefoot.data.examples import Examples
from surefoot.errors import DataError
from surefoot.models.model import Model
from surefoot.models.predict import Prediction
from surefoot.progress import Progress
from surefoot.search.answer import Answer, Target, look_at
from surefoot.search.door import check, hold_out
from surefoot.search.estimate import write_labels
from surefoot.search.family import Member
from surefoot.search.judge import RULES, Choice, Judge, Rule, View, log_loss, paired
from surefoot.search.plan import Plan
from surefoot.search.sets import HOME, Sets
from surefoot.search.task import Task

if TYPE_CHECKING:
    from surefoot.search.search import _Search


class Classification(Task):
    """A head on the features; logits (N, C), labels (N,)."""

    name = "classification"
    baselines: ClassVar[tuple[str, str, str]] = ("linear_probe", "lp_ft", "wise_ft")
    #: In the study the best five did best; single members, however good on the judge, did worse on the unseen domain.
    sizes: ClassVar[tuple[int, ...]] = (3, 5)
    shares: ClassVar[tuple[float, ...]] = (1.0, 0.75)
    rules: ClassVar[Mapping[str, Rule]] = RULES
    labelled = True

    def prepare(
        self,
        model: Model,
        train: Examples,
        validation: Examples | None,
        sets: Mapping[str, Mapping[str, Any]],
        plan: Plan,
    ) -> tuple[Examples, Examples, dict[str, dict[str, Any]], list[str]]:
        check_training(train)
        if train.modality != model.processor.modality:
            raise DataError(
                f"{train.source} holds {train.modality} but `{model.name}` reads {model.processor.modality}: choose a model or data of the same kind"
            )
        notes = check(train, sets["judge"], sets["unlabelled"], sets["tests"])
        judge = {name: each.with_classes(train.classes) for name, each in sorted(sets["judge"].items())}
        kept, held = hold_out(train, validation, plan)
        return kept, held, {**{name: dict(each) for name, each in sets.items()}, "judge": judge}, notes

    def seat(self, judge: Mapping[str, Examples], *, seed: int) -> Judge:
        return Judge.of(judge, seed=seed)

    def sets(self, named: Mapping[str, Examples], *, train: Examples, max_length: int | None) -> Sets:
        return Sets(named, classes=train.classes, max_length=max_length)

    def home(self, sets: Sets) -> np.ndarray:
        labels = sets.named[HOME].labels
        assert labels is not None
        return labels

    def view(self, judge: Judge, outputs: Mapping[str, np.ndarray], home: np.ndarray) -> View:
        return View.of(judge, outputs, HOME, home)

    def shipped(self, view: View, judge: Judge, outputs: Mapping[str, np.ndarray], home: np.ndarray) -> Calibration:
        scale = fit_temperature(outputs[HOME], home)
        fitted = view.shipped(judge, np.ones(len(judge), dtype=bool))
        return Calibration(scale * fitted.temperature, fitted.bias)

    def worth(self, choice: Choice, baselines: Mapping[str, View], judge: Judge) -> dict[str, Any]:
        """Accuracy and log-loss on the judge domains by cross-fitting, and paired differences from the baselines.

        Folds were scored by what the other folds chose: this is what choosing like this is worth on these domains, not
        what the model will do on another.
        """
        correct = (choice.crossed.argmax(1) == judge.labels).astype(float)
        losses = log_loss(choice.crossed, judge.labels)
        versus = {}
        for name, view in baselines.items():
            versus[name] = {
                "accuracy": paired(correct - (view.logits.argmax(1) == judge.labels), judge).as_json(),
                "log_loss": paired(losses - log_loss(view.logits, judge.labels), judge).as_json(),
            }
        accuracy, loss = paired(correct, judge), paired(losses, judge).value
        return {"accuracy": accuracy.as_json(), "log_loss": loss, "versus": versus}

    def look_at(self, name: str, final: Member, members: Sequence[Member], home: np.ndarray, judge: Judge) -> Target:
        return look_at(name, final, members, home, judge)

    def evaluate(
        self, model: Model, examples: Examples, *, progress: Progress, label: str
    ) -> tuple[Prediction, Metrics]:
        return evaluate(model, examples, progress=progress, label=label)

    def write(self, folder: Path, home: np.ndarray, judge: Mapping[str, Examples], answer: Answer) -> None:
        labels = {name: each.labels for name, each in judge.items() if each.labels is not None}
        write_labels(folder, home, labels, answer.as_shipped().logits)

    def explain(
        self,
        search: _Search,
        answer: Answer,
        board: Sequence[Mapping[str, Any]],
        tests: Mapping[str, Examples],
        outputs: Mapping[str, Prediction],
    ) -> dict[str, Any]:
        from surefoot.search.explain.collect import explain

        return explain(search, answer, board, tests, outputs)
