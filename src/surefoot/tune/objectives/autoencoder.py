"""Features that an auto-encoder can rebuild: what is in scope gathers, and the rest lies elsewhere."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space
from surefoot.tune.step import Step


@register(
    "autoencoder",
    kind="objective",
    family="features",
    papers=[
        Paper(
            "A new approach for fine-tuning sentence transformers for intent classification and out-of-scope detection tasks",
            "Zhang et al.",
            2024,
            arxiv="2410.13649",
        )
    ],
)
class AutoEncoder(Objective):
    """Reconstruction error of the features by a narrow auto-encoder: ||f_i - g(f_i)||^2.

    f: features (B, D); g: six linear layers with ReLU between them, D -> ... -> `width` -> ... -> D, widths in equal ratios,
    of its own parameters, trained beside the model; the gradient flows into f too, so that in-scope features gather on
    what a width of 16 can hold. Gives (B,), in squared units of the features. Goes beside cross-entropy; queries out of scope are then
    told by distances among features (`surefoot novelty`).

    width: 16, the paper's narrowest layer, or half of D where that is less; six layers are the paper's, the widths between are ours. The paper tunes its weight;
    its value was not in what we could read.

    State: the layers' weights. Raises RecipeError unless the width is at least 1, or for features of one number.
    Reference: Zhang et al. 2024.

    >>> AutoEncoder(width=8).width
    8
    """

    reads_labels = False

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        if width < 1:
            raise RecipeError(f"`width` is {width}: give one or more")
        self.width = width

    def setup(self, context: Context) -> None:
        dim = context.model.dim
        if dim < 2:
            raise RecipeError("autoencoder: features of one number leave nothing to leave out: use another model")
        width = min(self.width, dim // 2)
        down = [round(dim * (width / dim) ** (step / 3)) for step in range(4)]
        layers: list[nn.Module] = []
        for into, out in pairwise([*down, *reversed(down[:-1])]):
            layers += [nn.Linear(into, out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1]).to(context.labels.device)

    def per_example(self, step: Step) -> Tensor:
        features = step.output.features.float()
        with torch.autocast(features.device.type, enabled=False):
            rebuilt: Tensor = self.layers(features)
            return (features - rebuilt).square().sum(1)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"width": Space(4, 64, log=True, integer=True)}
