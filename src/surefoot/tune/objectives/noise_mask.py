"""The policy-gradient noise mask: images are multiplied with masks that a policy learns to draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction
from surefoot.tune.step import Step

#: The authors' blur of images of so many pixels: side of the kernel and deviation.
BLUR, SIZE = (13, 6.0), 224


@register(
    "noise_mask",
    kind="objective",
    family="augmentation",
    papers=[Paper("Policy Gradient-Driven Noise Mask", "Yavuz and Yang", 2024, arxiv="2406.14568")],
)
class NoiseMask(Objective):
    """A heated start on images under learned masks: mean_i log(sum_j p(m_ij)) CE(f(x M), y), then plain CE.

    m_i (grid, grid) ~ Beta(exp(a_i), exp(b_i)), cell by cell and without reparametrisation; a_i, b_i = 0.9 base + 0.1
    of what a small policy makes of image i, base (2, grid, grid) <- 0.99 base + 0.01 of the batch's mean; M: m scaled
    up to the image, blurred, and multiplied into it. p(m_ij): density of cell j; CE: mean over the batch. One backward
    pass moves both: the policy by the first factor, where CE is the cost (REINFORCE without a baseline, as the authors'
    code has it), the classifier by CE, scaled by the first factor, which may be negative where densities are small.
    After the first `heat` of the training the policy is dropped and the loss is cross-entropy. Gives a scalar in nats,
    and takes the place of cross-entropy.

    The policy reads the image in grey: two convolutions (the authors have a small ResNet's features), then three layers
    for each of a and b, zero at first, so that masks begin uniform. Its learning rate is the recipe's, where the
    authors' is a tenth of the classifier's. For `pixel_values` (B, C, H, W) or features (B, H, W, C) or (B, C, H, W).

    grid: cells of a side, 8 (the authors' 64 is for images of 224 pixels, and so are the kernel of 13 and the deviation
    of 6 pixels of the blur, which are scaled to the image). heat: in [0, 1], 0.5; theirs is a training of its own; 0 is
    cross-entropy to the bit. State: `base`, the policy. Raises RecipeError for other values, or inputs that are no
    images. Reference: Yavuz and Yang 2024; ogrenenmakine/Policy-Gradient-Driven-Noise-Mask.

    >>> NoiseMask(heat=0.3).grid
    8
    """

    needs = frozenset({"inputs", "pixels"})
    base: Tensor

    def __init__(self, *, grid: int = 8, heat: float = 0.5) -> None:
        super().__init__()
        if not isinstance(grid, int) or isinstance(grid, bool) or grid < 1:
            raise RecipeError(f"`grid` is {grid}: it must be a whole number above zero")
        self.grid = grid
        self.heat = fraction("heat", heat, one=True)

    def setup(self, context: Context) -> None:
        if context.model.processor.modality == "text":
            raise RecipeError("noise_mask multiplies images, and this model reads text: leave it out, or take `cutout`")
        self.register_buffer("base", torch.zeros(2, self.grid, self.grid))
        self.look = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, self.grid**2))
            for _ in range(2)
        )
        for head in self.heads:
            last: Any = head[-1]  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    @torch.no_grad()
    def update(self, step: Step) -> None:
        if step.progress < self.heat:
            _, images, _ = _images(step)
            self.base.lerp_(self._policy(images).mean(1), 0.01)

    def forward(self, step: Step) -> Tensor:
        if step.progress >= self.heat:
            return F.cross_entropy(step.output.logits, step.labels)
        name, images, last = _images(step)
        chances = self.chances(images)
        with torch.no_grad():
            cells = chances.sample().clamp(1e-4, 1 - 1e-4)
            masked = images * spread(cells, (images.shape[2], images.shape[3]))
            masked = masked.permute(0, 2, 3, 1) if last else masked
        logits = step.again(inputs={**step.batch.inputs, name: masked}).logits
        density: Tensor = chances.log_prob(cells)  # type: ignore[no-untyped-call]
        return density.flatten(1).logsumexp(1).mean() * F.cross_entropy(logits, step.labels)

    def chances(self, images: Tensor) -> Beta:
        """The distribution of each image's cells, (B, grid, grid)."""
        a, b = (0.9 * self.base[:, None] + 0.1 * self._policy(images)).exp()
        return Beta(a, b, validate_args=False)

    def _policy(self, images: Tensor) -> Tensor:
        """(2, B, grid, grid) for images (B, C, H, W)."""
        seen = self.look(images.float().mean(1, keepdim=True)).mean((2, 3))
        cells: Tensor = torch.stack([head(seen) for head in self.heads])
        return cells.view(2, len(images), self.grid, self.grid)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"heat": Space(0.1, 0.9)}


def _images(step: Step) -> tuple[str, Tensor, bool]:
    """Name of the input, the images (B, C, H, W), and whether their channels came last."""
    inputs = step.batch.inputs
    if "pixel_values" in inputs:
        return "pixel_values", inputs["pixel_values"], False
    values = inputs.get("features")
    if values is None or values.ndim != 4:
        raise RecipeError("noise_mask multiplies images, and these inputs are none: leave it out, or take `cutout`")
    last = values.shape[1] > 4 >= values.shape[3]
    return "features", values.permute(0, 3, 1, 2) if last else values, last


def spread(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells (B, grid, grid) as a blurred mask (B, 1, H, W)."""
    mask = F.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)
    side, deviation = (each * min(size) / SIZE for each in BLUR)
    reach = max(1, round((side - 1) / 2))
    places = torch.arange(-reach, reach + 1, device=cells.device, dtype=cells.dtype)
    kernel = torch.exp(-0.5 * (places / deviation).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(mask, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
