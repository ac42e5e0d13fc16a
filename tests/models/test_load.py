"""`load` opens what people have (encoders, causal and vision models, ResNets, plain modules); `save` keeps it whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from command_line import one_thread
from conftest import examples
from surefoot import Examples, Model, Recipe, load, save
from surefoot.assets import cache_folder, cached
from surefoot.errors import ModelError
from surefoot.models.predict import Prediction, encode_inputs, predict
from tiny_models import images, save_gpt2, save_llama, save_resnet, save_vit

FAST = {"epochs": 1, "batch_size": 4, "precision": "float32"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with one_thread():
        yield


def outputs(model: Model, data: Examples) -> Prediction:
    return predict(model, encode_inputs(model, data.inputs, data.modality), precision="float32")


def same_after_saving(model: Model, data: Examples, folder: Path) -> Model:
    """Save, load, and compare to the bit."""
    save(model, folder)
    again = load(folder)
    before, after = outputs(model, data), outputs(again, data)
    np.testing.assert_array_equal(before.logits, after.logits)
    np.testing.assert_array_equal(before.features, after.features)
    assert (again.classes, again.pool, again.normalize) == (model.classes, model.pool, model.normalize)
    return again


def pictures(count: int = 12) -> Examples:
    pytest.importorskip("PIL")
    inputs, labels = images(count)
    return Examples(inputs, labels, ("dark", "bright"), modality="image", source="pictures")


def test_encoder(bert_folder: Path, tmp_path: Path) -> None:
    model = load(bert_folder)
    assert (model.dim, model.pool, len(model.layers), model.name) == (32, "mean", 2, "tiny")
    assert not model.training
    run = Recipe(**FAST).fit(model, examples(24), out=tmp_path / "run")
    same_after_saving(run.model, examples(24), tmp_path / "again")
    np.testing.assert_array_equal(
        outputs(load(tmp_path / "run"), examples(9, 1)).logits, outputs(run.model, examples(9, 1)).logits
    )


@pytest.mark.parametrize("kind", [save_gpt2, save_llama])
def test_causal_model_reads_its_last_token(kind: object, bert_folder: Path, tmp_path: Path) -> None:
    model = load(kind(tmp_path / "causal", bert_folder))  # type: ignore[operator]
    assert (model.pool, len(model.layers)) == ("last", 2)
    data = examples(12)
    features = outputs(model, data).features
    for row, text in enumerate(data.inputs[:4]):
        encoded = model.processor.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model.backbone(input_ids=encoded["input_ids"]).last_hidden_state
        np.testing.assert_allclose(features[row], states[0, -1].numpy(), atol=1e-5)
    run = Recipe(**FAST, selection={"name": "top_layers", "k": 1}).fit(model, data)
    assert same_after_saving(run.model, data, tmp_path / "saved").pool == "last"


@pytest.mark.parametrize("recipe", ["linear_probe", "fine_tune"])
def test_vision_transformer(recipe: str, tmp_path: Path) -> None:
    model = load(save_vit(tmp_path / "vit"))
    assert (model.dim, model.pool, len(model.layers), model.processor.modality) == (32, "cls", 2, "image")
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    run = Recipe.named(recipe, epochs=1, batch_size=4, precision="float32").fit(model, pictures(), out=tmp_path / "run")
    score = run.evaluate({"home": pictures()})["home"].accuracy.value
    assert score == 1.0 or recipe == "fine_tune", "dark and bright are easy to tell apart from the features"
    changed = [name for name, value in run.model.backbone.state_dict().items() if not torch.equal(value, before[name])]
    assert bool(changed) == (recipe == "fine_tune")
    same_after_saving(run.model, pictures(), tmp_path / "again")


def test_convolutional_model_is_averaged_over_its_map(tmp_path: Path) -> None:
    model = load(save_resnet(tmp_path / "resnet"))
    assert (model.dim, model.pool, model.layers) == (16, "mean", [])
    data = pictures()
    batch = encode_inputs(model, data.inputs, "image").collate(np.arange(12))
    with torch.no_grad():
        pooled = model.backbone(**batch).pooler_output.flatten(1)
    np.testing.assert_allclose(outputs(model, data).features, pooled.numpy(), atol=1e-5)
    run = Recipe(**FAST).fit(model, data)
    same_after_saving(run.model, data, tmp_path / "again")


def test_plain_module_on_digits(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32)
    names = tuple("0123456789")
    train, test = (
        Examples(pixels[part], labels[part], names, modality="features")
        for part in (np.arange(1797) % 4 > 0, np.arange(1797) % 4 == 0)
    )
    torch.manual_seed(0)
    model = Model.from_module(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), dim=64)
    run = Recipe(head="random", epochs=8, optimizer={"name": "adamw", "lr": 1e-2}, precision="float32").fit(
        model, train
    )
    assert run.evaluate({"test": test})["test"].accuracy.value > 0.9
    with pytest.raises(ModelError, match="plain module: only transformers models are saved"):
        save(run.model, tmp_path / "model")


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_pooling_of_a_sentence_transformer(config: dict, pool: str, bert_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert_folder, tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **config}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24, "do_lower_case": false}')
    model = load(folder)
    assert (model.pool, model.processor.max_length) == (pool, 24)  # type: ignore[attr-defined]
    assert load(folder, pool="mean", max_length=9).pool == "mean"
    assert same_after_saving(model, examples(6), tmp_path / "again").processor.max_length == 24  # type: ignore[attr-defined]


def test_a_pooling_that_there_is_not(bert_folder: Path) -> None:
    with pytest.raises(ModelError, match="unknown pooling `men`: did you mean `mean`"):
        load(bert_folder, pool="men")


def test_minilm_has_the_features_of_sentence_transformers(minilm: Model) -> None:
    library = pytest.importorskip("sentence_transformers")
    texts = ["A joy from start to finish.", "bad", "What a waste of time; two hours of my life. " * 40]
    ours = predict(minilm, encode_inputs(minilm, texts, "text"), precision="float32").features
    assert (minilm.dim, minilm.pool, ours.shape) == (384, "mean", (3, 384))
    theirs = library.SentenceTransformer(str(cached("minilm")), device="cpu").encode(texts)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)  # as its last module does
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    assert (ours * theirs).sum(1).min() > 0.9999


def test_smollm2_loads_and_its_causal_model_reloads_identically(tmp_path: Path) -> None:
    """Converting the 4-bit file takes half a minute: only where it is done, or SUREFOOT_SLOW=1."""
    from transformers import AutoModelForCausalLM

    folder = cache_folder() / "models" / "smollm2-135m-instruct-q4"
    if not folder.is_dir() and os.environ.get("SUREFOOT_SLOW") != "1":
        pytest.skip("SmolLM2 is not cached; SUREFOOT_SLOW=1 fetches and converts it")
    model = load("smollm2-135m-instruct-q4")
    assert (model.dim, model.pool, len(model.layers)) == (576, "last", 30)
    tokens = torch.arange(10, 26)[None]
    causal = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    causal.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(causal(tokens).logits, again(tokens).logits)
        states = model.backbone(tokens).last_hidden_state
        torch.testing.assert_close(causal.lm_head(states), causal(tokens).logits)


def test_a_name_of_the_hub_loads_from_its_cache_without_a_connection(bert_folder: Path, tmp_path: Path) -> None:
    """The layout in which huggingface_hub keeps what it fetched, and a fresh process that may not connect."""
    import shutil
    import subprocess
    import sys

    repository = tmp_path / "models--team--tiny"
    shutil.copytree(bert_folder, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    script = (
        "import socket\n"
        "def refuse(*args, **options): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import surefoot; model = surefoot.load('team/tiny'); print(model.name, model.dim, len(model.layers))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert found.stdout.split() == ["team/tiny", "32", "2"], found.stderr


@pytest.mark.parametrize("kind", ["ModernBert", "DistilBert", "Roberta", "Llama"])
def test_the_frozen_prefix_gives_what_the_whole_model_gives(kind: str, bert_folder: Path) -> None:
    """Architectures differ in what their loop asks of a layer and in what a layer returns."""
    import transformers

    from surefoot.models.predict import encode_inputs, predict

    words = load(bert_folder)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    if kind == "DistilBert":
        sizes = {
            "vocab_size": 64,
            "dim": 32,
            "n_layers": 3,
            "n_heads": 2,
            "hidden_dim": 48,
            "max_position_embeddings": 64,
        }
    config = getattr(transformers, f"{kind}Config")(**sizes, pad_token_id=0)
    torch.manual_seed(0)
    backbone = getattr(transformers, f"{kind}Model")(config)
    model = Model(backbone, dim=32, processor=words.processor, classes=("a", "b"))
    encoded = encode_inputs(model, examples(12).inputs, "text")
    whole = predict(model, encoded, precision="float32").features
    assert len(model.layers) == 3
    for depth in (1, 2):
        model.freeze(depth)
        np.testing.assert_allclose(predict(model, encoded, precision="float32").features, whole, atol=1e-5)
