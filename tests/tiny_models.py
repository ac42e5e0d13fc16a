"""Random models of a few thousand weights, as transformers saves them: a ViT, a ResNet, two causal ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIZE = 16


def images(count: int, seed: int = 0) -> tuple[list[Any], np.ndarray]:
    """Noisy RGB pictures of two kinds, dark and bright, and their labels."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 110, (count, SIZE, SIZE, 3)) + 140 * labels[:, None, None, None]
    return [Image.fromarray(each.astype(np.uint8)) for each in pixels], labels.astype(np.int64)


def save_vit(folder: Path) -> Path:
    """A two-layer ViT for pictures of 16 x 16, with a processor that needs Pillow and no torchvision."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTModel(ViTConfig(**sizes, image_size=SIZE, patch_size=8)).save_pretrained(folder)
    return _with_processor(folder)


def save_resnet(folder: Path) -> Path:
    """A ResNet of two stages."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])).save_pretrained(folder)
    return _with_processor(folder)


def save_gpt2(folder: Path, tokenizer_from: Path) -> Path:
    """A two-layer GPT-2 with the tokenizer of another folder, without a token for padding."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    tokenizer.eos_token, tokenizer.pad_token = "[SEP]", None
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"bos_token_id": 2, "eos_token_id": 3}
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, **ends)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def save_llama(folder: Path, tokenizer_from: Path) -> Path:
    """A two-layer Llama with the tokenizer of another folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(
        folder
    )
    return folder


def _with_processor(folder: Path) -> Path:
    from transformers import ViTImageProcessorPil

    size: dict[str, int] = {"height": SIZE, "width": SIZE}
    half: Sequence[float] = [0.5, 0.5, 0.5]
    ViTImageProcessorPil(size=size, image_mean=half, image_std=half).save_pretrained(folder)
    return folder
