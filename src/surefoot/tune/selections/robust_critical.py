"""RiFT's choice of module: the one whose weights robustness depends on least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.attacks.attack import Attack, Target, modality_of
from surefoot.attacks.embedding_pgd import EmbeddingPGD
from surefoot.attacks.pgd import EPSILON, PGD
from surefoot.errors import RecipeError
from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.tune.objective import positive
from surefoot.tune.selection import Selection, Training
from surefoot.tune.selections import train_only, whole

if TYPE_CHECKING:
    from surefoot.models.model import Model

PAPER = Paper(
    "Improving Generalization of Adversarial Training via Robust Critical Fine-Tuning",
    "Zhu et al.",
    2023,
    arxiv="2308.02533",
)
#: Examples in a pass.
SIZE = 128


@register("robust_critical", kind="selection", family="depth", papers=[PAPER])
class RobustCritical(Selection):
    """The one module trains that robustness depends on least: the lowest module robust criticality.

    MRC_i = max over ||D||_F <= radius ||W_i||_F of R(W_i + D) - R(W_i),  R = mean CE(f(x'), y)

    W_i: the weight of a convolution or a linear layer, the head's included. x': examples that PGD-10 has moved within
    epsilon of training examples, for the model as it starts, and then held fixed. The maximum is sought by gradient
    descent on -R over W_i alone, `epochs` passes over x' with rate `lr`, put back into the ball after each; the largest R
    on the way counts. Made for a model that is adversarially trained (`head: keep`): elsewhere no module is.

    examples: 512 of the training set, where the paper takes the whole. epsilon: 8/255, of pixels, or of the mean norm
    of a word embedding. radius: 0.1, lr: 1, epochs: 10, the authors' code's. choose: `lowest`, or `highest` for a
    control. inner: whether the first and the last module are left out, which the authors' README advises; False, as in
    algorithm 1. One pass forwards and backwards for each module, epoch and example. Raises RecipeError for values out
    of range, or if there is no such module. Reference: Zhu et al. 2023, definition 3.1 and algorithm 1; microsoft/robustlearn, RiFT/main.py.

    >>> RobustCritical(examples=128).radius
    0.1
    """

    reads_labels = True

    def __init__(
        self,
        *,
        examples: int = 512,
        epsilon: float = EPSILON,
        radius: float = 0.1,
        lr: float = 1.0,
        epochs: int = 10,
        choose: str = "lowest",
        inner: bool = False,
    ) -> None:
        self.examples = whole("examples", examples, least=1)
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.radius = positive("radius", radius, zero=True)
        self.lr = positive("lr", lr)
        self.epochs = whole("epochs", epochs, least=1)
        if choose not in ("lowest", "highest"):
            raise RecipeError(f"`choose` is {choose!r}: it must be `lowest` or `highest`")
        self.choose = choose
        self.inner = inner
        self.criticality_: dict[str, float] = {}

    def setup(self, model: Model, training: Training) -> None:
        modules = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}
        unreached = tuple(model.unreached)
        modules = {name: each for name, each in modules.items() if f"{name}.weight" not in unreached}
        if self.inner:
            modules = dict(list(modules.items())[1:-1])
        if not modules:
            between = " between its first and its last" if self.inner else ""
            raise RecipeError(f"robust_critical ranks convolutions and linear layers, and the model has none{between}")
        fixed = attacked_examples(model, training, examples=self.examples, epsilon=self.epsilon)
        trains = {each: each.requires_grad for each in model.parameters()}
        for each in trains:
            each.requires_grad_(False)
        try:
            with evaluating(model):
                before = robust_loss(fixed)
                self.criticality_ = {
                    name: self._highest(module.weight, fixed) - before for name, module in modules.items()
                }
        finally:
            for each, before_trains in trains.items():
                each.requires_grad_(before_trains)

    def _highest(self, weight: Tensor, fixed: list[Fixed]) -> float:
        """The largest R that the ascent over one weight meets; the weight is put back."""
        origin, highest = weight.detach().clone(), float("-inf")
        reach = self.radius * origin.norm()
        weight.requires_grad_(True)
        try:
            for _ in range(self.epochs):
                for each in fixed:
                    with torch.enable_grad():
                        (gradient,) = torch.autograd.grad(each.losses().mean(), weight)
                    with torch.no_grad():
                        weight.add_(gradient, alpha=self.lr)
                with torch.no_grad():
                    shift = weight - origin
                    weight.copy_(origin + shift * (reach / shift.norm().clamp_min(1e-12)).clamp(max=1.0))
                highest = max(highest, robust_loss(fixed))
        finally:
            with torch.no_grad():
                weight.copy_(origin)
            weight.requires_grad_(False)
        return highest

    def apply(self, model: Model) -> None:
        if not self.criticality_:
            raise RecipeError("RobustCritical chooses by data: call `setup` before `apply`")
        pick = min if self.choose == "lowest" else max
        chosen = pick(self.criticality_, key=self.criticality_.__getitem__)
        train_only(model, [name for name, _ in model.named_parameters() if name.rpartition(".")[0] == chosen])

    def __repr__(self) -> str:
        return f"RobustCritical(examples={self.examples}, radius={self.radius})"


@dataclass
class Fixed:
    """A batch that was moved once, for the model as it was."""

    target: Target
    moved: Tensor

    def losses(self) -> Tensor:
        """CE(f(x'), y): (N,)."""
        return F.cross_entropy(self.target.logits(self.moved), self.target.labels, reduction="none")


def targets_of(model: Model, training: Training, *, examples: int, epsilon: float) -> Iterator[tuple[Target, Attack]]:
    """So many training examples as batches to attack, each with PGD-10 for what it holds; what is drawn depends on the
    place of the batch alone."""
    for number, batch in enumerate(training.batches(examples, size=SIZE)):
        attack = EmbeddingPGD(epsilon=epsilon) if modality_of(batch) == "text" else PGD(epsilon=epsilon)
        generator = torch.Generator(model.device).manual_seed(number)
        yield Target(model, batch, attack.moves, generator), attack


def attacked_examples(model: Model, training: Training, *, examples: int, epsilon: float) -> list[Fixed]:
    """So many training examples, moved by PGD-10."""
    with evaluating(model):
        found = targets_of(model, training, examples=examples, epsilon=epsilon)
        return [Fixed(target, attack.perturb(target)) for target, attack in found]


@torch.no_grad()
def robust_loss(fixed: list[Fixed]) -> float:
    """R: the mean loss over all of them, in nats."""
    return float(torch.cat([each.losses() for each in fixed]).mean())
