"""Random views of inputs: what methods average over, or ask to agree. Seeded by the generator that they are given."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import ModelError
from surefoot.models.model import Model
from surefoot.tune.step import Batch, Output

#: Of images: degrees turned, share of the side moved, share zoomed, share of brightness and contrast, deviation of noise
#: in units of the image's own deviation. The ranges are those of CoTTA's CIFAR views, without hue, gamma and blur.
DEGREES, MOVED, ZOOMED, BRIGHTER, CONTRAST, NOISE = 15.0, 1 / 16, 0.1, 0.4, 0.3, 0.02
#: Of texts: the share of tokens that are hidden, by the attention mask.
HIDDEN = 0.1


def view(batch: Batch, generator: torch.Generator, *, name: str) -> Batch:
    """The batch with one random view of every input in its place.

    Images (B, C, H, W) or (B, H, W, C): half of them mirrored, turned by up to 15 degrees, moved by up to a sixteenth,
    zoomed by up to a tenth, brightness and contrast changed, a little noise. Texts: a tenth of the tokens hidden from
    attention, never the first or the last; ours, since the papers have images alone.
    Raises ModelError for arrays of plain numbers, of which no view is known. name: who asks, for the message.
    """
    inputs = dict(batch.inputs)
    if "input_ids" in inputs:
        inputs["attention_mask"] = _hidden(inputs["attention_mask"], generator)
        return replace(batch, inputs=inputs, prefix=None)
    key = "pixel_values" if "pixel_values" in inputs else "features"
    value = inputs[key]
    if value.ndim != 4:
        raise ModelError(
            f"`{name}` looks at views of images or texts, and of arrays of shape {tuple(value.shape[1:])} none is known: give images as (height, width, colours)"
        )
    last = value.shape[-1] in (1, 3) and value.shape[1] not in (1, 3)
    images = value.permute(0, 3, 1, 2) if last else value
    seen = _image_views(images, generator)
    inputs[key] = seen.permute(0, 2, 3, 1).contiguous() if last else seen
    return replace(batch, inputs=inputs, prefix=None)


def by_length(model: Model, batch: Batch, *, parts: int = 3) -> Output:
    """A pass over texts in so many parts, the shorter ones without the padding that the longest need; others in one."""
    mask = batch.inputs.get("attention_mask")
    if mask is None or len(batch) < 4 * parts or bool((mask[:, 0] == 0).any()):
        return model(batch)  # type: ignore[no-any-return]
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lengths = (positions * (mask != 0)).max(1).values  # up to the last token, whatever a view hides before it
    order = lengths.argsort(stable=True)
    found = []
    for rows in order.tensor_split(parts):
        longest = int(lengths[rows].max())
        inputs = {name: value[rows, :longest] for name, value in batch.inputs.items()}
        found.append(model(Batch(inputs=inputs, labels=batch.labels[rows], index=batch.index[rows])))
    back = order.argsort()
    features, logits = (torch.cat([getattr(each, name) for each in found])[back] for name in ("features", "logits"))
    return Output(features, logits)


def repeated(batch: Batch, row: int, count: int) -> Batch:
    """One example of the batch, `count` times."""
    inputs = {name: value[row : row + 1].expand(count, *value.shape[1:]) for name, value in batch.inputs.items()}
    labels, index = (value[row : row + 1].expand(count) for value in (batch.labels, batch.index))
    return Batch(inputs=inputs, labels=labels, index=index)


def _image_views(images: Tensor, generator: torch.Generator) -> Tensor:
    count, device = len(images), images.device

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=generator)).to(device)

    angle = draw(-DEGREES, DEGREES) * (math.pi / 180)
    zoom = 1 / draw(1 - ZOOMED, 1 + ZOOMED)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    # The grid runs from -1 to 1, so that a sixteenth of the side is an eighth of it.
    right, down = draw(-2 * MOVED, 2 * MOVED), draw(-2 * MOVED, 2 * MOVED)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    theta = torch.stack([torch.stack([mirror * cos, -sin, right], 1), torch.stack([mirror * sin, cos, down], 1)], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    deviation = moved.std((1, 2, 3), keepdim=True)
    wide = (-1, 1, 1, 1)
    changed = draw(1 - CONTRAST, 1 + CONTRAST).view(wide) * (moved - mean) + mean
    changed = changed + draw(-BRIGHTER, BRIGHTER).view(wide) * deviation
    return changed + NOISE * deviation * torch.randn(moved.shape, generator=generator).to(device)


def _hidden(mask: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(mask.shape, generator=generator).to(mask.device) < HIDDEN
    position = mask.cumsum(1)
    inside = (position > 1) & (position < mask.sum(1, keepdim=True))
    return torch.where(drawn & inside, torch.zeros_like(mask), mask)
