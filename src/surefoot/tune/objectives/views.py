"""Two views of a text that are each other's positives, which unsupervised contrastive objectives share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.tune.objective import Context, Objective, fraction, positive
from surefoot.tune.objectives.pairs import unit
from surefoot.tune.step import Step

#: Deviation of the weights that projectors start with: BERT's.
DEVIATION = 0.02


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """-log exp(cos(u_i, v_i) / t) / sum_j exp(cos(u_i, v_j) / t), u, v (B, D): (B,) in nats.

    >>> contrast(torch.eye(2), torch.eye(2), 1.0)
    tensor([0.3133, 0.3133])
    """
    scores = unit(first) @ unit(second).T / temperature
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device), reduction="none")


def projector(dim: int) -> nn.Sequential:
    """tanh(W f + b), (B, D) to (B, D): BERT's pooler, random at the start."""
    return started(nn.Sequential(nn.Linear(dim, dim), nn.Tanh()))


def started(module: nn.Sequential) -> nn.Sequential:
    """The module with its linear layers as BERT starts them: N(0, 0.02^2), no bias."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            nn.init.normal_(each.weight, std=DEVIATION)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
    return module


class DropoutViews(Objective):
    """What objectives share whose positives are two passes over one text, each with its own dropout.

    temperature: t. dropout: the rate at which the whole training runs, whatever the model's own; None for the model's
    own, which must not be 0. A rate of 0 makes both views the same, and has to be asked for. `name` is for messages.
    """

    reads_labels = False
    name = ""

    def __init__(self, *, temperature: float, dropout: float | None) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.dropout = None if dropout is None else fraction("dropout", dropout)

    def setup(self, context: Context) -> None:
        #: rates that the model had, by the name of the module
        self.own_ = {name: each.p for name, each in dropouts(context.model).items()}
        if not any(self.own_.values()) and self.dropout is None:
            raise RecipeError(
                f"objective `{self.name}` tells two passes over a text apart by dropout alone, and `{context.model.name}` has none: give the rate, as {self.name}: {{weight: 1.0, dropout: 0.1}}"
            )
        if self.dropout and not self.own_:
            raise RecipeError(
                f"objective `{self.name}` cannot drop anything out in `{context.model.name}`, which has no dropout modules: choose a transformer that has, such as `minilm`"
            )
        if self.dropout is not None:
            for each in dropouts(context.model).values():
                each.p = self.dropout
        self.projector = self.make_projector(context.model.dim)

    def make_projector(self, dim: int) -> nn.Module:
        """What stands on the features in training alone."""
        return projector(dim)

    def views(self, step: Step) -> tuple[Tensor, Tensor]:
        """Both passes, projected: (B, D) each."""
        first, second = self.projector(torch.cat([step.output.features, step.second_output.features])).chunk(2)
        return first, second

    def finish(self, model: Model) -> None:
        for name, each in dropouts(model).items():
            each.p = self.own_.get(name, each.p)


def dropouts(model: Model) -> dict[str, nn.Dropout]:
    """The dropout modules of a backbone, by name."""
    return {name: each for name, each in model.backbone.named_modules() if isinstance(each, nn.Dropout)}
