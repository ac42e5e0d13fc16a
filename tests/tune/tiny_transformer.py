"""The tiny problem for objectives that read tokens, layers or attention: a random BERT of two layers with a tokenizer,
a Llama that is a language model, and a ViT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, ViTConfig, ViTModel

from surefoot.models.model import Model
from surefoot.models.processor import EncodedText
from surefoot.tune.answers import Answers
from surefoot.tune.entities import Entities
from surefoot.tune.objective import Context
from surefoot.tune.pairs import Pairs
from surefoot.tune.step import Batch, Step

CLASSES = ("bad", "fair", "good")
EXAMPLES, WORDS, WIDTH, PAD, CLS, SEP, MASK = 12, 40, 16, 0, 2, 3, 4


class Tokenizer:
    """What objectives ask a tokenizer: which ids are marks and no words."""

    all_special_ids = (PAD, 1, CLS, SEP, MASK)
    pad_token_id, mask_token_id = PAD, MASK

    def __len__(self) -> int:
        return WORDS


class Words:
    """A processor of texts that are token ids already."""

    modality = "text"
    max_length = 16

    def __init__(self) -> None:
        self.tokenizer = Tokenizer()

    def encode(self, inputs: Sequence[str], *, max_length: int | None = None) -> EncodedText:
        """Of texts of numbers."""
        rows = [[CLS, *map(int, text.split()), SEP] for text in inputs]
        return EncodedText(np.concatenate(rows), np.cumsum([0, *map(len, rows)]), PAD, 0)


class Pixels:
    modality = "image"


def text_model(seed: int = 0, *, dropout: float = 0.0, attention: str = "eager", layers: int = 2) -> Model:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )  # fmt: skip
    return _with_head(BertModel(config, add_pooling_layer=False), Words(), "mean")


def causal_model(seed: int = 0, *, dropout: float = 0.0) -> Model:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16, attention_dropout=dropout, tie_word_embeddings=True, attn_implementation="eager",
    )  # fmt: skip
    return _with_head(LlamaModel(config), Words(), "last")


def image_model(seed: int = 0, *, dropout: float = 0.0) -> Model:
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4,
        hidden_dropout_prob=dropout, attn_implementation="eager",
    )  # fmt: skip
    return _with_head(ViTModel(config, add_pooling_layer=False), Pixels(), "cls")


def _with_head(backbone: nn.Module, processor: object, pool: str) -> Model:
    with torch.no_grad():
        for parameter in backbone.parameters():  # transformers starts them too small for anything to show
            parameter.add_(0.2 * torch.randn_like(parameter))
    model = Model(backbone, dim=WIDTH, processor=processor, pool=pool, classes=CLASSES)  # type: ignore[arg-type]
    nn.init.normal_(model.head.weight)
    return model.train()


def text_batch(seed: int = 1, size: int = EXAMPLES, *, length: int = 9, padding: bool = True) -> Batch:
    """Token ids between [CLS] and [SEP]; every other row is padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, WORDS, (size, length), generator=generator)
    mask = torch.ones_like(ids)
    if padding:
        mask[1::2, length - 3 :] = 0
    ends = mask.sum(1)
    ids[:, 0] = CLS
    ids[torch.arange(size), ends - 1] = SEP
    return _batch({"input_ids": ids * mask, "attention_mask": mask}, generator, size)


def image_batch(seed: int = 1, size: int = EXAMPLES) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return _batch({"pixel_values": torch.randn(size, 3, 16, 16, generator=generator)}, generator, size)


def _batch(inputs: Mapping[str, Tensor], generator: torch.Generator, size: int) -> Batch:
    index = torch.randperm(EXAMPLES, generator=generator)[:size]
    return Batch(inputs=inputs, labels=torch.arange(size) % len(CLASSES), index=index, group=index % 2)


def answers() -> Answers:
    """Of one to three words for each example, closed by [SEP]."""
    generator = np.random.default_rng(3)
    rows = [[*generator.integers(5, WORDS, 1 + i % 3), SEP] for i in range(EXAMPLES)]
    return Answers(np.concatenate(rows), np.cumsum([0, *map(len, rows)]), PAD, 16)


def texts() -> list[str]:
    """Of five words each, as `Words` reads them; the first two say the same."""
    rows = np.random.default_rng(4).integers(5, WORDS, (EXAMPLES, 5))
    rows[1] = rows[0]
    return [" ".join(map(str, row)) for row in rows]


def entities() -> Entities:
    """Two of every text's nine tokens: one of two tokens, one of one."""
    return Entities(np.tile([0, 1, 1, 0, 2, 0, 0, 0, 0], EXAMPLES), 9 * np.arange(EXAMPLES + 1))


def pairs() -> Pairs:
    """A positive and a negative of each example, of three to six words; the first two share their positive."""
    generator = np.random.default_rng(5)
    members = {}
    for name in ("positive", "negative"):
        rows = [" ".join(map(str, generator.integers(5, WORDS, 3 + i % 4))) for i in range(EXAMPLES)]
        members[name] = [rows[0], *rows[:1], *rows[2:]] if name == "positive" else rows
    ids = {name: torch.arange(EXAMPLES) + EXAMPLES * i for i, name in enumerate(("anchor", *members))}
    ids["positive"][1] = ids["positive"][0]
    encoded = {name: Words().encode(rows) for name, rows in members.items()}
    return Pairs(encoded, ids, torch.linspace(0.0, 1.0, EXAMPLES))


def context(model: Model) -> Context:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return Context(
        model=model,
        labels=torch.arange(EXAMPLES) % len(CLASSES),
        classes=CLASSES,
        start={name: parameter.detach().clone() for name, parameter in trained.items()},
        trained=trained,
        answers=answers(),
        entities=entities(),
        texts=texts(),
        pairs=pairs(),
        steps=10,
        head_names=frozenset({"head.weight", "head.bias"}),
    )


def step_of(
    model: Model, batch: Batch, *, progress: float = 0.5, seed: int = 0, needs: frozenset[str] = frozenset()
) -> Step:
    torch.manual_seed(seed)
    with torch.no_grad():
        reference = model(batch)
    generator = torch.Generator().manual_seed(seed)
    return Step(
        batch=batch, model=model, progress=progress, generator=generator, autocast=nullcontext, reference=reference,
        needs=needs, pairs=pairs(),
    )  # fmt: skip
