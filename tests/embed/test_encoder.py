"""The encoder beside sentence-transformers, a float64 BERT written out here, and its own limits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from surefoot.assess.similarity import vectors
from surefoot.embed import Encoder
from surefoot.embed.modules import check_no_modules
from surefoot.embed.packed import Packed, can_pack
from surefoot.embed.tokens import tokenise
from surefoot.errors import DataError, ModelError
from surefoot.models.load import load
from surefoot.models.model import Model
from tiny_models import save_gpt2

TEXTS = [
    "A quiet film that stays with you.",
    "The plot is thin; the actors are not.",
    "no",
    "Two hours of rain, one minute of sun, and nobody says a word about either of them.",
    "A quiet film that stays with you.",
    "word " * 700,
    "Ünïcödé, emoji 🎬 and 漢字 too",
]


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("gpt2"), bert_folder)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_same_vectors_as_sentence_transformers(minilm: Model) -> None:
    """Against sentence-transformers, side by side: the same vectors to rounding, those of cut texts included."""
    from sentence_transformers import SentenceTransformer

    from surefoot.assets import fetch

    theirs = SentenceTransformer(str(fetch("minilm")), device="cpu").encode(TEXTS)
    encoder = Encoder(minilm)
    ours = encoder.encode(TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert encoder.counts.texts == 7
    assert encoder.counts.distinct == 6
    assert encoder.counts.truncated == 1


@pytest.mark.parametrize("pool", ["mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean"])
def test_every_pooling_that_sentence_transformers_has(pool: str, tmp_path: Path) -> None:
    """Against sentence-transformers on a folder that states the pooling: cosine above 0.9999."""
    from sentence_transformers import SentenceTransformer

    from surefoot.models.save import save

    save(load("minilm", pool=pool), tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS)
    ours = Encoder(load(tmp_path / "model")).encode(TEXTS)
    assert cosines(ours, theirs).min() > 0.9999


def test_dense_and_normalize_of_a_sentence_transformer(tmp_path: Path) -> None:
    """Against sentence-transformers, which made and saved the folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    from surefoot.assets import fetch

    torch.manual_seed(0)
    theirs = SentenceTransformer(str(fetch("minilm")), device="cpu")
    theirs.insert(2, Dense(384, 48, activation_function=torch.nn.ReLU()))
    theirs.save(str(tmp_path / "dense"))
    encoder = Encoder(load(tmp_path / "dense"))
    assert encoder.width == 48
    assert encoder.normalize
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs.encode(TEXTS), atol=2e-6)
    np.testing.assert_allclose(vectors(load(tmp_path / "dense"), TEXTS), theirs.encode(TEXTS), atol=1e-2)  # bfloat16
    with pytest.raises(ModelError, match=r"dim 49: .* has 48 numbers"):
        Encoder(load(tmp_path / "dense"), dim=49)
    with pytest.raises(ModelError, match="which training would leave behind"):
        check_no_modules(load(tmp_path / "dense"))


