"""Interpolation towards the tuned weights, with the moves of straggler layers made sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from surefoot.assess.analyses.straggler_layers import PAPER
from surefoot.assess.stragglers import barriers, interpolated_losses, layers_of
from surefoot.errors import RecipeError
from surefoot.merge.combine import Combine, Pieces, Weights
from surefoot.models.modes import evaluating
from surefoot.registry import register
from surefoot.tune.objective import fraction
from surefoot.tune.selections import whole

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.selection import Training

#: Where the loss between the weights is looked at.
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@register("straggler_pruning", kind="merge", family="interpolation", papers=[PAPER])
class StragglerPruning(Combine):
    """theta = theta_0 + alpha m * (theta_1 - theta_0), m: 1 but in the straggler layers, where it keeps the largest moves.

    Straggler layers: the `count` with the largest barrier max_a [L_l(a) - (1 - a) L_l(0) - a L_l(1)], L_l(a) the loss in
    nats of the tuned model with layer l alone at (1 - a) theta_0 + a theta_1, a = 0, 1/4, ..., 1, over training examples,
    since a recipe has no others. In each of them the share `density` of the moves that is largest in size stays. With a
    density of 1 this is `wise_ft`, to the bit.

    That sparsity in straggler layers mends interpolations that fail is the paper's; how sparse and by which rule could
    not be checked, no code is public: density 0.5, count 1 and magnitude are ours. alpha: 0.75, as in `wise_ft`.
    examples: 128. `layers_` holds the stragglers, `barriers_` what was found of each layer. Raises RecipeError for values
    out of range, or outside a recipe, where there is no training to look at.
    Reference: Abdollahpoorrostam 2024, by its abstract.

    >>> StragglerPruning(density=0.2).count
    1
    """

    streams = False

    def __init__(self, *, alpha: float = 0.75, density: float = 0.5, count: int = 1, examples: int = 128) -> None:
        self.alpha, self.density = fraction("alpha", alpha, one=True), fraction("density", density, one=True)
        self.count, self.examples = whole("count", count, least=1), whole("examples", examples, least=1)
        self.barriers_: dict[str, float] = {}
        self.layers_: list[str] | None = None
        self._thresholds: dict[str, float] = {}

    def setup(self, model: Model, training: Training, base: Weights) -> None:
        frozen, model.frozen = model.frozen, 0
        with evaluating(model):
            layers, losses = interpolated_losses(model, base, list(training.batches(self.examples)), ALPHAS)
        model.frozen = frozen
        found = barriers(losses, ALPHAS)
        self.barriers_ = dict(zip(layers, found.tolist(), strict=True))
        self.layers_ = [layers[number] for number in np.argsort(-found, kind="stable")[: self.count]]
        state = model.state_dict()
        names = [name for name, value in state.items() if name in base and value.is_floating_point()]
        groups = layers_of(model, names)
        self._thresholds = {}
        for layer in self.layers_:
            moves = torch.cat([(state[name] - base[name].to(state[name])).flatten().abs() for name in groups[layer]])
            kept = round(self.density * len(moves))
            threshold = float(moves.kthvalue(len(moves) - kept + 1).values) if kept else float("inf")
            self._thresholds |= dict.fromkeys(groups[layer], threshold)

    def measure(self, pieces: Pieces, *, name: str = "") -> float:
        """The size below which moves of the tensor are dropped."""
        if self.layers_ is None:
            raise RecipeError("straggler_pruning looks at the training's examples: put it into a recipe's `after`")
        return self._thresholds.get(name, 0.0)

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any = None) -> Tensor:
        assert base is not None
        target = tuned[0].to(base.dtype)
        if measured:
            target = torch.where((target - base).abs() >= measured, target, base)
        if self.alpha in (0.0, 1.0):
            return (target if self.alpha else base).clone()
        return torch.lerp(base, target, self.alpha)
