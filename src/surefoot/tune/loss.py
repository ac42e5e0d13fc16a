"""The loss of a recipe: objectives with their weights, and a reducer, in one backward pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from surefoot.data.check import check_training
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError, SurefootError
from surefoot.models.model import Model
from surefoot.tune.build import build
from surefoot.tune.objective import Context, Objective, WeightObjective, needs_of
from surefoot.tune.recipe import Recipe, build_objective
from surefoot.tune.reducer import Reducer
from surefoot.tune.selection import Selection
from surefoot.tune.step import Step
from surefoot.tune.weight_gradients import accumulate


class Loss(nn.Module):
    """L = reduce(sum_k w_k l_k(i)) + sum_m w_m L_m + terms on the weights alone, whose gradient is closed-form."""

    def __init__(self, objectives: Mapping[str, Objective], weights: Mapping[str, float], reducer: Reducer) -> None:
        super().__init__()
        #: by name, kept beside the list that registers their parameters and buffers (a ModuleDict refuses some names)
        self.terms = dict(objectives)
        self.objectives = nn.ModuleList(objectives.values())
        self.weights = dict(weights)
        self.reducer = reducer
        self.reducer_name = type(reducer).__name__
        self.probes = True
        self.needs = needs_of(objectives.values()) | reducer.needs
        self.on_weights = [
            (each, self.weights[name]) for name, each in objectives.items() if isinstance(each, WeightObjective)
        ]
        on_outputs = {name: each for name, each in objectives.items() if not isinstance(each, WeightObjective)}
        self.per_example = {name: each for name, each in on_outputs.items() if each.is_per_example}
        self.scalars = {name: each for name, each in on_outputs.items() if not each.is_per_example}

    @classmethod
    def of(cls, recipe: Recipe) -> Loss:
        """The loss of a recipe. Objectives of weight zero are left out: plain training to the bit, and free."""
        specs = {name: spec for name, spec in recipe.objectives.items() if spec["weight"] > 0 and recipe.epochs > 0}
        objectives = {name: build_objective(name, spec) for name, spec in specs.items()}
        weights = {name: float(spec["weight"]) for name, spec in specs.items()}
        loss = cls(objectives, weights, build("reducer", recipe.reducer))
        if recipe.epochs == 0:  # what is not trained may still be no classifier
            loss.probes = any(build_objective(name, spec).reads_labels for name, spec in recipe.objectives.items())
        loss.reducer_name = recipe.reducer["name"]
        return loss

    def asking(self, need: str) -> str:
        """Who needs it, for messages."""
        asking = [f"objective `{name}`" for name, term in self.terms.items() if need in term.needs]
        return asking[0] if asking else f"reducer `{self.reducer_name}`"

    @property
    def reads_labels(self) -> bool:
        """Whether an objective reads labels or logits; where nothing is trained, whether the recipe's would."""
        return any(term.reads_labels for term in self.terms.values()) if self.terms else self.probes

    def check(self, train: Examples) -> None:
        """Raises RecipeError or DataError, in one sentence, for what the objectives read and the data do not have."""
        if train.labels is None and train.positive is not None and self.reads_labels:
            reading = [f"objective `{name}`" for name, term in self.terms.items() if term.reads_labels]
            raise RecipeError(
                f"{(*reading, 'the head')[0]} reads labels, and {train.source} holds pairs without: add a `label` column, or train by an objective of pairs such as `infonce`"
            )
        if self.reads_labels:
            check_training(train)
        if "group" in self.needs and train.group is None:
            raise RecipeError(
                f"{self.asking('group')} needs groups, and {train.source} has no `group` column: add one, or choose another"
            )

    def checked(self, selection: Selection, name: str) -> Selection:
        """The selection. Raises RecipeError for one that looks at labels where no objective does, and for one whose model
        does not give what an objective reads."""
        withheld = sorted(self.needs & selection.withholds)
        if withheld:
            raise RecipeError(
                f"{self.asking(withheld[0])} reads {withheld[0].replace('_', ' ')}, which a model of selection `{name}` does not give: leave it out, or choose another selection, such as `all`"
            )
        if selection.reads_labels and not self.reads_labels:
            raise RecipeError(
                f"selection `{name}` chooses by a loss of the labels, and no objective here learns them: choose another, such as `all`, or add cross_entropy"
            )
        return selection

    def setup(self, context: Context) -> None:
        for objective in self.terms.values():
            objective.setup(context)
        self.reducer.setup(context)

    def finish(self, model: Model) -> None:
        for objective in self.terms.values():
            objective.finish(model)

    def backward(self, step: Step, *, first: bool) -> Tensor:
        """Forward and backward; `first` moves the state of objectives and reducer. Returns the loss on the outputs."""
        if first:
            for objective in self.terms.values():
                with torch.no_grad():
                    objective.update(step)
        total = self._total(step, first=first)
        if total is not None and total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        if self.on_weights:
            accumulate(self.on_weights)
        return total.detach() if total is not None else torch.zeros(())

    def value(self, step: Step) -> Tensor:
        """The whole loss with its graph, terms on the weights included, for second derivatives; no state moves."""
        total = self._total(step, first=False)
        parts = [] if total is None else [total]
        for objective, weight in self.on_weights:
            named = zip(objective.names_, objective.parameters_, objective.start_, strict=True)
            parts += [weight * objective.factors_[each[0]] * objective.value(*each) for each in named]
        return torch.stack(parts).sum()

    def _total(self, step: Step, *, first: bool) -> Tensor | None:
        terms: list[Tensor] = []
        if self.per_example:
            losses = torch.stack(
                [
                    self.weights[name] * self._checked(name, objective.per_example(step), step)
                    for name, objective in self.per_example.items()
                ]
            ).sum(0)
            if first:
                with torch.no_grad():
                    self.reducer.update(losses.detach(), step)
            terms.append(self.reducer(losses, step))
        terms += [
            self.weights[name] * self._checked(name, objective(step), step) for name, objective in self.scalars.items()
        ]
        return torch.stack(terms).sum() if terms else None

    @staticmethod
    def _checked(name: str, value: Tensor, step: Step) -> Tensor:
        """A loss that is not finite stops the training and names the objective and the examples."""
        if torch.isfinite(value.detach()).all():
            return value
        bad = step.batch.index[~torch.isfinite(value.detach())] if value.ndim else step.batch.index
        rows = ", ".join(str(int(i) + 1) for i in bad[:5]) + (" ..." if len(bad) > 5 else "")
        raise SurefootError(
            f"objective `{name}` is not finite at training rows {rows}: lower the learning rate or its weight, or look at those rows"
        )
