"""The trials of a search: drawn by Optuna, kept in an Optuna journal, the same after a kill at any moment.

Trial n is drawn by a sampler that is made for it alone, from the seed, n and the trials before it; nothing else has a
say, so a search that was killed and one that was not draw the same. A trial is written when it is finished, in one
line of the journal with its parameters, reports, attributes and value. A killed process therefore leaves nothing but
the trials that it finished and at most one torn line, which the next one cuts off; the trial that was under way is
asked for again. Only one process may hold a journal at a time.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
from filelock import FileLock

from surefoot.errors import RunError
from surefoot.search.journal_file import STUDY, Held, holder_of, mend, refused, take

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

#: Raised when the same seed no longer draws the same trials.
VERSION = 1
Direction = Literal["minimize", "maximize"]
Pruner = Literal["median", "halving", "none"]
#: Of successive halving: one in so many goes on from each rung, to so many times the steps.
REDUCTION = 3


@dataclass(frozen=True)
class Entry:
    """A finished trial. A pruned one's value is its last report; a failed one has none, and a `reason` in `attrs`."""

    number: int
    value: float | None
    params: dict[str, Any]
    attrs: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Asked:
    """A trial under way: parameters are drawn with `trial.suggest_float` and the like, in a fixed order, or not at all."""

    number: int
    trial: Trial

    def report(self, step: int, value: float) -> None:
        """An intermediate value, by which `should_prune` judges."""
        self.trial.report(value, step)

    def should_prune(self) -> bool:
        """What the ledger's pruner says. The median one: whether the best report so far is worse than the median, at this
        step, of the drawn trials that are complete. Halving: whether the report is outside the best third at this rung."""
        return self.trial.should_prune()


