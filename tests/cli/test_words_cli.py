"""`surefoot words` and `surefoot compass` on real docstrings: train, look, encode, compare; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from command_line import contents, refused, surefoot
from surefoot.evidence.tracks.search import documented

pytest.importorskip("gensim")
PAIRS = documented("numpy")[:60]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts.parquet, and the retrieval set `docs`: first sentences, and what follows them."""
    names = [str(row) for row in range(len(PAIRS))]
    pd.DataFrame({"id": names, "text": [" ".join(pair) for pair in PAIRS]}).to_parquet(tmp_path / "texts.parquet")
    (tmp_path / "docs").mkdir()
    pd.DataFrame({"_id": names, "text": [body for _, body in PAIRS]}).to_parquet(tmp_path / "docs/corpus.parquet")
    pd.DataFrame({"_id": names, "text": [head for head, _ in PAIRS]}).to_parquet(tmp_path / "docs/queries.parquet")
    judged = pd.DataFrame({"query_id": names, "corpus_id": names, "score": 1})
    judged.to_parquet(tmp_path / "docs/qrels.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*argv: object) -> list[object]:
    return ["words", "train", "--input", "texts.parquet", "--out", "vectors", *argv]


def test_train_look_encode_compare(place: Path) -> None:
    result = surefoot(*train("--option", "size=20", "--option", "epochs=2", "--json"))
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["method"], told["size"], told["texts"]) == ("skipgram", 20, 60)
    first = contents(place / "vectors")
    assert surefoot(*train("--option", "size=20", "--option", "epochs=2")).exit_code == 0
    assert contents(place / "vectors") == first, "the same seed, the same bytes"
    near = json.loads(
        surefoot("words", "similar", "--vectors", "vectors", "--word", "array", "--k", 3, "--json").stdout
    )
    assert len(near["array"]) == 3
    assert "array" in surefoot("words", "similar", "--vectors", "vectors", "--word", "array").stdout
    encode = ["words", "encode", "--vectors", "vectors", "--input", "texts.parquet", "--out", "texts/vectors.parquet"]
    assert json.loads(surefoot(*encode, "--json").stdout)["unknown"] == 0
    table = pd.read_parquet(place / "texts/vectors.parquet")
    assert table["id"].tolist() == [str(row) for row in range(60)]
    assert len(table["embedding"][0]) == 20
    surefoot(*train("--method", "squared_norm", "--option", "epochs=2", "--out", "other"))
    compared = surefoot("compass", "--model", "vectors", "--model", "other", "--data", "docs", "--json")
    found = json.loads(compared.stdout)
    assert set(found["models"]) == {"vectors", "other"}
    assert 0 <= found["models"]["vectors"]["accuracy"] <= 1
    assert found["correlations"] is None, "two models lie on a line whatever they are"
    shown = surefoot("compass", "--model", "vectors", "--data", "docs").stdout
    assert "60 queries, 60 documents" in shown


def test_refusals(place: Path) -> None:
    refused(
        ["words", "learn"], ["unknown action `learn`", "known: `encode`, `similar`, `train`"], out=place / "vectors"
    )
    refused(["words", "train", "--out", "vectors"], ["--input is missing"], out=place / "vectors")
    refused(train("--method", "skipgran"), ["unknown word_vectors `skipgran`", "did you mean `skipgram`"])
    refused(train("--option", "size=0"), ["`size` is 0"], out=place / "vectors")
    refused(train("--method", "wespad"), ["label"], out=place / "vectors")
    (place / "short.csv").write_text("text\none\ntwo\n")
    refused([*train(), "--input", "short.csv"], ["no word is seen 5 times"], out=place / "vectors", late=True)
    (place / "taken").mkdir()
    (place / "taken/notes.txt").write_text("mine")
    refused(train("--out", "taken"), ["taken: holds something else"], out=place / "taken")
    refused(["words", "similar", "--vectors", "taken"], ["not a folder of word vectors"])
    refused(["compass", "--model", "minilm", "--data", "texts.parquet"], ["texts.parquet"])
    refused(["compass", "--model", "vectors", "--model", "vectors", "--data", "docs"], ["named twice"])


def test_help_teaches() -> None:
    said = " ".join(surefoot("words", "--help").stdout.split())
    assert "Example: surefoot words train --method skipgram --input corpus.parquet --out vectors/" in said
    assert "Example: surefoot compass --model minilm" in " ".join(surefoot("compass", "--help").stdout.split())
