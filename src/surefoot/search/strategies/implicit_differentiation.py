"""Hyperparameters by the million: moved against the gradient of the judge's loss while the model trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from surefoot.errors import RecipeError
from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.search.hypergradient import hypergradient
from surefoot.search.strategy import Judged, Tuning
from surefoot.tune.objective import Context, Space, WeightObjective, one_of, positive
from surefoot.tune.selections import whole
from surefoot.tune.step import Batch

if TYPE_CHECKING:
    from surefoot.data.examples import Examples
    from surefoot.models.model import Model
    from surefoot.progress import Progress
    from surefoot.tune.recipe import Recipe

#: What can be tuned.
TUNES = ("examples", "layers", "weights")


@register(
    "implicit_differentiation",
    kind="strategy",
    family="gradient",
    papers=[
        Paper(
            "Optimizing Millions of Hyperparameters by Implicit Differentiation",
            "Lorraine, Vicol and Duvenaud",
            2020,
            arxiv="1911.02590",
        )
    ],
)
class ImplicitDifferentiation(Tuning):
    """One training in which hyperparameters h follow the gradient of the judge's loss, through the weights they lead to.

    g = dL_judge/dh - v H^-1 d2L_tr/dw dh,  v = dL_judge/dw,  H = d2L_tr/dw2,  v H^-1 ~ a sum_{i=0..terms} v (I - a H)^i

    every so many steps of training, then a step of Adam on h; L_tr is the recipe's whole loss on `batch` training
    examples, L_judge the mean over domains of cross-entropy on as many of each, both in eval mode and float32.

    tunes: `examples`: a weight 2 sigmoid(h_i) in (0, 2) for each training example, in `hyperparameters["weights"]` (N,);
    `layers`: strengths exp(h) of a pull (exp(h) / 2) ||w - w0||^2 of each layer to its pretrained weights, L2-SP with a
    strength for every layer, in `hyperparameters["strength"]` by layer's name; `weights`: the same for every single
    weight, tensors by parameter's name. Heads are not pulled: they have no start worth keeping.
    every: 10 steps of training between updates, half an epoch's where that is less. terms: 20. rate: a, None for 0.8 over the largest eigenvalue of H, found
    by 6 power iterations. lr: Adam's on h, 0.1. strength: 0.01, where pulls start. batch: 64. Where the paper alternates
    one step with one update, 10 keep the cost at a few trainings; lr and strength are this library's choice.

    Until the first update it is the plain training, to the bit, where examples are tuned. An update costs terms + 8
    products with H, two backward passes over `batch` each: large encoders want few terms. Raises RecipeError for settings
    out of range, and where pulls are asked for but only the head trains.
    Reference: Lorraine, Vicol and Duvenaud 2020; moskomule/hypergrad, approx_hypergrad.py.

    >>> ImplicitDifferentiation(tunes="layers").terms
    20
    """

    def __init__(
        self,
        *,
        tunes: str = "examples",
        every: int = 10,
        terms: int = 20,
        rate: float | None = None,
        lr: float = 0.1,
        strength: float = 0.01,
        batch: int = 64,
    ) -> None:
        self.tunes = one_of("tunes", tunes, TUNES)
        self.every = whole("every", every, least=1)
        self.terms = whole("terms", terms)
        self.rate = None if rate is None else positive("rate", rate)
        self.lr = positive("lr", lr)
        self.strength = positive("strength", strength)
        self.batch = whole("batch", batch, least=2)

    def fit(
        self,
        recipe: Recipe,
        model: Model,
        train: Examples,
        judge: Mapping[str, Examples],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Judged:
        return _Alternating(self, recipe, model, train, judge, seed=seed, progress=progress)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"lr": Space(0.01, 1.0, log=True), "every": Space(1, 50, log=True, integer=True)}


class _Tuned(Protocol):
    """What is tuned: tensors without bounds, and how training sees them."""

    hypers: list[Tensor]

    def weigh(self, batch: Batch) -> Tensor | None:
        """Weights (B,) of the batch's examples, with their graph."""

    def found(self) -> dict[str, Any]:
        """The hyperparameters as people read them."""


class ExampleWeights:
    """2 sigmoid(h), (N,): 1 at the start, between 0 and 2."""

    def __init__(self, given: np.ndarray | None, count: int) -> None:
        self.hypers = [torch.zeros(count, requires_grad=True)]
        self.given = None if given is None else torch.from_numpy(given).float()

    def weigh(self, batch: Batch) -> Tensor:
        where = batch.index.cpu()
        weight = 2 * torch.sigmoid(self.hypers[0][where])
        return weight if self.given is None else weight * self.given[where]

    def found(self) -> dict[str, Any]:
        return {"weights": (2 * torch.sigmoid(self.hypers[0].detach())).numpy()}


