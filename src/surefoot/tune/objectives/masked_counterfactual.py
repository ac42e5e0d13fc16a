"""Counterfactual samples: where what decides is masked, the features stay the pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction, one_of
from surefoot.tune.step import Step

#: The authors' thresholds by what is masked and how it is filled.
THRESHOLDS = {
    ("object", "single"): 0.3,
    ("context", "single"): 0.5,
    ("object", "multi"): 0.6,
    ("context", "multi"): 0.3,
    ("random", "single"): 0.5,
    ("random", "multi"): 0.5,
}


@register(
    "masked_counterfactual",
    kind="objective",
    family="distillation",
    papers=[
        Paper(
            "Masked Images Are Counterfactual Samples for Robust Fine-tuning", "Xiao et al.", 2023, arxiv="2303.03052"
        )
    ],
)
class MaskedCounterfactual(Objective):
    """The pretrained features of inputs whose decisive part is another's: mean_d (h(x^; theta) - h(x^; theta_0))_d^2.

    h: features (B, D); theta_0: the model before training, in eval mode, without gradient. x^: the input with masked
    patches (of an image) or tokens (of a text, the analogue) filled from other examples of the batch. Relevance of a
    patch to the true class, by the present model: R <- R + A R over the blocks from R = I, A = mean over heads of
    max(0, attention * d z_y / d attention); of R what the pooling reads (the row of [CLS], or the mean of the tokens'
    rows), over its maximum. Gives (B,), a mean square in units of the features; the label shapes the mask alone.
    Cross-entropy is an objective of its own, beside which the paper weighs this by 30.

    mask: `object` masks relevance above the threshold (default), `context` what is not above it, `random` a share.
    fill: `single` from one other example at the same place (default), `multi` from another one for each patch; a text
    that has no word at that place gives none, and the place is not seen. threshold: in [0, 1]; None for the authors':
    object 0.3 and 0.6, context 0.5 and 0.3, random 0.5 (single, multi). Blocks that do not train have no share in R.

    Attention maps cost transformers' eager attention; beside the pass of cross-entropy there are a backward pass to the
    maps, a pass with gradient and one of theta_0. Raises RecipeError for other values or a model without blocks.
    Reference: Xiao et al. 2023; Coxy7/robust-finetuning, utils/masking.py and trainers/distill_trainer.py.

    >>> MaskedCounterfactual(mask="context").limit
    0.5
    """

    needs = frozenset({"inputs", "attentions", "layers"})

    def __init__(self, *, mask: str = "object", fill: str = "single", threshold: float | None = None) -> None:
        super().__init__()
        self.mask = one_of("mask", mask, ["object", "context", "random"])
        self.fill = one_of("fill", fill, ["single", "multi"])
        self.threshold = None if threshold is None else fraction("threshold", threshold, one=True)

    @property
    def limit(self) -> float:
        """The threshold that is used."""
        return THRESHOLDS[self.mask, self.fill] if self.threshold is None else self.threshold

    def setup(self, context: Context) -> None:
        if not context.layer_names:
            raise RecipeError("masked_counterfactual reads attention maps, and this model has no blocks: leave it out")
        self.start_ = dict(context.start)

    def per_example(self, step: Step) -> Tensor:
        inputs = self.counterfactual(step)

        def pretrained(*args: Any, **options: Any) -> Any:
            return functional_call(step.model, self.start_, args, options)

        with torch.no_grad(), evaluating(step.model):
            target = step.again(inputs=inputs, model=pretrained).features  # type: ignore[arg-type]
        return (step.again(inputs=inputs).features - target).square().mean(1)

    def counterfactual(self, step: Step) -> dict[str, Tensor]:
        """x^ as the model's inputs."""
        inputs, generator = step.batch.inputs, step.generator
        if "pixel_values" in inputs:
            patches = _grid(step.model, inputs["pixel_values"])
            masked = self._masked(step, patches[0] * patches[1]).view(-1, *patches)
            return {**inputs, "pixel_values": self._filled_images(inputs["pixel_values"], masked, generator)}
        masked = self._masked(step, inputs["input_ids"].shape[1]) & _words(inputs["attention_mask"])
        return self._filled_texts(inputs, masked, generator)

    def _masked(self, step: Step, places: int) -> Tensor:
        """Which of the last `places` tokens are masked: (B, places)."""
        if self.mask == "random":
            drawn = torch.rand(len(step.batch), places, generator=step.generator, device=step.generator.device)
            return drawn.to(step.labels.device) < self.limit
        found = relevance(step)[:, -places:]
        found = found / found.amax(1, keepdim=True).clamp_min(torch.finfo(found.dtype).tiny)
        return found > self.limit if self.mask == "object" else found <= self.limit

    def _others(self, count: int, places: int, generator: torch.Generator) -> Tensor:
        """Of which example each place is filled: (B, places) or (B, 1)."""
        device = generator.device
        if self.fill == "single":
            return torch.randperm(count, generator=generator, device=device)[:, None]
        shift = torch.randint(1, max(count, 2), (count, places), generator=generator, device=device)
        return (torch.arange(count, device=device)[:, None] + shift) % count

    def _filled_images(self, images: Tensor, masked: Tensor, generator: torch.Generator) -> Tensor:
        count, rows, columns = masked.shape
        high, wide = images.shape[2] // rows, images.shape[3] // columns
        others = self._others(count, rows * columns, generator).to(images.device)
        others = others.expand(-1, rows * columns).reshape(count, rows, columns)
        # (B, rows, columns, C, high, wide)
        pieces = images.reshape(count, -1, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
        row, column = torch.arange(rows, device=images.device), torch.arange(columns, device=images.device)
        filled = torch.where(masked[..., None, None, None], pieces[others, row[:, None], column], pieces)
        return filled.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

    def _filled_texts(
        self, inputs: Mapping[str, Tensor], masked: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        others = self._others(len(ids), ids.shape[1], generator).to(ids.device).expand_as(ids)
        has_word = _words(mask).gather(0, others)
        return {
            **inputs,
            "input_ids": torch.where(masked & has_word, ids.gather(0, others), ids),
            "attention_mask": mask * ~(masked & ~has_word),
        }

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"threshold": Space(0.1, 0.9)}


def relevance(step: Step) -> Tensor:
    """Relevance of every token to the true class: (B, T), at least 0, without gradient."""
    output = step.output
    assert output.attentions is not None, "`needs` holds attentions"
    maps = [each for each in output.attentions if each.requires_grad]
    count, tokens = len(step.batch), output.attentions[0].shape[-1]
    found = torch.zeros(count, tokens, tokens, device=output.logits.device)  # R - I
    if maps:
        score = output.logits.gather(1, step.labels[:, None]).sum()
        slopes = torch.autograd.grad(score, maps, retain_graph=True)
        for attention, slope in zip(maps, slopes, strict=True):
            share = (attention.detach() * slope).float().clamp_min(0).mean(1)
            found = found + share + share @ found
    if step.model.pool in ("mean", "max"):
        mask = step.batch.inputs.get("attention_mask")
        rows = torch.ones(count, tokens, device=found.device) if mask is None else mask.float()
        return (rows[:, None] @ found).squeeze(1) / rows.sum(1, keepdim=True).clamp_min(1)
    if step.model.pool == "last" and "attention_mask" in step.batch.inputs:
        return found[torch.arange(count), step.batch.inputs["attention_mask"].sum(1) - 1]
    return found[:, 0]


def _grid(model: Model, images: Tensor) -> tuple[int, int]:
    """Rows and columns of patches."""
    size: Any = getattr(model.backbone.config, "patch_size", None)
    if not isinstance(size, int):
        raise RecipeError(f"masked_counterfactual masks patches, and `{model.name}` has none: leave it out")
    return images.shape[2] // size, images.shape[3] // size


def _words(mask: Tensor) -> Tensor:
    """Where a text has a token that is neither its first nor its last: (B, T), bool."""
    inner = (mask.cumsum(1) > 1) & mask.bool()
    return inner & inner.roll(-1, 1)
