"""Surgical fine-tuning: the layers with the largest Fisher score train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.tune.selection import Selection, Training
from surefoot.tune.selections import head_names, train_only, whole

if TYPE_CHECKING:
    from surefoot.models.model import Model


@register(
    "fisher_layers",
    kind="selection",
    family="depth",
    papers=[Paper("On Surgical Fine-tuning for Language Encoders", "Lodha et al.", 2023, arxiv="2310.17041")],
)
class FisherLayers(Selection):
    """The k blocks whose weights the labels speak of most train, and the head; the others stay.

    F_p = 1/N sum_i (d log p(y_i | x_i) / d p)^2,  score of a block = sum over its tensors p of ||F_p||_F

    The empirical diagonal Fisher information, y_i the true label, taken once, before the first step, in eval mode, of
    the model with the head that training starts from. F_p has the shape of p, in nats^2 per squared weight. The
    authors' code differentiates the label's logit instead of its log-probability and sees its first batch only; this
    is the paper's formula. Without blocks (plain modules) every module that holds parameters counts as one.

    k: 2 of six, as in `top_layers`; the paper tries 1 to all. examples: 100, the paper's. One pass with gradient
    for each. Raises RecipeError if the model has fewer than k layers, or if all scores are zero, which a head of
    zeros makes them. Reference: Lodha et al. 2023.

    >>> FisherLayers(k=1)
    FisherLayers(k=1, examples=100)
    """

    reads_labels = True

    def __init__(self, *, k: int = 2, examples: int = 100) -> None:
        self.k = whole("k", k, least=1)
        self.examples = whole("examples", examples, least=1)
        self.scores_: dict[str, float] = {}

    def setup(self, model: Model, training: Training) -> None:
        layers = model.layer_names or [
            name
            for name, module in model.named_modules()
            if name.startswith("backbone.") and next(module.parameters(recurse=False), None) is not None
        ]
        if self.k > len(layers):
            raise RecipeError(f"{self.k} layers are to train, but the model has {len(layers)}")
        fisher = diagonal_fisher(model, training, examples=self.examples, within=layers)
        self.scores_ = {
            layer: sum(float(each.norm()) for name, each in fisher.items() if name.startswith(f"{layer}."))
            for layer in layers
        }
        if not any(self.scores_.values()):
            raise RecipeError(
                "the Fisher scores of all layers are zero, because nothing below a head of zeros has a gradient: use head: probe"
            )

    def apply(self, model: Model) -> None:
        if not self.scores_:
            raise RecipeError("FisherLayers chooses by data: call `setup` before `apply`")
        chosen = sorted(self.scores_, key=lambda layer: -self.scores_[layer])[: self.k]
        inside = tuple(f"{layer}." for layer in chosen)
        names = [name for name, _ in model.named_parameters() if name.startswith(inside)]
        train_only(model, names + head_names(model))

    def __repr__(self) -> str:
        return f"FisherLayers(k={self.k}, examples={self.examples})"


def diagonal_fisher(model: Model, training: Training, *, examples: int, within: list[str]) -> Mapping[str, Tensor]:
    """By name, the mean over examples of the squared gradient of log p(y | x), of the parameters under `within`."""
    inside = tuple(f"{name}." for name in within)
    watched = {name: each for name, each in model.named_parameters() if name.startswith(inside)}
    trains = {each: each.requires_grad for each in model.parameters()}
    for each in trains:
        each.requires_grad_(False)
    for each in watched.values():
        each.requires_grad_(True)
    squares = {name: torch.zeros_like(each) for name, each in watched.items()}
    seen = 0
    with evaluating(model), torch.enable_grad():
        for batch in training.batches(examples, size=1):
            loss = F.cross_entropy(model(batch).logits, batch.labels)
            gradients = torch.autograd.grad(loss, list(watched.values()), allow_unused=True)
            for name, gradient in zip(watched, gradients, strict=True):
                if gradient is not None:
                    squares[name] += gradient.square()
            seen += 1
    for each, before in trains.items():
        each.requires_grad_(before)
    return {name: each / seen for name, each in squares.items()}
