"""Every registered pooling: against sentence-transformers where it has it, without padding's influence, kept by saving."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import examples
from surefoot import Model, Recipe, load, save
from surefoot.errors import ModelError
from surefoot.models.pooling import make_pooling, poolings
from surefoot.models.predict import encode_inputs, predict
from surefoot.models.sentence_transformer import KNOWN_POOLINGS
from surefoot.registry import get
from surefoot.tune.step import Batch
from tiny_models import save_llama

TEXTS = ["good film", "a bad film that was long and bad and long", "good"]


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"), bert_folder)


def features(model: Model, texts: list[str]) -> np.ndarray:
    return predict(model, encode_inputs(model, texts, "text"), precision="float32").features


@pytest.mark.parametrize("name", poolings())
def test_padding_changes_nothing_and_saving_keeps_it(
    name: str, bert_folder: Path, llama_folder: Path, tmp_path: Path
) -> None:
    model = load(llama_folder if get("pooling", name).make.causal else bert_folder, pool=name)
    together = features(model, TEXTS)
    alone = np.concatenate([features(model, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.linalg.norm(together[0] - together[1]) > 1e-3
    save(model, tmp_path / "saved")
    again = load(tmp_path / "saved")
    np.testing.assert_array_equal(features(again, TEXTS), together)
    assert again.pool == name


@pytest.mark.parametrize("name", sorted(KNOWN_POOLINGS))
def test_equal_to_sentence_transformers(name: str, bert_folder: Path, tmp_path: Path) -> None:
    """The vectors of a saved model, by sentence-transformers itself."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = load(bert_folder, pool=name)
    save(model, tmp_path / "saved")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(features(model, TEXTS), theirs, atol=1e-5)


@pytest.mark.parametrize("tokens", ["mean", "last"])
def test_echo_by_hand(tokens: str, llama_folder: Path) -> None:
    """The formula, unpadded, on tokens put together by hand: the second copy's states, in float64."""
    model = load(llama_folder, pool={"name": "echo", "tokens": tokens})
    read = model.processor.tokenizer  # type: ignore[attr-defined]
    for text, found in zip(TEXTS, features(model, TEXTS), strict=True):
        parts = ["Rewrite the sentence:", f" {text}", ", rewritten sentence:", f" {text}"]
        ids = [read(part, add_special_tokens=False)["input_ids"] for part in parts]
        beginning = [] if read("x")["input_ids"][0] != read.bos_token_id else [read.bos_token_id]
        with torch.no_grad():
            states = model.backbone(torch.tensor([[*beginning, *chain(*ids)]])).last_hidden_state[0].double()
        second = states[-len(ids[-1]) :]
        np.testing.assert_allclose(found, (second.mean(0) if tokens == "mean" else second[-1]).numpy(), atol=1e-5)


def test_length_holds_for_each_copy(llama_folder: Path) -> None:
    model = load(llama_folder, pool="echo", max_length=3)
    encoded = encode_inputs(model, TEXTS, "text")
    assert (encoded.pooled[:, 1] - encoded.pooled[:, 0]).max() == 3  # type: ignore[attr-defined]
    assert encoded.truncated >= 1


def test_weighted_mean_by_hand() -> None:
    """Muennighoff's formula in float64: positions count from the first pooled token."""
    rng = np.random.default_rng(0)
    hidden, mask = rng.normal(size=(2, 5, 3)), np.array([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    rows = [
        (np.arange(1, m.sum() + 1) / np.arange(1, m.sum() + 1).sum()) @ h[m == 1]
        for h, m in zip(hidden, mask, strict=True)
    ]
    found = make_pooling("weighted_mean")(torch.from_numpy(hidden), torch.from_numpy(mask))
    np.testing.assert_allclose(found.numpy(), np.stack(rows), atol=1e-12)


def test_layer_mix_starts_as_the_mean_of_the_layers_and_learns(bert_folder: Path, tmp_path: Path) -> None:
    """ELMo's formula by hand before training; afterwards its scores have moved and are kept."""
    model = load(bert_folder, pool="layer_mix")
    encoded = encode_inputs(model, TEXTS, "text")
    inputs = encoded.collate(np.arange(3))
    with torch.no_grad():
        states = model.backbone(**inputs, output_hidden_states=True).hidden_states[1:]
    mask = inputs["attention_mask"].unsqueeze(-1)
    expected = sum((state * mask).sum(1) / mask.sum(1) for state in states) / len(states)
    np.testing.assert_allclose(features(model, TEXTS), expected.numpy(), atol=1e-6)
    run = Recipe(epochs=2, batch_size=4, precision="float32").fit(model, examples(24), out=tmp_path / "run")
    learned = dict(run.model.pooling.named_parameters())  # type: ignore[union-attr]
    assert learned["scores"].abs().max() > 0
    np.testing.assert_array_equal(features(load(tmp_path / "run"), TEXTS), features(run.model, TEXTS))


def test_pool_mask_stays_out_of_the_backbone(llama_folder: Path) -> None:
    """Objectives change inputs and pass the rest on: what is pooled stays what it was."""
    model = load(llama_folder, pool="echo")
    inputs = encode_inputs(model, TEXTS, "text").collate(np.arange(3))
    batch = Batch(inputs, torch.zeros(3, dtype=torch.long), torch.arange(3))
    with torch.no_grad():
        plain = model(batch).features
        embedded = model(batch, embeddings=model.embed_inputs(batch)).features
    torch.testing.assert_close(plain, embedded)


def test_sentences_for_what_cannot_be(bert_folder: Path) -> None:
    for pool, said in {
        "echo": "^pooling `echo` lets .* sees the whole text already",
        "ecko": "did you mean `echo`",
        "one_word": "sees the whole text already",
    }.items():
        with pytest.raises(ModelError, match=said):
            load(bert_folder, pool=pool)
    with pytest.raises(ModelError, match="does not repeat"):
        make_pooling({"name": "echo", "template": "Say: {text}"})
    with pytest.raises(ModelError, match=r"has no .text."):
        make_pooling({"name": "one_word", "template": "Say:"})
    with pytest.raises(ModelError, match="`mean` or `last`"):
        make_pooling({"name": "echo", "tokens": "max"})
