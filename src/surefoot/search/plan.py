"""What a search is asked to do, as one validated value that reads and writes as YAML."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from surefoot.errors import RecipeError, first_problem, nearest
from surefoot.registry import get
from surefoot.search.bank import AUTOFT, EMBEDDING, Bank
from surefoot.search.journal import Pruner
from surefoot.search.task import task_of
from surefoot.tune.recipes import read_yaml

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def seconds(value: Any) -> Any:
    """`5m`, `90s`, `1.5h` or a number of seconds.

    >>> seconds("5m"), seconds(90)
    (300.0, 90)
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", value)
    if found is None:
        raise RecipeError(f"`time_limit` is {value!r}: write seconds, or 90s, 5m, 1.5h")
    return float(found[1]) * _UNITS[found[2]]


#: What is usual for an embedding and not for a classifier.
USUAL: dict[str, dict[str, Any]] = {
    "embedding": {
        "bank": EMBEDDING,
        "starts": ("contrastive",),
        "anchors": (),
        "baseline_layers": None,
        "epochs": 1,
    }
}


class Plan(BaseModel):
    """How a search goes about it.

    task: `classification`, or `embedding`: then `bank`, `starts`, `anchors`, `baseline_layers` and `epochs` have other
    defaults (`USUAL`). trials: how many, the three baselines included; the same number and seed give the same bytes. time_limit: seconds
    after which the answer is given instead; an answer, not bytes. With neither, 20 trials.
    bank: methods that draws are made of, by name, of any kind (see `search/bank.py`): objectives are weighed, of
    optimizers, selections and reducers a draw takes one; `autoft` (the default) and `wide` name whole banks.
    per_layer: whether learning rate, decay and norms get factors for each layer. warm_start: parameters of the first
    draws, such as the best of an earlier search (`search/warm.py`). starts: recipes that draws start from, of which a trial
    takes one: their heads decide which members can be averaged. In the study a head of zeros gave the best soups for two
    classes, a linear probe for ten.
    anchors: recipes that are trained once, as they are, on `anchor_layers` top layers or all, and may be the answer by
    themselves. In the study a full fine-tuning is as good as the best soups on two classes, and better at home.
    layers: fewest and most top layers that a draw trains; each start is trained once undrawn, on the most. The baselines
    train `baseline_layers`.
    epochs, batch_size, max_length: of every training. trial_examples: a trial trains on so many examples at most; the
    members that the answer is made of are then trained again on all of them.
    batch: trials that are asked together and see only those of earlier batches: as many can be trained at the same time.
    Part of the search, unlike the number of workers: it draws the same on one worker and on eight.
    rule: how the judge compares (see `search/judge.py`). startup: draws before TPE sets in. pruner: which draws are given
    up early: `median`, worse after an epoch than half of the finished ones; `halving`, not in the best third of those that
    came as far, after 1/9 and 1/3 of the training: for many draws and long trainings; `none`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["classification", "embedding"] = "classification"
    trials: int | None = Field(default=None, ge=3, le=100_000)
    time_limit: Annotated[float | None, BeforeValidator(seconds)] = Field(default=None, gt=0)
    bank: tuple[str, ...] = AUTOFT
    starts: tuple[str, ...] = ("zero_head", "lp_ft")
    anchors: tuple[str, ...] = ("fine_tune",)
    anchor_layers: int | None = Field(default=None, ge=0)
    layers: tuple[int, int] = (2, 4)
    baseline_layers: int | None = Field(default=2, ge=0)
    epochs: float = Field(default=2, gt=0, le=1000)
    batch_size: int = Field(default=32, ge=1, le=65536)
    max_length: int | None = Field(default=None, ge=4)
    trial_examples: int = Field(default=10_000, ge=1)
    batch: int = Field(default=1, ge=1, le=10_000)
    rule: Literal["mean_log_loss", "worst_domain", "mean_and_spread", "threshold_free", "with_home", "mean_metric"] = (
        "with_home"
    )
    startup: int = Field(default=16, ge=0)
    pruner: Pruner = "median"
    per_layer: bool = False
    warm_start: tuple[dict[str, Any], ...] = ()
    seed: int = Field(default=0, ge=0)

    def __init__(self, **fields: Any) -> None:
        own = USUAL.get(fields.get("task", "classification"), {}) if isinstance(fields.get("task", ""), str) else {}
        try:
            super().__init__(**{**own, **fields})
        except ValidationError as error:
            raise RecipeError(first_problem(error, "search option", Plan.model_fields)) from error

    @model_validator(mode="after")
    def _can_work(self) -> Plan:
        Bank.of(self.bank)
        for name in (*self.starts, *self.anchors):
            get("recipe", name)
        if not self.starts:
            raise RecipeError("`starts` is empty: name at least one recipe to start from, such as fine_tune")
        if not 0 <= self.layers[0] <= self.layers[1]:
            raise RecipeError(f"`layers` is {self.layers}: give the fewest and the most top layers, such as [2, 4]")
        rules = task_of(self.task).rules
        if self.rule not in rules:
            raise RecipeError(f"`rule` is {self.rule}, which no {self.task} is judged by: {nearest(self.rule, rules)}")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two plans the same search; what is left as it usually is does not count, so that what was begun
        before there was such an option goes on."""
        usual = {"task": "classification", "batch": 1, "pruner": "median", "per_layer": False, "warm_start": ()}
        fields = self.model_dump(exclude={"trials", "time_limit", "seed"})
        return {name: value for name, value in fields.items() if name not in usual or value != usual[name]}

    @property
    def count(self) -> float:
        """Trials at most."""
        if self.trials is None:
            return math.inf if self.time_limit is not None else 20
        return self.trials

    @classmethod
    def load(cls, path: str | Path) -> dict[str, Any]:
        """The fields of a YAML file: those of a plan, beside the names of model and data that `tune` takes."""
        try:
            fields = read_yaml(Path(path))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RecipeError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
        if not isinstance(fields, dict) or not all(isinstance(field, str) for field in fields):
            raise RecipeError(f"{path}: a search is a mapping of fields such as `train:` and `judge:`")
        return fields
