"""What the search draws: a recipe for each trial, from a bank of methods.

Some hyperparameters exist only beside certain draws of others: the options of an optimizer where it was drawn, an
objective's weight where it was drawn. The sampler models each such group by the trials that have it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from surefoot.registry import get
from surefoot.search.bank import AUTOFT, Bank
from surefoot.tune.objective import Space, WeightObjective
from surefoot.tune.optimizer import Wrapper
from surefoot.tune.recipe import Recipe

if TYPE_CHECKING:
    from optuna import Trial

#: Weight of an objective, as in AutoFT.
WEIGHT = Space(1e-4, 10.0, log=True)
#: AutoFT draws 0.01 to 100 times a base rate; with the top layers of a small encoder both ends do nothing but harm.
RATE = Space(1e-5, 5e-4, log=True)
DECAY = Space(0.0, 1.0)
#: Of a layer's learning rate, decay or norms beside the head's, where each layer has its own.
FACTOR = Space(0.1, 10.0, log=True)


def propose(
    trial: Trial,
    starts: Mapping[str, Recipe],
    *,
    bank: Bank = Bank.of(AUTOFT),  # noqa: B008 - a value
    layers: tuple[int, int] | None = (1, 4),
    per_layer: bool = False,
) -> tuple[str, Recipe]:
    """(name of the start, the trial's recipe): a start with drawn weights of the bank's objectives, optimizer, learning
    rate, weight decay, selection and reducer.

    The start's own first objective weighs 1, since only ratios of weights matter. Where that is FLYP, whose head is made
    of the labels' texts in the end, losses on the logits of another head have no place: of the bank it is joined by the
    terms on the weights alone. Options that a method's `space` names are drawn with it.
    AutoFT's objectives are all weighed. Of what else the bank has (other objectives, optimizers, selections, reducers) a
    draw takes one of a kind half of the time, and what is usual the other half.
    `layers`: fewest and most top layers to train; None leaves the start's selection.
    `per_layer`: learning rate, weight decay and norms of the weights get a factor for each layer, as AutoFT's layerwise
    variants have it; the last is for the lowest that `layers` allows and all below.
    """
    start = trial.suggest_categorical("start", list(starts)) if len(starts) > 1 else next(iter(starts))
    draw = _Draw(trial, starts[start], bank, layers[1] if per_layer and layers else 0)
    changes: dict[str, Any] = {"name": f"trial-{trial.number}", "objectives": draw.objectives()}
    selected = draw.choice("selection", bank.selections, usual="all" if layers is None else "top_layers")
    changes["optimizer"] = draw.optimizer(get("selection", selected).make.rate_scale if selected else 1.0)
    changes |= draw.selection(selected, layers)
    if bank.reducers and draw.first != "flyp":
        changes["reducer"] = draw.reducer()
    if draw.depth:
        changes["layerwise"] = {key: draw.factors(key) for key in ("lr", "weight_decay")}
    return start, draw.recipe.changed(**changes)


class _Draw:
    """The parts of one trial's recipe."""

    def __init__(self, trial: Trial, recipe: Recipe, bank: Bank, depth: int) -> None:
        self.trial, self.recipe, self.bank, self.depth = trial, recipe, bank, depth
        self.first = next(iter(recipe.objectives))

    def objectives(self) -> dict[str, Any]:
        able = [name for name in self.bank.objectives if self._joins(name)]
        # Drawn from all of them, whatever the start: a sampler knows a name by one set of values.
        others = [name for name in self.bank.objectives if name in self.bank.switched]
        added = self.choice("objective", others) if any(name in able for name in others) else None
        found: dict[str, Any] = {self.first: self.recipe.objectives[self.first]}
        for name in able:
            if name in self.bank.switched and name != added:
                continue
            make = get("objective", name).make
            found[name] = {"weight": self.number(f"weight.{name}", WEIGHT), **self.options(name, make.space())}
            if not get("objective", self.first).make.reads_labels:
                found[name] |= without_labels(name)
            if self.depth and issubclass(make, WeightObjective) and "by_layer" in inspect.signature(make).parameters:
                found[name]["by_layer"] = self.factors(f"weight.{name}")
        if self.first != "flyp" and "flyp" in found:
            # The head that cross-entropy trains stays; FLYP keeps the features near the texts of the labels.
            found["flyp"]["write_head"] = False
        return found

    def _joins(self, name: str) -> bool:
        """Whether the objective has a place beside the start's own."""
        make = get("objective", name).make
        if name == self.first or (self.first == "flyp" and make.acts_on != "weights"):
            return False
        # A head that says nothing yet has no answers to compare with.
        return not ("reference" in make.needs and self.recipe.head in ("random", "zero"))

    def optimizer(self, times: float) -> dict[str, Any]:
        """AdamW, one of the bank's around it, or one in its place, whose rates lie about its own default as AdamW's do.

        times: the learning rates that suit what trains, beside those of the weights themselves.
        """
        name = self.choice("optimizer", self.bank.optimizers, usual="adamw") or "adamw"
        make, rate = get("optimizer", name).make, times * self.number("lr", RATE)
        options = {} if name == "adamw" else self.options(name, make.space())
        if name != "adamw" and not issubclass(make, Wrapper):
            return {"name": name, "lr": rate * _default_rate(name) / _default_rate("adamw"), **options}
        adamw = {"name": "adamw", "lr": rate, "weight_decay": self.number("weight_decay", DECAY)}
        return adamw if name == "adamw" else {"name": name, **options, "inner": adamw}

    def selection(self, name: str | None, layers: tuple[int, int] | None) -> dict[str, Any]:
        if name is not None:
            return {"selection": {"name": name, **self.options(name, get("selection", name).make.space())}}
        if layers is None:
            return {}
        return {"selection": {"name": "top_layers", "k": self.trial.suggest_int("layers", *layers)}}

    def reducer(self) -> dict[str, Any]:
        name = self.choice("reducer", self.bank.reducers, usual="mean") or "mean"
        space: dict[str, Space] = getattr(get("reducer", name).make, "space", dict)()
        return {"name": name, **self.options(name, space)}

    def choice(self, what: str, names: Sequence[str], *, usual: str = "") -> str | None:
        """One of the names half of the time, or None for what is usual: a draw that changes everything is seldom good."""
        others = [name for name in names if name != usual]
        if not others or not self.trial.suggest_categorical(f"other.{what}", [False, True]):
            return None
        return str(self.trial.suggest_categorical(what, others))

    def options(self, name: str, space: Mapping[str, Space]) -> dict[str, float]:
        return {option: self.number(f"{name}.{option}", each) for option, each in space.items()}

    def factors(self, what: str) -> list[float]:
        """1 for the head, then a factor for each layer downwards."""
        return [1.0, *(self.number(f"{what}.layer{i + 1}", FACTOR) for i in range(self.depth))]

    def number(self, name: str, space: Space) -> float:
        if space.integer:
            return self.trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
        return self.trial.suggest_float(name, space.low, space.high, log=space.log)


def without_labels(name: str) -> dict[str, Any]:
    """The options under which an objective reads no labels, where it has a choice (SMART).

    >>> without_labels("smart"), without_labels("infonce")
    ({'compares': 'features'}, {})
    """
    return {"compares": "features"} if "compares" in inspect.signature(get("objective", name).make).parameters else {}


def _default_rate(name: str) -> float:
    parameter = inspect.signature(get("optimizer", name).make).parameters.get("lr")
    return float(parameter.default) if parameter is not None and parameter.default is not parameter.empty else 1.0