class Ledger:
    """Trials of one search, in an Optuna journal (`study.log`), or in memory with `path=None`.

    seed: at least 0; startup: drawn trials before TPE sets in, which are random (10 is Optuna's default), and complete
    ones before any is pruned. TPE is multivariate, as Optuna's single-objective default is, and sees only trials that drew
    parameters and did not fail: others would count towards `startup`, take a place among the best that it imitates and
    keep it from modelling parameters jointly. The liar that penalises running trials is off: a trial sees none.
    grouped: for a space with conditions; parameters are modelled jointly in groups that occur together (Optuna's `group`).
    pruner: `median`; `halving`, asynchronous successive halving (Li et al. 2020) by thirds, which needs reports at
    steps 1, 3, 9, ...; `none`.

    Use it in a `with` block, or `close` it: until then no other process may open `path`. Raises RunError if `path` is
    in use, is not a journal of surefoot's, or was begun with another seed, startup, direction or version.
    """

    def __init__(
        self,
        path: str | Path | None,
        *,
        seed: int,
        startup: int = 10,
        direction: Direction = "minimize",
        grouped: bool = False,
        pruner: Pruner = "median",
    ) -> None:
        if seed < 0 or startup < 0:
            raise ValueError(f"seed and startup are at least 0, not {seed} and {startup}")
        self.path = Path(path) if path is not None else None
        self.seed, self.startup, self.direction = seed, startup, direction
        self.grouped, self.pruner = grouped, pruner
        self._lock: FileLock | None = None
        if self.path is None:
            self._study = _study(None, direction)
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = take(self.path)
            self._study = self._open(self.path, self._lock)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise refused(self.path, error) from error
            raise

    def _open(self, path: Path, lock: FileLock) -> Study:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        if path.exists():
            mend(path)
        backend = JournalFileBackend(str(path), lock_obj=cast("Any", Held(path, lock)))
        study = _study(JournalStorage(backend), self.direction)
        if study.direction.name.lower() != self.direction:
            raise RunError(_other(path, "direction", study.direction.name.lower(), self.direction))
        for key, value in {"version": VERSION, "seed": self.seed, "startup": self.startup}.items():
            if key not in study.user_attrs and not study.trials:  # new, or killed before it was told its settings
                study.set_user_attr(key, value)
            elif study.user_attrs.get(key) != value:
                raise RunError(_other(path, key, study.user_attrs.get(key), value))
        return study

    @property
    def done(self) -> list[Entry]:
        """The finished trials, in order."""
        return [_entry(number, trial) for number, trial in enumerate(self._finished())]

    @property
    def best(self) -> Entry | None:
        """The complete trial with the best value, the earliest of equals."""
        complete = [entry for entry in self.done if entry.state == "complete"]
        sign = 1.0 if self.direction == "minimize" else -1.0
        return min(complete, key=lambda entry: sign * cast(float, entry.value), default=None)

    def ask(
        self, number: int | None = None, *, seen: int | None = None, fixed: Mapping[str, Any] | None = None
    ) -> Asked:
        """Trial `number`, by default the next after the finished ones, so that an unfinished one is asked for again.

        seen: it sees only so many of the first trials; by default all before it. fixed: parameters that are not drawn.
        """
        from optuna.trial import TrialState, create_trial

        finished = self._finished()
        number = len(finished) if number is None else number
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        study = _study(
            None,
            self.direction,
            sampler=_sampler(seed, self.startup, grouped=self.grouped),
            pruner=_pruner(self.pruner, self.startup),
        )
        # Optuna takes no notice of failed trials; they stand for those without a say, so that numbers stay the same.
        silent = create_trial(state=TrialState.FAIL)
        known = [trial if trial.params else silent for trial in finished[: number if seen is None else seen]]
        study.add_trials(known + [silent] * (number - len(known)))
        if fixed is not None:
            study.enqueue_trial(dict(fixed))
        return Asked(number, study.ask())

    def tell(
        self, asked: Asked, value: float | None, *, attrs: Mapping[str, Any] | None = None, pruned: bool = False
    ) -> None:
        """Finish a trial, with attributes as JSON has them. A pruned trial's value is its last report; give None."""
        from optuna.trial import TrialState

        if pruned and value is not None:
            raise ValueError(f"trial {asked.number}: the value of a pruned trial is its last report; tell None")
        if not pruned and (value is None or math.isnan(value)):
            raise ValueError(f"trial {asked.number}: a complete trial needs a value, not {value}; or use `fail`")
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        self._record(asked, state, None if value is None else float(value), attrs or {})

    def fail(self, asked: Asked, reason: str) -> None:
        """Finish a trial that could not be trained: it counts, so that the next is another draw, and is never the best."""
        from optuna.trial import TrialState

        self._record(asked, TrialState.FAIL, None, {"reason": reason})

    def close(self) -> None:
        """Let other processes open the journal."""
        if self.path is not None and self._lock is not None and self._lock.is_locked:
            holder_of(self.path).unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _finished(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _record(self, asked: Asked, state: Any, value: float | None, attrs: Mapping[str, Any]) -> None:
        """Write the trial, whole: Optuna adds a finished trial as one line."""
        if asked.number != len(self._finished()):
            raise ValueError(f"trial {asked.number} is already finished; ask for another")
        for key, item in json.loads(json.dumps(dict(attrs), allow_nan=False)).items():
            asked.trial.set_user_attr(key, item)
        trial = asked.trial.study.tell(asked.trial, value, state)
        try:
            self._study.add_trial(trial)
        except OSError as error:
            assert self.path is not None
            mend(self.path)  # a full disk tears a line too
            raise refused(self.path, error) from error


def _study(storage: BaseStorage | None, direction: Direction, **options: Any) -> Study:
    """The journal's study, or a new one, without Optuna's announcements; its verbosity elsewhere stays what it was."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # Creating "if it is not there" would write to the journal each time.
        if storage is not None and STUDY in optuna.get_all_study_names(storage):
            return optuna.load_study(study_name=STUDY, storage=storage)
        return optuna.create_study(storage=storage, study_name=STUDY, direction=direction, **options)
    finally:
        optuna.logging.set_verbosity(level)


def _sampler(seed: int, startup: int, *, grouped: bool) -> Any:
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # groups are marked experimental
        return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=grouped, constant_liar=False)


def _pruner(name: Pruner, startup: int) -> Any:
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if name == "median":
        return MedianPruner(n_startup_trials=startup)
    return SuccessiveHalvingPruner(1, REDUCTION) if name == "halving" else NopPruner()


def _entry(number: int, trial: FrozenTrial) -> Entry:
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
    return Entry(number, trial.value, dict(trial.params), dict(trial.user_attrs), cast("Any", state))


def _other(path: Path, what: str, begun: object, asked: object) -> str:
    if what == "version":
        return f"{path} was written by another release of surefoot (ledger version {begun}, not {asked}): go on with that release, or choose another folder"
    return f"the search in {path} was begun with {what} {begun}, not {asked}: give {what} {begun} again, or choose another folder"
