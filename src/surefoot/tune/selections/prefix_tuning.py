"""Prefix tuning: keys and values in front of every layer's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from surefoot.errors import RecipeError
from surefoot.models.additions import PREFIX_ATTENTION, Addition
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space
from surefoot.tune.selections import whole
from surefoot.tune.selections.kept import Kept
from surefoot.tune.selections.sites import Heads, heads

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Prefix(Addition):
    """Keys and values of one layer, (heads, length, size) each; or the states that a net `shared` makes them of."""

    def __init__(self, heads: int, length: int, size: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(heads, length, size))
        self.values = nn.Parameter(torch.empty(heads, length, size))
        for each in (self.keys, self.values):
            nn.init.normal_(each, std=0.02)

    def pair(self) -> tuple[Tensor, Tensor]:
        return self.keys, self.values


class Made(Addition):
    """Keys and values of one layer by a net over states that train: (length, d) to tanh(width) to both."""

    def __init__(self, d: int, heads: int, length: int, size: int, width: int) -> None:
        super().__init__()
        self.shape = (length, 2, heads, size)
        self.states = nn.Parameter(torch.empty(length, d))
        nn.init.normal_(self.states, std=0.02)
        first, second = nn.Linear(d, width), nn.Linear(width, 2 * heads * size)
        self.net = nn.Sequential(first, nn.Tanh(), second)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def pair(self) -> tuple[Tensor, Tensor]:
        keys, values = self.net(self.states).view(self.shape).permute(1, 2, 0, 3)
        return keys, values


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """torch's attention over the prefix and what is there: every token sees the whole prefix."""
    part: Any = getattr(module, "prefix", None)
    if part is not None:
        keys, values = (each.to(key.dtype).expand(len(key), -1, -1, -1) for each in part.pair())
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        if attention_mask is not None:  # 0 where a token may look
            attention_mask = F.pad(attention_mask, (keys.shape[2], 0))
    # The mask says all, also what is causal: with more keys than queries torch's own causal mask would be another.
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options | {"is_causal": False})


AttentionInterface.register(PREFIX_ATTENTION, attend)
AttentionMaskInterface.register(PREFIX_ATTENTION, eager_mask)


def prepend(model: Model, blocks: list[str], *, length: int, width: int | None, asking: str) -> None:
    """Put a prefix into the attention of each block. Raises RecipeError where the attention cannot take one."""
    backbone: Any = model.backbone
    found = {block: heads(model, block, asking=asking) for block in blocks}
    can = getattr(backbone, "_can_set_attn_implementation", None)
    if can is None or not can():
        raise RecipeError(
            f"{asking} needs an attention that transformers lets others compute, and `{model.name}` computes its own: choose `adapter`"
        )
    for each in found.values():
        owner = model.get_submodule(each.query.rpartition(".")[0])
        part = _part(model, each, length, width)
        owner.add_module("prefix", part.to(model.device).train(owner.training))
    backbone.set_attn_implementation(PREFIX_ATTENTION)


def _part(model: Model, each: Heads, length: int, width: int | None) -> Addition:
    if width is None:
        return Prefix(each.values, length, each.size)
    return Made(model.dim, each.values, length, each.size, width)


@torch.no_grad()
def collapse(model: Model) -> None:
    """Keys and values in place of the nets that made them."""
    for module in list(model.modules()):
        part = module._modules.get("prefix")
        if isinstance(part, Made):
            keys, values = part.pair()
            plain = Prefix(*keys.shape).to(keys.device).train(part.training)
            plain.keys.copy_(keys)
            plain.values.copy_(values)
            module._modules["prefix"] = plain


@register(
    "prefix_tuning",
    kind="selection",
    family="prompt",
    papers=[
        Paper("Prefix-Tuning: Optimizing Continuous Prompts for Generation", "Li and Liang", 2021, arxiv="2101.00190")
    ],
)
class PrefixTuning(Kept):
    """Keys and values that every token may look at stand in front of each layer's own and train, and the head.

    head_i = softmax(Q_i [P_K,i ; K_i]^T / sqrt(d)) [P_V,i ; V_i],  P_K,i and P_V,i (length, d) for each head and layer

    They have no positions; to a model that rotates by position they stand where the first token does. While it trains, (P_K, P_V) = W_2 tanh(W_1 E) of states E (length, D) may stand in for them,
    with W_1 (width, D) for each layer; `finish` leaves keys and values alone. Training does not start from the pretrained
    model's answers: attention that goes to the prefix is taken from the tokens.
    length: 30, as in the unified view's experiments. width: 800, Li and Liang's; None trains keys and values themselves,
    which they found less stable. layers: only the so many top blocks; None for all.

    The parts stay in the model (see `surefoot.models.additions`). Attention maps are not returned, so objectives that
    read them are refused. Raises RecipeError for models without attention heads in blocks, or whose attention
    transformers does not let others compute. Reference: Li and Liang 2021.

    >>> PrefixTuning(length=10)
    PrefixTuning(length=10, width=800, layers=None)
    """

    called = "prefix_tuning"
    title = "prefix tuning"
    starts_there = False

    def __init__(self, *, length: int = 30, width: int | None = 800, layers: int | None = None) -> None:
        self.length = whole("length", length, least=1)
        self.width = None if width is None else whole("width", width, least=1)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        prepend(model, self.blocks(model, self.layers), length=self.length, width=self.width, asking=self.title)

    def collapse(self, model: Model) -> None:
        collapse(model)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"length": Space(4, 100, log=True, integer=True)}
