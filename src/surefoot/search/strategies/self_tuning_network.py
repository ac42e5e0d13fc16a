"""Self-tuning networks: dropout and weight decay move while the weights learn how they should answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from surefoot.errors import RecipeError
from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.search.best_response import MOST, BestResponse, Decay, Responding, probability, unbounded
from surefoot.search.strategy import Judged, Tuning
from surefoot.tune.build import build
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.selections import whole

if TYPE_CHECKING:
    from surefoot.data.examples import Examples
    from surefoot.models.model import Model
    from surefoot.progress import Progress
    from surefoot.tune.recipe import Recipe


@register(
    "self_tuning_network",
    kind="strategy",
    family="gradient",
    papers=[
        Paper(
            "Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions",
            "MacKay et al.",
            2019,
            arxiv="1903.03088",
        )
    ],
)
class SelfTuningNetwork(Tuning):
    """One training whose linear layers learn their best response to hyperparameters h, which follow the judge's loss.

    W(h) = W0 + diag(V_w h) W1,  b(h) = b0 + diag(V_b h) b1

    in every linear layer that trains. Steps of training move W0, W1, V and the rest with each example's own h + softplus(s)
    eps, eps ~ N(0, I), in the recipe's loss; after every `train_steps` of them Adam moves h (and the scales s) on
    L_judge(W(h + softplus(s) eps)) - entropy_weight entropy(s), where h counts through W(h) alone: dropout is off. What
    is saved is W(h) at the last h, plain layers. `moved` holds the schedule that h went through.

    dropout: where the probability of dropping a layer's inputs starts, MOST sigmoid(h) with MOST 0.9; None tunes none.
    each_layer: a probability for every layer, as in the authors' default, or one for all. weight_decay: where the
    strength exp(h) of exp(h) / 2 ||W(h) - W_start||^2 starts (heads: from zero), None for none; the recipe's own stays.
    train_steps 2, lr 3e-3 of h and s, entropy_weight 1e-5, scale softplus(s) 0.5 at the start, dropout 0.05: the authors'
    code's. warmup: share of the steps before h moves, 0.1 where they have 5 epochs of some hundreds. batch: of each
    domain of the judge, 128. V starts at zero where theirs is drawn with a deviation of 0.01, so that training begins at
    the pretrained weights; their scalar on W0 is left out. Short trainings need a larger lr for h to get anywhere.

    A pass costs two in the layers that train. Raises RecipeError for settings out of range, with selections that wrap
    weights, and where nothing is to be tuned. Reference: MacKay et al. 2019; asteroidhouse/self-tuning-networks.

    >>> SelfTuningNetwork(weight_decay=0.01).train_steps
    2
    """

    def __init__(
        self,
        *,
        dropout: float | None = 0.05,
        each_layer: bool = True,
        weight_decay: float | None = None,
        train_steps: int = 2,
        lr: float = 3e-3,
        scale: float = 0.5,
        tune_scales: bool = True,
        entropy_weight: float = 1e-5,
        warmup: float = 0.1,
        batch: int = 128,
    ) -> None:
        self.dropout = None if dropout is None else fraction("dropout", positive("dropout", dropout))
        if self.dropout is not None and self.dropout >= MOST:
            raise RecipeError(f"`dropout` is {dropout}: it must be below {MOST}")
        self.each_layer = bool(each_layer)
        self.weight_decay = None if weight_decay is None else positive("weight_decay", weight_decay)
        if self.dropout is None and self.weight_decay is None:
            raise RecipeError("nothing is to be tuned: give `dropout` or `weight_decay` a value to start from")
        self.train_steps = whole("train_steps", train_steps, least=1)
        self.lr = positive("lr", lr)
        self.scale = positive("scale", scale)
        self.tune_scales = bool(tune_scales)
        self.entropy_weight = positive("entropy_weight", entropy_weight, zero=True)
        self.warmup = fraction("warmup", warmup)
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
        start = {} if self.dropout is None else {"dropout": unbounded(self.dropout)}
        if self.weight_decay is not None:
            start["weight_decay"] = math.log(self.weight_decay)
        inner = build("selection", recipe.selection)
        responding = Responding(inner, start, scale=self.scale, seed=seed, each=self.each_layer)
        return _SelfTuning(self, responding, recipe, model, train, judge, seed=seed, progress=progress)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"lr": Space(1e-3, 0.1, log=True), "scale": Space(0.1, 1.0, log=True)}


class _SelfTuning(Judged):
    """Steps of training, and after every few of them one of the hyperparameters."""

    def __init__(
        self,
        strategy: SelfTuningNetwork,
        responding: Responding,
        recipe: Recipe,
        model: Model,
        train: Examples,
        judge: Mapping[str, Examples],
        *,
        seed: int,
        progress: Progress | None,
    ) -> None:
        super().__init__(recipe, model, train, judge, seed=seed, progress=progress, selection=responding)
        self.strategy, self.hypers = strategy, responding.hypers
        if strategy.weight_decay is not None:
            layers = {name: each for name, each in self.model.named_modules() if isinstance(each, BestResponse)}
            self.loss.scalars["weight_decay"] = Decay(self.hypers, layers, self.context.head_names)
            self.loss.weights["weight_decay"] = 1.0
        moved = [self.hypers.values, *([self.hypers.scales] if strategy.tune_scales else [])]
        self.adam = torch.optim.Adam(moved, lr=strategy.lr)
        self.hyperparameters = self._found()

    def tuning_state(self) -> dict[str, Any]:
        values, scales = self.hypers.values.detach(), self.hypers.scales.detach()
        return {"values": values, "scales": scales, "adam": self.adam.state_dict()}

    def load_tuning_state(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.hypers.values.copy_(state["values"])
            self.hypers.scales.copy_(state["scales"])
        self.adam.load_state_dict(dict(state["adam"]))
        self.hyperparameters = self._found()

    def before_step(self) -> None:
        super().before_step()
        done = self.history.steps
        self.hypers.step = done
        if done > self.strategy.warmup * self.total and done % self.strategy.train_steps == 0:
            self._update()
        # The backward pass of a step leaves gradients here too, of which Adam must not hear.
        self.hypers.values.grad = self.hypers.scales.grad = None

    def _update(self) -> None:
        """One step of Adam on the hyperparameters."""
        self.adam.zero_grad()
        self.hypers.perturbed = self.strategy.tune_scales
        with evaluating(self.model), torch.enable_grad():
            loss = self.judge_loss(self.strategy.batch)
            objective = loss - self.strategy.entropy_weight * self.hypers.entropy
            found = torch.autograd.grad(objective, [self.hypers.values, self.hypers.scales], allow_unused=True)
        self.hypers.perturbed = True
        self.hypers.values.grad, self.hypers.scales.grad = found
        self.adam.step()
        self.hyperparameters = self._found()
        self.moved.append({"step": self.history.steps, "judge_loss": loss.item(), **self.hyperparameters})

    def _found(self) -> dict[str, float]:
        values = self.hypers.values.detach()
        return {
            name: (value.exp() if name == "weight_decay" else probability(value)).item()
            for name, value in zip(self.hypers.names, values, strict=True)
        }
