"""The packed Llama against `transformers`' own forward pass: every pooling and template, long texts and short ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from surefoot import load
from surefoot.embed.backends import Plain
from surefoot.embed.packed_causal import PackedCausal, can_pack_causal
from surefoot.models.batching import evaluation_batches
from tiny_models import save_llama

TEXTS = [
    "good film",
    "a bad film that was long and bad and long",
    "good",
    "the film was a long story of people in town",
]
POOLS = [
    "mean",
    "last",
    "cls",
    "weighted_mean",
    "echo",
    {"name": "echo", "tokens": "last"},
    {"name": "echo", "template": "{text} again {text}"},
    "one_word",
]


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"), bert_folder)


@pytest.mark.parametrize("pool", POOLS, ids=str)
@torch.inference_mode()
def test_equal_to_transformers(pool: object, llama_folder: Path) -> None:
    """Side by side with the padded pass of `LlamaModel`, in float32."""
    model = load(llama_folder, pool=pool).eval()  # type: ignore[arg-type]
    assert can_pack_causal(model)
    encoded = model.processor.encode(TEXTS)
    found = {}
    for name, backend in {"packed": PackedCausal(model, torch.float32), "plain": Plain(model, "float32")}.items():
        features = np.empty((len(TEXTS), model.dim), np.float32)
        for index in evaluation_batches(encoded.lengths, tokens=40, most=3):
            features[index] = backend.features(encoded, index)  # type: ignore[attr-defined]
        found[name] = features
    np.testing.assert_allclose(found["packed"], found["plain"], atol=1e-5)


def test_what_it_leaves_to_the_model_itself(bert_folder: Path, llama_folder: Path) -> None:
    assert not can_pack_causal(load(bert_folder))
    assert not can_pack_causal(load(llama_folder, pool="layer_mix"))
    sliding = load(llama_folder)
    sliding.backbone.config.sliding_window = 8  # type: ignore[union-attr]
    assert not can_pack_causal(sliding)
