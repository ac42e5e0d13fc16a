"""Fixtures: a two-layer BERT with a tokenizer of its own, small data as files, and the real models where they can be had."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from surefoot.data.examples import Examples
from surefoot.models.load import load
from surefoot.models.model import Model

# Beside other testers each has one core.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
GOOD = ["good", "great", "fine", "superb", "lovely", "clever", "warm", "bright"]
BAD = ["bad", "awful", "poor", "dull", "boring", "cold", "weak", "grim"]
FILLER = [
    "the",
    "film",
    "was",
    "a",
    "story",
    "of",
    "people",
    "in",
    "town",
    "with",
    "music",
    "and",
    "long",
    "scenes",
    "about",
    "love",
]


@pytest.fixture(scope="session", autouse=True)
def _own_prefixes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Assets are read from the user's cache; what tests cache themselves goes elsewhere."""
    from surefoot.models import prefix

    folder = tmp_path_factory.mktemp("cache")
    prefix.cache_folder = lambda: folder


def sentences(count: int, seed: int, *, flip: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Texts of 3 to 20 words with one telling word, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    texts = []
    for label in labels:
        words = list(rng.choice(FILLER, rng.integers(2, 20)))
        words.insert(int(rng.integers(0, len(words) + 1)), str(rng.choice(GOOD if label else BAD)))
        texts.append(" ".join(words))
    noisy = np.where(rng.random(count) < flip, 1 - labels, labels)
    return texts, noisy.astype(np.int64)


def examples(count: int = 96, seed: int = 0, **columns: object) -> Examples:
    texts, labels = sentences(count, seed)
    return Examples(texts, labels, ("negative", "positive"), source=f"made-{seed}", **columns)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer BERT and a word tokenizer, as transformers saves them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER, "negative", "positive"]
    words = list(dict.fromkeys(words))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("bert") / "tiny"
    marks = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_bert(bert_folder: Path) -> Model:
    """A model of each file's own: what one test does to it by mistake is seen near it."""
    return load(bert_folder)


@pytest.fixture(scope="session")
def minilm() -> Model:
    """The real all-MiniLM-L6-v2; skipped, and counted, where neither cache nor package index has it."""
    from surefoot.errors import AssetError

    try:
        return load("minilm")
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets that no package index has."""
    folder = os.environ.get("SUREFOOT_DATA")
    if not folder:
        pytest.skip("SUREFOOT_DATA is not set")
    return Path(folder)
