"""Cutout: learn from inputs of which a part is hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction
from surefoot.tune.step import Step


@register(
    "cutout",
    kind="objective",
    family="augmentation",
    papers=[
        Paper(
            "Improved Regularization of Convolutional Neural Networks with Cutout",
            "DeVries and Taylor",
            2017,
            arxiv="1708.04552",
        )
    ],
)
class Cutout(Objective):
    """Cross-entropy where a square around a random point of each image is hidden: CE(f(x (1 - M)), y).

    M (H, W): a square of side `share` times the shorter side of the image, its centre uniform over the pixels, so that
    it may reach over the border and hide less; hidden is what normalised images have at 0, the mean of each channel.
    Images are `pixel_values` (B, C, H, W), or features (B, H, W), (B, H, W, C) or (B, C, H, W), or flat ones with
    their `shape`. In a text, the analogue: `share`^2 of the tokens, one after another, which the others do not see;
    the first and the last token stay. Other features (B, D): so many of the numbers, one after another.
    Gives (B,) in nats; it takes the place of cross-entropy. Nothing is cached, because the inputs change.

    share: in [0, 1]; 0.5, the paper's for CIFAR-10 (16 of 32 pixels; 0.25 for CIFAR-100); 0 is cross-entropy to the
    bit. shape: rows and columns of flat features, None for features that are no image. Raises RecipeError for other
    values, or a shape that does not hold the features. Reference: DeVries and Taylor 2017; uoguelph-mlrg/Cutout.

    >>> Cutout(share=0.25).share
    0.25
    """

    needs = frozenset({"inputs"})

    def __init__(self, *, share: float = 0.5, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.share = fraction("share", share, one=True)
        if shape is not None and (len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape)):
            raise RecipeError(f"`shape` is {shape}: it must be rows and columns, such as [8, 8]")
        self.shape = shape

    def per_example(self, step: Step) -> Tensor:
        if self.share == 0:
            logits = step.output.logits
        else:
            logits = step.again(inputs=self.hide(step.batch.inputs, step.generator)).logits
        return F.cross_entropy(logits, step.labels, reduction="none")

    def hide(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The inputs with a part of each example hidden."""
        if "input_ids" in inputs:
            mask = inputs["attention_mask"]
            start = (mask.cumsum(1) > 1) & mask.bool()  # all but the first token, and below, but the last
            inner = start & start.roll(-1, 1)
            return {**inputs, "attention_mask": mask * ~span(inner, self.share**2, generator)}
        if "pixel_values" in inputs:
            values = inputs["pixel_values"]
            return {**inputs, "pixel_values": values.masked_fill(self._square(values, (2, 3), generator), 0)}
        return {**inputs, "features": self._hidden_features(inputs["features"], generator)}

    def _hidden_features(self, values: Tensor, generator: torch.Generator) -> Tensor:
        if self.shape is not None:
            if values.ndim != 2 or values.shape[1] != self.shape[0] * self.shape[1]:
                raise RecipeError(
                    f"cutout: features of shape {tuple(values.shape[1:])} are no image of {self.shape[0]} x {self.shape[1]}: mend `shape`"
                )
            return self._hidden_features_of(values.reshape(-1, *self.shape), generator).flatten(1)
        return self._hidden_features_of(values, generator)

    def _hidden_features_of(self, values: Tensor, generator: torch.Generator) -> Tensor:
        if values.ndim == 2:
            hidden = span(torch.ones_like(values, dtype=torch.bool), self.share**2, generator)
            return torch.where(hidden, values.mean(0), values)
        last = values.ndim == 4 and values.shape[1] > 4 >= values.shape[3]
        sides = (1, 2) if last or values.ndim == 3 else (2, 3)
        channels = [i for i in range(values.ndim) if i not in (0, *sides)]
        mean = values.mean([i for i in range(values.ndim) if i not in channels], keepdim=True)
        return torch.where(self._square(values, sides, generator), mean, values)

    def _square(self, values: Tensor, sides: tuple[int, int], generator: torch.Generator) -> Tensor:
        """What is hidden of each image, in a shape that goes with `values`."""
        count, lengths = len(values), [values.shape[side] for side in sides]
        side, hidden = round(self.share * min(lengths)), torch.ones(1, dtype=torch.bool, device=values.device)
        for dimension, length in zip(sides, lengths, strict=True):
            centre = torch.randint(length, (count, 1), generator=generator, device=generator.device).to(values.device)
            first = centre - side // 2
            place = torch.arange(length, device=values.device)
            within = (place >= first) & (place < first + side)
            hidden = hidden & within.view(count, *[length if i == dimension else 1 for i in range(1, values.ndim)])
        return hidden

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"share": Space(0.1, 0.7)}


def span(candidates: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Of each row of `candidates` (B, T) the `share`, rounded, one after another from a random one on: (B, T), bool."""
    counts = candidates.sum(1, keepdim=True)
    lengths = (share * counts).round()
    drawn = torch.rand(len(candidates), 1, generator=generator, device=generator.device).to(candidates.device)
    first = (drawn * (counts - lengths + 1)).floor()
    place = candidates.cumsum(1) - 1
    return candidates & (place >= first) & (place < first + lengths)