def reference(model: Model, ids: list[int]) -> np.ndarray:
    """BERT of one text in float64, from the formulas of Devlin et al. 2019, pooled by the mean: no code of the package."""
    state = {name: each.double().numpy() for name, each in model.backbone.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        apart = x - x.mean(-1, keepdims=True)
        scaled = apart / np.sqrt((apart**2).mean(-1, keepdims=True) + model.backbone.config.layer_norm_eps)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    heads = model.backbone.config.num_attention_heads
    x = state["embeddings.word_embeddings.weight"][ids] + state["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + state["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for number in range(model.backbone.config.num_hidden_layers):
        at = f"encoder.layer.{number}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{each}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for each in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        up = linear(x, f"{at}.intermediate.dense")
        gelu = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        x = norm(x + linear(gelu, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x.mean(0)


def test_packed_layers_in_float64(minilm: Model) -> None:
    """Against BERT's formulas in float64, written out in this file, for texts of several lengths in one batch."""
    texts = [TEXTS[0], TEXTS[2], TEXTS[3]]
    encoded = tokenise(minilm, texts, max_length=64, chunk=False).encoded
    order = np.argsort(-encoded.lengths)
    with torch.inference_mode():
        found = Packed(minilm, "float32").features(encoded, order)
    for row, place in enumerate(order):
        ids = encoded.ids[encoded.offsets[place] : encoded.offsets[place + 1]].tolist()
        np.testing.assert_allclose(found[row], reference(minilm, ids), atol=3e-6)


def test_neighbours_change_nothing(minilm: Model) -> None:
    """A text alone and among others: without padding there is nothing that could leak."""
    encoder = Encoder(minilm)
    together = encoder.encode(TEXTS)
    for row in (0, 2, 6):
        np.testing.assert_allclose(encoder.encode([TEXTS[row]])[0], together[row], atol=1e-6)


@pytest.mark.parametrize(("backend", "dtype", "least"), [("torch", "bfloat16", 0.999), ("torch", "int8", 0.97)])
def test_quick_modes_stay_close(minilm: Model, backend: str, dtype: str, least: float) -> None:
    quick = Encoder(minilm, dtype=dtype, backend=backend).encode(TEXTS)  # type: ignore[arg-type]
    found = cosines(quick, Encoder(minilm).encode(TEXTS))
    assert least < found.min() < 1 - 1e-7


def test_openvino_is_the_same_model(minilm: Model) -> None:
    """Against OpenVINO in float32."""
    pytest.importorskip("openvino")
    theirs = Encoder(minilm, backend="openvino").encode(TEXTS)
    assert cosines(theirs, Encoder(minilm).encode(TEXTS)).min() > 0.9999


def test_widths(minilm: Model) -> None:
    """Cut and scaled is what numpy makes of the whole; the whole width is the plain vector to the bit."""
    whole = Encoder(minilm).encode(TEXTS)
    cut = Encoder(minilm, dim=128).encode(TEXTS)
    np.testing.assert_allclose(cut, whole[:, :128] / np.linalg.norm(whole[:, :128], axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(Encoder(minilm, dim=384).encode(TEXTS), whole)


def test_chunks_are_means_of_pieces(minilm: Model) -> None:
    """By hand: two pieces of a text of as many tokens as fit, encoded alone and averaged before scaling."""
    raw = Encoder(minilm, normalize=False, max_length=12, chunk=True)
    words = "one two three four five six seven eight nine ten eleven twelve"
    found = raw.encode([words, "short"])
    assert raw.counts.chunked == 1
    assert raw.counts.truncated == 0
    alone = Encoder(minilm, normalize=False, max_length=12)
    pieces = alone.encode(["one two three four five six seven eight nine ten", "eleven twelve"])
    np.testing.assert_allclose(found[0], pieces.mean(0), atol=1e-5)
    np.testing.assert_allclose(found[1], alone.encode(["short"])[0], atol=1e-5)


def test_a_text_of_a_hundred_thousand_tokens(minilm: Model) -> None:
    long = "rain " * 100_000
    cut, chunked = Encoder(minilm, dtype="auto"), Encoder(minilm, dtype="auto", max_length=254, chunk=True)
    assert cut.encode([long]).shape == (1, 384)
    assert cut.counts.truncated == 1
    assert tokenise(minilm, [long], max_length=256, chunk=True).encoded.lengths.sum() >= 100_000
    assert chunked.encode([long[:5000]]).shape == (1, 384)


def test_other_models_run_as_they_are(causal_folder: Path) -> None:
    """A GPT-2 is neither packed nor refused: its own forward pass, against transformers."""
    from transformers import AutoModel

    model = load(causal_folder, pool="mean")
    assert not can_pack(model)
    found = Encoder(model, normalize=False).encode(["the film was good", "a dull story"])
    ids = torch.tensor([model.processor.tokenizer("a dull story")["input_ids"]])
    with torch.no_grad():
        states = AutoModel.from_pretrained(causal_folder)(input_ids=ids).last_hidden_state[0]
    np.testing.assert_allclose(found[1], states.mean(0).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (["fine", ""], "text 2 is empty"),
        (["  \n\t"], "text 1 is empty"),
        (["fine", 3], r"text 2 is not a string \(but int\)"),
        ([None], r"text 1 is not a string \(but NoneType\)"),
    ],
)
def test_texts_that_are_none(minilm: Model, texts: list, error: str) -> None:
    with pytest.raises(DataError, match=error):
        Encoder(minilm).encode(texts)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dim": 385}, "dim 385: a vector of `minilm` has 384 numbers: choose from 1 to 384"),
        ({"dim": 0}, "dim 0"),
        ({"dtype": "float16"}, "unknown dtype `float16`"),
        ({"backend": "tensorrt"}, "unknown backend `tensorrt`"),
        ({"max_length": 0}, "max_length 0"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "onnxruntime has no bfloat16"),
    ],
)
def test_what_a_model_cannot_do(minilm: Model, options: dict, error: str) -> None:
    with pytest.raises(ModelError, match=error):
        Encoder(minilm, **options)


def test_no_texts(minilm: Model) -> None:
    assert Encoder(minilm).encode([]).shape == (0, 384)
