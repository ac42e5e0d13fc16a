"""SSA: selective self-attention, a temperature for every query and every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.selections.kept import Kept
from surefoot.tune.selections.sites import all_heads

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: exp(-exp(START)) = 0.0006 is the share of log n at the start, the authors' for fine-tuning.
START = 2.0


class Visible(Addition):
    """Notes, before each pass, how many tokens every token may look at: (B, T), or (1, T) without a mask."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self._mask: Tensor | None = None

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hook before the backbone."""
        mask = kwargs.get("attention_mask")
        self._mask = None if mask is None else mask.detach()

    def count(self, length: int, device: torch.device) -> Tensor:
        mask = self._mask
        if mask is None or mask.ndim != 2 or mask.shape[1] != length:
            mask = torch.ones(1, length, device=device)
        counted: Tensor = mask.cumsum(1) if self.causal else mask.sum(1, keepdim=True).expand(-1, length)
        return counted.clamp_min(1).float()


class Temperature(Addition):
    """tau(x, n) = tanh(w . x) + 1 + exp(-exp(beta)) log n, (B, T, 1): what a projection's output is multiplied by."""

    def __init__(self, d: int, visible: Visible) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(d))
        self.beta = nn.Parameter(torch.tensor(START))
        self.__dict__["visible"] = visible  # one for all layers, registered in the backbone

    def forward(self, x: Tensor) -> Tensor:
        n: Tensor = self.__dict__["visible"].count(x.shape[1], x.device)
        position: Tensor = 1 + torch.exp(-torch.exp(self.beta)) * n.log()
        return (torch.tanh(x.float() @ self.token) + position)[..., None]

    def scale(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Hook on the query or value projection."""
        tau: Tensor = self(args[0])
        return output * tau.to(output.dtype)


@register(
    "ssa",
    kind="selection",
    family="scaling",
    papers=[
        Paper(
            "Selective Attention: Enhancing Transformer through Principled Context Control",
            "Zhang et al.",
            2024,
            arxiv="2411.12892",
        )
    ],
)
class SSA(Kept):
    """Every query and every value is multiplied by a temperature of its token and place, which trains, and the head.

    q <- tau_q(x, n) q,  v <- tau_v(x, n) v,  tau(x, n) = tanh(w . x) + 1 + sigma log n,  sigma = exp(-exp(beta))

    x (d,): what the projection reads; n: how many tokens x may look at, up to itself in causal models, all of the text
    without padding in others. w (d,) and beta for each layer and for queries and values each, 2 (d + 1) numbers a layer
    (0.02 % of MiniLM). w = 0 and beta = 2 at the start, so that tau is 1 + 0.0006 log n: almost the pretrained model. A
    scaled query sharpens its own attention; keys stay. beta's form and start are the authors' code's (for fine-tuning);
    the code has only the place's part, on the logits, and the token's part here is the paper's with f linear.

    layers: only the so many top blocks; None for all. The temperatures stay in the model (see
    `surefoot.models.additions`). Raises RecipeError for models without query and value projections of their own in
    blocks, or that normalise their queries, which would undo the scale. Reference: Zhang et al. 2024.

    >>> SSA(layers=2)
    SSA(layers=2)
    """

    called = "ssa"
    title = "selective self-attention"
    starts_there = False

    def __init__(self, *, layers: int | None = None) -> None:
        from surefoot.tune.selections import whole

        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        blocks = self.blocks(model, self.layers)
        everywhere = all_heads(model, asking=self.title, scales=True)
        found = {block: each for block, each in everywhere.items() if block in blocks}
        attentions = [model.get_submodule(each.query.rpartition(".")[0]) for each in found.values()]
        visible = Visible(causal=any(getattr(each, "is_causal", False) for each in attentions))
        model.backbone.add_module("visible", visible)
        model.backbone.register_forward_pre_hook(visible.note, with_kwargs=True)
        for each in found.values():
            for name in (each.query, each.value):
                layer = model.get_submodule(name)
                part = Temperature(model.dim, visible).to(model.device).train(layer.training)
                layer.add_module("temperature", part)
                layer.register_forward_hook(part.scale)
