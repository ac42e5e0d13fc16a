"""A BERT without padding: the tokens of a batch are one long row of rows, and only attention knows where texts end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.embed.products import Linear
from surefoot.models.model import Model
from surefoot.models.processor import EncodedText

#: Architectures whose layers are BERT's to the last detail. What differs is where positions begin.
_KINDS = ("bert", "roberta", "xlm-roberta", "camembert")
#: Texts up to this long attend by batched products; above it the blockwise kernel is quicker.
_SHORT = 96
#: Tokens that pass through what follows attention at once: few enough that what one product writes is still in the
#: processor's cache when the next one reads it.
_BLOCK = 1024
#: Batches are filled up to a multiple of so many tokens, with zeros that nobody reads.
_ROWS = 128


@dataclass(frozen=True)
class _Layer:
    """Weights of a block. qkv: those of query, key and value under each other, the query's over sqrt(head width)."""

    qkv: Linear
    out: Linear
    out_norm: tuple[Tensor, Tensor]
    up: Linear
    down: Linear
    down_norm: tuple[Tensor, Tensor]


class Packed:
    """Features of texts of any lengths by one matrix product a weight for all their tokens, none of them padding.

    Products, sums and norms are in `dtype` (int8: products alone, the rest in float32), softmax and pooling in float32. tokens: 4096 in a batch, so that many texts of
    one length are in it.
    """

    name, tokens, most = "torch", 4096, 512

    def __init__(self, model: Model, dtype: str) -> None:
        backbone: Any = model.backbone
        config, embeddings = backbone.config, backbone.embeddings
        self.pooling = model.pooling
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.heads, self.eps = config.num_attention_heads, config.layer_norm_eps
        self.words = embeddings.word_embeddings.weight
        first = 0 if config.model_type == "bert" else config.pad_token_id + 1
        # Every token is of the first kind: its vector is added to that of the place once and for all.
        self.places = embeddings.position_embeddings.weight[first:] + embeddings.token_type_embeddings.weight[0]
        self.norm = (embeddings.LayerNorm.weight, embeddings.LayerNorm.bias)
        self.layers = [_layer(each, self.heads, dtype) for each in backbone.encoder.layer]
        if dtype == "float32" and self.layers[0].qkv.ordered is None:  # which adds a bias at no cost
            self.norm = _carry_biases(self.norm, self.layers)

    def features(self, encoded: EncodedText, index: np.ndarray) -> np.ndarray:
        """(B, D) float32 for rows in order of length."""
        lengths = encoded.lengths[index]
        ids = np.concatenate([encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]] for i in index])
        within = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        hidden = self.words[torch.from_numpy(ids)] + self.places[torch.from_numpy(within)]
        hidden = F.layer_norm(hidden, hidden.shape[-1:], *self.norm, self.eps).to(self.dtype)
        # Products keep a kernel for every number of rows that they have met: a few, then, and not one for each batch.
        hidden = F.pad(hidden, (0, 0, 0, -len(hidden) % _ROWS))
        groups = list(groups_of(lengths))
        for layer in self.layers:
            hidden = self._block(hidden, layer, groups)
        found = np.empty((len(index), hidden.shape[1]), dtype=np.float32)
        row = 0
        for begin, count, length in groups:
            states = hidden[begin : begin + count * length].view(count, length, -1).float()
            rows = index[row : row + count]
            found[row : row + count] = self.pooling(states, pool_mask(encoded, rows, length)).numpy()
            row += count
        return found

    def _block(self, hidden: Tensor, layer: _Layer, groups: list[tuple[int, int, int]]) -> Tensor:
        qkv = torch.cat([layer.qkv(rows) for rows in torch.split(hidden, _BLOCK)])
        mixed = torch.zeros_like(hidden)
        for begin, count, length in groups:
            place = slice(begin, begin + count * length)
            attend(qkv[place], mixed[place], count, length, self.heads)
        found = torch.empty_like(hidden)
        for begin in range(0, len(hidden), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            found[rows] = self._dense(mixed[rows], hidden[rows], layer)
        return found

    def _dense(self, mixed: Tensor, hidden: Tensor, layer: _Layer) -> Tensor:
        """What follows attention, token by token."""
        width = hidden.shape[-1:]
        hidden = F.layer_norm(layer.out(mixed, hidden), width, *layer.out_norm, self.eps)
        wide = torch.ops.aten.gelu_(layer.up(hidden))
        return F.layer_norm(layer.down(wide, hidden), width, *layer.down_norm, self.eps)


def attend(qkv: Tensor, out: Tensor, count: int, length: int, heads: int) -> None:
    """softmax(Q K^T) V of `count` texts of one length, into `out` (count x length, D); Q is scaled already."""
    # (3, B, H, T, d): heads apart.
    parts = qkv.view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    if length > _SHORT:
        found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], scale=1.0)
    else:
        query, key, value = parts.contiguous().view(3, count * heads, length, -1)
        scores = torch.bmm(query, key.transpose(1, 2)).float().softmax(-1).to(qkv.dtype)
        found = torch.bmm(scores, value).view(count, heads, length, -1)
    out.view(count, length, heads, -1).copy_(found.transpose(1, 2))