class Pulls(WeightObjective):
    """sum over parameters of (exp(h) / 2) (w - w0)^2, h of a layer or of every weight."""

    def __init__(self, *, single: bool, strength: float) -> None:
        super().__init__()
        self.single, self.start_strength = single, strength

    def setup(self, context: Context) -> None:
        super().setup(context)
        layers = context.layer_names
        self.logs: dict[str, Tensor] = {}
        self.owner: dict[str, str] = {}
        start = float(np.log(self.start_strength))
        for name, parameter in zip(self.names_, self.parameters_, strict=True):
            if name in context.head_names:
                continue
            layer = next((each for each in layers if name.startswith(f"{each}.")), name.rpartition(".")[0])
            key = self.owner[name] = name if self.single else layer
            if key not in self.logs:
                shape = parameter.shape if self.single else ()
                self.logs[key] = torch.full(shape, start, device=parameter.device, requires_grad=True)
        if not self.logs:
            raise RecipeError(
                "only the head trains, and it has no start to be pulled to: tune `examples`, or train more"
            )
        self.hypers = list(self.logs.values())

    def value(self, name: str, parameter: Tensor, start: Tensor) -> Tensor:
        if name not in self.owner:
            return parameter.new_zeros(())
        return (self.logs[self.owner[name]].exp() / 2 * (parameter - start).square()).sum()

    def gradient(self, name: str, parameter: Tensor, start: Tensor) -> Tensor:
        if name not in self.owner:
            return torch.zeros_like(parameter)
        return self.logs[self.owner[name]].detach().exp() * (parameter.detach() - start)

    def weigh(self, batch: Batch) -> None:
        return None

    def found(self) -> dict[str, Any]:
        strengths = {name: each.detach().exp() for name, each in self.logs.items()}
        return {"strength": strengths if self.single else {name: float(each) for name, each in strengths.items()}}


class _Alternating(Judged):
    """Steps of training, and every so many of them one of the hyperparameters."""

    def __init__(
        self,
        strategy: ImplicitDifferentiation,
        recipe: Recipe,
        model: Model,
        train: Examples,
        judge: Mapping[str, Examples],
        *,
        seed: int,
        progress: Progress | None,
    ) -> None:
        super().__init__(recipe, model, train, judge, seed=seed, progress=progress)
        self.strategy = strategy
        self.tuned: _Tuned
        if strategy.tunes == "examples":
            self.tuned = ExampleWeights(train.weight, len(train))
        else:
            pulls = Pulls(single=strategy.tunes == "weights", strength=strategy.strength)
            pulls.setup(self.context)
            self.loss.on_weights.append((pulls, 1.0))
            self.tuned = pulls
        self.every = min(strategy.every, max(1, self.per_epoch // 2))
        self.adam = torch.optim.Adam(self.tuned.hypers, lr=strategy.lr)
        self.hyperparameters = self.tuned.found()

    def tuning_state(self) -> dict[str, Any]:
        return {"hypers": [each.detach() for each in self.tuned.hypers], "adam": self.adam.state_dict()}

    def load_tuning_state(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for hyper, value in zip(self.tuned.hypers, state["hypers"], strict=True):
                hyper.copy_(value)
        self.adam.load_state_dict(dict(state["adam"]))
        self.hyperparameters = self.tuned.found()

    def before_step(self) -> None:
        super().before_step()
        if self.history.steps and self.history.steps % self.every == 0:
            self._update()

    def _update(self) -> None:
        """One step of Adam on the hyperparameters."""
        strategy, weights = self.strategy, [each for each in self.trained.values() if each.requires_grad]
        batch = self.training_batch(strategy.batch)
        weight = self.tuned.weigh(batch)
        if weight is not None:
            batch = Batch(**{**vars(batch), "weight": weight.to(self.device)})
        with evaluating(self.model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            outer = self.judge_loss(strategy.batch)  # other attention kernels have no second derivatives
            inner = self.loss.value(self.step_on(batch))
            found = hypergradient(inner, outer, weights, self.tuned.hypers, terms=strategy.terms, rate=strategy.rate)
        for hyper, gradient in zip(self.tuned.hypers, found, strict=True):
            hyper.grad = torch.nan_to_num(gradient, posinf=0.0, neginf=0.0)
        self.adam.step()
        self.hyperparameters = self.tuned.found()
        self.moved.append({"step": self.history.steps, "judge_loss": outer.item(), "training_loss": inner.item()})

    def _batch(self, index: np.ndarray) -> Batch:
        batch = super()._batch(index)
        if not self.moved:
            return batch
        weight = self.tuned.weigh(batch)
        return batch if weight is None else Batch(**{**vars(batch), "weight": weight.detach().to(self.device)})
