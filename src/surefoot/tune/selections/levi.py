"""LEVI: a small model trained from scratch beside the layers of a pretrained one that stays."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.errors import ModelError
from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction
from surefoot.tune.selections import whole
from surefoot.tune.selections.kept import Kept

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Words(nn.Module):
    """h (B, width): mean over tokens of ReLU of a convolution over three word vectors of its own."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.convolution = nn.Conv1d(width, width, 3, padding=1)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        known = mask[..., None].to(self.embedding.weight.dtype)
        found = self.convolution((self.embedding(ids) * known).mT).mT.relu()
        return averaged(found, mask)


class Patches(nn.Module):
    """h (B, width): mean over places of three convolutions of stride 2 with ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = (channels, width, width, width)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(sizes))

    def forward(self, pixels: Tensor) -> Tensor:
        for layer in self.layers:
            pixels = layer(pixels).relu()
        return pixels.mean((2, 3))


class Views(Addition):
    """The small model, and for each chosen block an adapting layer and a head: what is added to the logits."""

    spans = True

    def __init__(self, small: nn.Module, *, count: int, d: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.small = small
        self.adapting = nn.ModuleList(nn.Linear(d + width, width) for _ in range(count))
        self.heads = nn.ModuleList(nn.Linear(width, classes) for _ in range(count))
        self.dropout = nn.Dropout(dropout)
        for head in self.heads:
            for value in head.parameters():
                nn.init.zeros_(value)
        self._own: Tensor | None = None
        self._mask: Tensor | None = None
        self._seen: list[Tensor] = []

    def begin(self, backbone: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Hook before the backbone: what the small model makes of the inputs."""
        self._seen, self._mask = [], kwargs.get("attention_mask")
        if isinstance(self.small, Patches):
            self._own = self.small(args[0] if args else kwargs["pixel_values"])
            return
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            raise ModelError(
                "the small model of `levi` reads words, and word embeddings were given: perturb the words, or a model without it"
            )
        if self._mask is None:
            self._mask = torch.ones_like(ids)
        self._own = self.small(ids, self._mask)

    def see(self, block: nn.Module, args: Any, output: Any) -> None:
        """Hook on a block: z_l, the mean of its output over tokens."""
        hidden = output[0] if isinstance(output, tuple) else output
        self._seen.append(averaged(hidden, self._mask))

    def answer(self, head: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Hook on the head."""
        seen, own, self._seen, self._own = self._seen, self._own, [], None
        if own is None or len(seen) != len(self.heads) or len(own) != len(output):
            return output  # the head by itself, on features of its own
        added: Tensor = self(seen, own.float())
        return output + added.to(output.dtype)

    def forward(self, seen: list[Tensor], own: Tensor) -> Tensor:
        """(B, C) from z_l (B, D) of each block and h (B, width)."""
        views = [
            head(self.dropout(layer(torch.cat([z.to(own), own], 1)).relu()))
            for z, layer, head in zip(seen, self.adapting, self.heads, strict=True)
        ]
        return torch.stack(views).mean(0)


def averaged(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over tokens in float32: (B, T, D) to (B, D)."""
    hidden = hidden.float()
    if mask is None or mask.shape != hidden.shape[:2]:
        return hidden.mean(1)
    known = mask[..., None].float()
    return (hidden * known).sum(1) / known.sum(1).clamp_min(1)


@register(
    "levi",
    kind="selection",
    family="ensemble",
    papers=[
        Paper(
            "LEVI: Generalizable Fine-tuning via Layer-wise Ensemble of Different Views",
            "Roh et al.",
            2024,
            arxiv="2402.04644",
        )
    ],
)
class LEVI(Kept):
    """The pretrained model stays, a small one is trained from scratch, and they meet at every layer.

    y = W f + b + mean_l H_l ReLU(A_l [z_l; h] + a_l),  h = g(x)

    f (D,): the pretrained model's features; z_l (D,): the mean over tokens after block l; g: the small model; A_l (width,
    D + width) and H_l (C, width): an adapting layer and a head for each block. All of it trains by the one loss of y: the
    views from scratch see what pretraining left out, and the pretrained ones hold them to what is general.

    That the pretrained model is fixed, the small one is connected to several of its layers by adapting layers, and one
    loss is shared is the paper's; no code is public, and how z_l and h are fused could not be checked: here by
    concatenation. W f + b, the run's own head, is added so that training starts from the model as it is (H_l is zero
    then). g for texts: word vectors and one convolution over three tokens, averaged; for images three convolutions of
    stride 2. The paper's are small transformers of the task's kind, and it also combines with LoRA.

    width: of h and of the adapting layers, 64. dropout: before the heads, 0.1. layers: only the so many top blocks have
    a view; None for all. Frozen layers are not cached, since the views look at them. The parts stay in the model (see
    `surefoot.models.additions`). Raises RecipeError for a model without transformer blocks or with fewer than `layers`.
    Reference: Roh et al. 2024, by its abstract and a summary.

    >>> LEVI(width=32)
    LEVI(width=32, dropout=0.1, layers=None)
    """

    # Its small model reads words; objectives that change inputs may change their embeddings.
    withholds = frozenset({"inputs"})

    called = "levi"
    title = "LEVI"

    def __init__(self, *, width: int = 64, dropout: float = 0.1, layers: int | None = None) -> None:
        self.width = whole("width", width, least=1)
        self.dropout = fraction("dropout", dropout)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        blocks = self.blocks(model, self.layers)
        embedding: Any = model.backbone.get_input_embeddings()  # type: ignore[operator]
        images = not isinstance(embedding, nn.Embedding)
        channels = getattr(model.backbone.config, "num_channels", 3)
        small = Patches(channels, self.width) if images else Words(embedding.num_embeddings, self.width)
        part = Views(
            small,
            count=len(blocks),
            d=model.dim,
            width=self.width,
            classes=model.head.out_features,
            dropout=self.dropout,
        )
        model.backbone.add_module("views", part.to(model.device).train(model.backbone.training))
        model.backbone.register_forward_pre_hook(part.begin, with_kwargs=True)
        for block in blocks:
            model.get_submodule(block).register_forward_hook(part.see)
        model.head.register_forward_hook(part.answer)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"width": Space(16, 256, log=True, integer=True)}