def groups_of(lengths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(first token, texts, length) of every run of texts of one length."""
    begin = row = 0
    while row < len(lengths):
        length = int(lengths[row])
        count = int(np.argmax(np.append(lengths[row:] != length, True)))
        yield begin, count, length
        begin, row = begin + count * length, row + count


def pool_mask(encoded: EncodedText, rows: np.ndarray, length: int) -> Tensor:
    """(B, T): ones, or where a template's own words are left out, ones for the text."""
    if encoded.pooled is None:
        return torch.ones(len(rows), length)
    begin, end = encoded.pooled[rows].T
    places = np.arange(length)
    return torch.from_numpy(((places >= begin[:, None]) & (places < end[:, None])).astype(np.int64))


def _layer(block: Any, heads: int, dtype: str) -> _Layer:
    own, width = block.attention.self, block.attention.self.query.weight.shape[0]
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    scale = 1 / math.sqrt(width // heads)
    weight = torch.cat([own.query.weight * scale, own.key.weight, own.value.weight])
    bias = torch.cat([own.query.bias * scale, own.key.bias, own.value.bias])

    def linear(module: Any) -> Linear:
        return Linear(module.weight, module.bias, dtype)

    def norm(module: Any) -> tuple[Tensor, Tensor]:
        return module.weight.detach().to(kind), module.bias.detach().to(kind, copy=True)

    output = block.attention.output
    return _Layer(
        qkv=Linear(weight, bias, dtype),
        out=linear(output.dense),
        out_norm=norm(output.LayerNorm),
        up=linear(block.intermediate.dense),
        down=linear(block.output.dense),
        down_norm=norm(block.output.LayerNorm),
    )


def _carry_biases(norm: tuple[Tensor, Tensor], layers: list[_Layer]) -> tuple[Tensor, Tensor]:
    """Add the bias of a product to the norm before it, whose output is what the product is added to, and take it back
    from the bias of the product in between: the same sums, in two passes over memory less. Gives the first norm anew."""
    first = (norm[0].detach(), norm[1].detach() + layers[0].out.added)
    for number, layer in enumerate(layers):
        layer.qkv.shift(layer.out.added)
        layer.up.shift(layer.down.added)
        layer.out_norm[1].add_(layer.down.added)
        if number + 1 < len(layers):
            layer.down_norm[1].add_(layers[number + 1].out.added)
        layer.out.carried = layer.down.carried = True
    return first


def can_pack(model: Model) -> bool:
    """Whether `model` is a plain BERT on a processor: no adapters, no compressed layers, pooled from the last states."""
    config: Any = getattr(model.backbone, "config", None)
    if config is None or getattr(config, "model_type", None) not in _KINDS or model.device.type != "cpu":
        return False
    plain = (nn.Linear, nn.Embedding, nn.LayerNorm)
    weighted = [each for each in model.backbone.modules() if next(each.parameters(recurse=False), None) is not None]
    return (
        all(type(each) in plain for each in weighted)
        and not (model.pooling.every_layer or model.additions or model.compression or model.has_prefixes)
        and getattr(config, "hidden_act", None) == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not hasattr(model.backbone, "surefoot_latent")
    )
