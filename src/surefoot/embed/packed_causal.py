"""A Llama without padding: what all texts begin with is read once, and the last layer runs where it is pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.embed.packed import groups_of, pool_mask
from surefoot.embed.products import Linear
from surefoot.models.model import Model
from surefoot.models.processor import EncodedText

#: Architectures whose layers are Llama's to the last detail, biases of the projections aside.
_KINDS = ("llama", "mistral", "qwen2")


@dataclass(frozen=True)
class _Layer:
    """Weights of a block. qkv: those of query, key and value under each other, the query's over sqrt(head width); wide:
    those of gate and up."""

    before: Tensor
    qkv: Linear
    out: Linear
    after: Tensor
    wide: Linear
    down: Linear


@dataclass(frozen=True)
class _Group:
    """`count` texts of one `length`, whose tokens begin at `begin` of the batch; pooled from `first` to `last` of each."""

    begin: int
    count: int
    length: int
    first: int
    last: int

    @property
    def place(self) -> slice:
        return slice(self.begin, self.begin + self.count * self.length)


class PackedCausal:
    """Features of texts of any lengths by one matrix product a weight for all their tokens, none of them padding.

    A token sees only what is before it, so that the words with which a template begins have the same states before every
    text: their keys and values are computed once for all. In the last layer no state is needed but those that are
    pooled. tokens: 4096 in a batch. Products of weights are in `dtype`; norms, rotations and attention are in float32.
    """

    name, tokens, most = "torch", 4096, 512

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        backbone: Any = model.backbone
        config = backbone.config
        self.pooling, self.dtype, self.rotary = model.pooling, dtype, backbone.rotary_emb
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.words, self.norm = backbone.embed_tokens.weight, backbone.norm.weight
        self.layers = [_layer(each, self.width, dtype) for each in backbone.layers]
        template = getattr(model.processor, "template", None)
        processor: Any = model.processor
        self.opening = np.zeros(0, np.int32) if template is None else template.around(processor.tokenizer).literals[0]
        if template is not None and template.pooled == "all":
            self.opening = self.opening[:0]
        self.memory: list[tuple[Tensor, Tensor]] = []
        if len(self.opening):
            with torch.inference_mode():
                self._read(self.opening, [_Group(0, 1, len(self.opening), 0, len(self.opening))], keep=True)

    def features(self, encoded: EncodedText, index: np.ndarray) -> np.ndarray:
        """(B, D) float32 for rows in order of length."""
        skip = len(self.opening)
        lengths = encoded.lengths[index] - skip
        ids = np.concatenate([encoded.ids[encoded.offsets[i] + skip : encoded.offsets[i + 1]] for i in index])
        groups, row = [], 0
        for begin, count, length in groups_of(lengths):
            rows = index[row : row + count]
            first, last = (0, length) if encoded.pooled is None else _span(encoded.pooled[rows] - skip)
            groups.append(_Group(begin, count, length, first, last))
            row += count
        hidden = self._read(ids, groups)
        found: list[np.ndarray] = []
        row = begin = 0
        for group in groups:
            kept = group.last - group.first
            states = hidden[begin : begin + group.count * kept].view(group.count, kept, -1).float()
            rows = index[row : row + group.count]
            mask = pool_mask(encoded, rows, group.length + skip)[:, skip + group.first : skip + group.last]
            found.append(self.pooling(states, mask).numpy())
            row, begin = row + group.count, begin + group.count * kept
        return np.concatenate(found)

    def _read(self, ids: np.ndarray, groups: list[_Group], *, keep: bool = False) -> Tensor:
        """States of the pooled tokens after the last norm, group after group. keep: remember keys and values instead."""
        hidden = self.words[torch.from_numpy(ids)].float()
        longest = max(group.length for group in groups)
        start = 0 if keep else len(self.opening)
        cos, sin = self.rotary(hidden, torch.arange(start, start + longest)[None])
        turns = (cos[0, :, None].float(), sin[0, :, None].float())
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1 and not keep
            hidden = self._block(hidden, layer, groups, turns, number, keep=keep, last=last)
        return F.rms_norm(hidden, hidden.shape[-1:], self.norm, self.eps)

    def _block(
        self,
        hidden: Tensor,
        layer: _Layer,
        groups: list[_Group],
        turns: tuple[Tensor, Tensor],
        number: int,
        *,
        keep: bool,
        last: bool,
    ) -> Tensor:
        size = hidden.shape[-1:]
        # Attention is in float32: its products are one in a hundred, and of bfloat16 every new shape of them is compiled.
        qkv = layer.qkv(F.rms_norm(hidden, size, layer.before, self.eps).to(self.dtype)).float()
        mixed = []
        for group in groups:
            heads = qkv[group.place].view(group.count, group.length, -1, self.width)
            query, key, value = torch.split(heads, [self.heads, self.shared, self.shared], 2)
            query, key = _turned(query, turns, group.length), _turned(key, turns, group.length)
            if keep:
                # (K, P, d): the opening is one text.
                self.memory.append((key[0].transpose(0, 1).contiguous(), value[0].transpose(0, 1).contiguous()))
            first = group.first if last else 0
            query = query[:, group.first : group.last] if last else query
            before = None if keep or not self.memory else self.memory[number]
            mixed.append(_attend(query, key, value, first, before))
        states = torch.cat(mixed).to(self.dtype)
        if last:
            kept = [hidden[g.place].view(g.count, g.length, -1)[:, g.first : g.last].flatten(0, 1) for g in groups]
            hidden = torch.cat(kept)
        hidden = hidden + layer.out(states)
        gate, up = layer.wide(F.rms_norm(hidden, size, layer.after, self.eps).to(self.dtype)).chunk(2, -1)
        return hidden + layer.down(F.silu(gate).mul_(up))


def _turned(states: Tensor, turns: tuple[Tensor, Tensor], length: int) -> Tensor:
    """Rotary positions: (B, T, H, d) as it is, turned by the angles of its places."""
    cos, sin = turns[0][:length], turns[1][:length]
    low, high = states.chunk(2, -1)
    return states * cos + torch.cat([-high, low], -1) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor, first: int, before: tuple[Tensor, Tensor] | None) -> Tensor:
    """Causal attention of grouped heads: query (B, Q, H, d) from place `first` on, key and value (B, T, K, d), and
    `before` (K, P, d) each, which every query sees. Returns (B Q, H d)."""
    count, asked, heads, width = query.shape
    length, shared = key.shape[1], key.shape[2]
    each = heads // shared
    # (K, B, G Q, d): the heads that share keys are more rows of one product.
    rows = (
        query.view(count, asked, shared, each, width).permute(2, 0, 3, 1, 4).reshape(shared, count, each * asked, width)
    )
    keys = key.permute(2, 0, 3, 1).reshape(shared * count, width, length)
    values = value.permute(2, 0, 1, 3).reshape(shared * count, length, width)
    scores = torch.bmm(rows.reshape(shared * count, each * asked, width), keys)
    hidden = torch.ones(asked, length, dtype=torch.bool).triu(first + 1).repeat(each, 1)
    scores.masked_fill_(hidden, -torch.inf)
    if before is not None:
        seen = torch.bmm(rows.reshape(shared, -1, width), before[0].transpose(1, 2))
        scores = torch.cat([seen.view(shared * count, each * asked, -1), scores], -1)
    shares = scores.softmax(-1)
    own = shares[..., -length:]
    found = torch.bmm(own, values)
    if before is not None:
        part = shares[..., :-length].reshape(shared, count * each * asked, -1)
        found = found + torch.bmm(part, before[1]).view_as(found)
    return found.view(shared, count, each, asked, width).permute(1, 3, 0, 2, 4).reshape(count * asked, heads * width)


def _span(pooled: np.ndarray) -> tuple[int, int]:
    """The smallest span that holds those of all rows."""
    return int(pooled[:, 0].min()), int(pooled[:, 1].max())


def _layer(block: Any, width: int, dtype: torch.dtype) -> _Layer:
    own, mlp = block.self_attn, block.mlp
    scale = width**-0.5

    def joined(*parts: tuple[Any, float]) -> Linear:
        weight, kind = torch.cat([each.weight.detach() * factor for each, factor in parts]), str(dtype)[len("torch.") :]
        if all(each.bias is None for each, _ in parts):
            return Linear(weight, None, kind)
        biases = [torch.zeros(len(each.weight)) if each.bias is None else each.bias * factor for each, factor in parts]
        return Linear(weight, torch.cat(biases).detach(), kind)

    return _Layer(
        before=block.input_layernorm.weight.detach(),
        qkv=joined((own.q_proj, scale), (own.k_proj, 1.0), (own.v_proj, 1.0)),
        out=joined((own.o_proj, 1.0)),
        after=block.post_attention_layernorm.weight.detach(),
        wide=joined((mlp.gate_proj, 1.0), (mlp.up_proj, 1.0)),
        down=joined((mlp.down_proj, 1.0)),
    )


def can_pack_causal(model: Model) -> bool:
    """Whether `model` is a plain Llama on a processor: no adapters, no compressed layers, pooled from the last states."""
    config: Any = getattr(model.backbone, "config", None)
    if config is None or getattr(config, "model_type", None) not in _KINDS or model.device.type != "cpu":
        return False
    weighted = [each for each in model.backbone.modules() if next(each.parameters(recurse=False), None) is not None]
    return (
        all(type(each) in (nn.Linear, nn.Embedding) or type(each).__name__.endswith("RMSNorm") for each in weighted)
        and not (model.pooling.every_layer or model.additions or model.compression or model.has_prefixes)
        and getattr(config, "hidden_act", None) == "silu"
        and not getattr(config, "sliding_window", None)
        and not hasattr(model.backbone, "surefoot_latent")
    )
