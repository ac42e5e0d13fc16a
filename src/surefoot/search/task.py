"""What a search is for: how its members are judged, compared and forecast. Classification and embedding are its two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from surefoot.assess.temperature import Calibration
from surefoot.errors import RecipeError, nearest

if TYPE_CHECKING:
    from surefoot.data.examples import Examples
    from surefoot.models.model import Model
    from surefoot.progress import Progress
    from surefoot.search.answer import Answer, Target
    from surefoot.search.family import Member
    from surefoot.search.judge import Choice, Judge, Rule
    from surefoot.search.plan import Plan
    from surefoot.search.search import _Search

#: The tasks by name.
TASKS = ("classification", "embedding")


class Task(ABC):
    """A subclass says it once; trials, soups, cross-fitting and the answer are the same for all.

    What a member says of a set is an array whose first dimension runs over the set's examples ("outputs"): logits of a
    classifier, cosines of rated pairs, nDCG of queries. A view is what the judge's rules see of it; it has `held_out`.
    """

    name: ClassVar[str]
    #: Always the first trials: nothing trained, plainly trained (where also members start), and that on the way back.
    baselines: ClassVar[tuple[str, str, str]]
    #: Soups of so many of the best members of one start.
    sizes: ClassVar[tuple[int, ...]]
    #: Shares of the way from the start at which soups are tried.
    shares: ClassVar[tuple[float, ...]]
    #: Figures of merit by name; lower is better.
    rules: ClassVar[Mapping[str, Rule]]
    #: Whether outputs of a test set are logits of its labels, which the run folder keeps.
    labelled: ClassVar[bool]

    def rule(self, plan: Plan) -> Rule:
        """The plan's rule."""
        return self.rules[plan.rule]

    @abstractmethod
    def prepare(
        self,
        model: Model,
        train: Examples,
        validation: Examples | None,
        sets: Mapping[str, Mapping[str, Any]],
        plan: Plan,
    ) -> tuple[Examples, Any, dict[str, dict[str, Any]], list[str]]:
        """(training set, home's held-out set, the sets as this task reads them, notes).

        sets: "judge", "unlabelled" and "tests" by name. Raises DataError for what cannot work.
        """

    @abstractmethod
    def seat(self, judge: Mapping[str, Any], *, seed: int) -> Judge:
        """The judge of those sets."""

    @abstractmethod
    def sets(self, named: Mapping[str, Any], *, train: Examples, max_length: int | None) -> Any:
        """The sets with `named`, `prints`, and `logits(model, depth=)`: outputs by set."""

    @abstractmethod
    def home(self, sets: Any) -> Any:
        """What home's held-out set among `sets` knows that outputs are compared with."""

    @abstractmethod
    def view(self, judge: Judge, outputs: Mapping[str, np.ndarray], home: Any) -> Any:
        """What rules see of a member."""

    @abstractmethod
    def shipped(self, view: Any, judge: Judge, outputs: Mapping[str, np.ndarray], home: Any) -> Calibration:
        """What goes into the shipped model's head."""

    @abstractmethod
    def worth(self, choice: Choice, baselines: Mapping[str, Any], judge: Judge) -> dict[str, Any]:
        """What choosing was worth on the judge's domains by cross-fitting; `baselines`: views by name."""

    @abstractmethod
    def look_at(self, name: str, final: Member, members: Sequence[Member], home: Any, judge: Judge) -> Target:
        """Forecast one target."""

    @abstractmethod
    def evaluate(self, model: Model, examples: Any, *, progress: Progress, label: str) -> tuple[Any, Any]:
        """(outputs, metrics) of a shipped model on a test set."""

    @abstractmethod
    def explain(
        self,
        search: _Search,
        answer: Answer,
        board: Sequence[Mapping[str, Any]],
        tests: Mapping[str, Any],
        outputs: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Why the answer is what it is, written to `why.json`; `outputs`: of the shipped model by test set."""

    def write(self, folder: Path, home: Any, judge: Mapping[str, Any], answer: Answer) -> None:
        """What the folder needs for later forecasts; nothing, by default."""
        return

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return task_of, (self.name,)


def task_of(name: str) -> Task:
    """The task of that name; RecipeError for another.

    >>> task_of("embedding").baselines[1]
    'contrastive'
    """
    if name == "classification":
        from surefoot.search.classification import Classification

        return Classification()
    if name == "embedding":
        from surefoot.search.embedding import Embedding

        return Embedding()
    raise RecipeError(f"unknown task `{name}`: {nearest(name, TASKS)}")
