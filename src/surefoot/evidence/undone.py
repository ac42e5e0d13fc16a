"""A MiniLM whose sentence training is undone: where unsupervised training of sentence embeddings starts from.

The encoders that are to be had from a package index have been trained on a billion pairs of sentences, and unsupervised
training can only harm them. Masked-language modelling makes an encoder of words of one again: its mean-pooled states lie
in a narrow cone, and say less of what sentences mean than those of an untuned BERT (`benchmarks/undone.py` measures it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from surefoot import load
from surefoot.data.examples import Examples
from surefoot.evidence.sentences import drawn
from surefoot.files import atomic_folder
from surefoot.models.model import Model
from surefoot.models.shallow_decoder import WordHead
from surefoot.tune.fit import Fit
from surefoot.tune.objectives.masked_lm import MaskedLM
from surefoot.tune.recipe import Recipe

#: Raised when what is trained changes, so that an older one is not found.
GENERATION = 1
#: Sentences that are read once, and their seed: enough for the similarity of sentences to fall, and settle.
SENTENCES, SEED = 20_000, 0
RECIPE = Recipe(
    name="undone",
    head="zero",
    objectives={"masked_lm": 1.0},
    optimizer={"name": "adamw", "lr": 5e-4},
    epochs=1,
    batch_size=64,
    max_length=32,
    warmup=0.06,
)


def undone(store: Path) -> Path:
    """The folder of the undone MiniLM, made on the first call: some minutes of one core.

    It opens in `load`, and, with the output layer for masked words that undid it, in transformers' AutoModelForMaskedLM.
    Raises DataError where `SUREFOOT_DATA` lacks a file of the sentences.
    """
    store.mkdir(parents=True, exist_ok=True)
    folder = store / f"undone-{GENERATION}"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            fit = Fit(RECIPE, load("minilm"), sentences(SENTENCES, seed=SEED), seed=SEED)
            model = fit.run()
            term = fit.loss.terms["masked_lm"]
            assert isinstance(term, MaskedLM)
            with atomic_folder(folder) as partial:
                write(model, term.head, partial)
    return folder


def sentences(count: int, *, seed: int) -> Examples:
    """So many unlabelled sentences of the corpus."""
    return Examples(drawn(count, seed=seed), None, (), source="sentences")


def write(model: Model, head: WordHead, folder: Path) -> None:
    """A BERT with its output layer for masked words, as transformers saves it."""
    from transformers import BertForMaskedLM

    config: Any = model.backbone.config
    whole: Any = BertForMaskedLM(config)
    whole.bert.load_state_dict(model.backbone.state_dict(), strict=False)  # there is no pooler
    linear, _, norm = head.transform
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    predictions = whole.cls.predictions
    predictions.transform.dense.load_state_dict(linear.state_dict())
    predictions.transform.LayerNorm.load_state_dict(norm.state_dict())
    with torch.no_grad():
        predictions.bias.copy_(head.bias)
    whole.save_pretrained(folder)
    model.processor.save(folder)
