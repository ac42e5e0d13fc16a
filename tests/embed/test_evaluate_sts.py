"""`surefoot evaluate --sts`: rated pairs and searches, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import refused, surefoot
from conftest import sentences
from surefoot.embed import Encoder
from surefoot.models.load import load


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    first, second = sentences(24, 1)[0], sentences(24, 2)[0]
    scores = [float(len(set(a.split()) & set(b.split()))) for a, b in zip(first, second, strict=True)]
    pq.write_table(pa.table({"sentence1": first, "sentence2": second, "score": scores}), tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def test_rated_pairs(bert_folder: Path, pairs: Path) -> None:
    """Against scipy on the encoder's own cosines."""
    from scipy.stats import spearmanr

    found = json.loads(surefoot("evaluate", bert_folder, "--sts", f"mine={pairs}", "--json").stdout)
    table = pq.read_table(pairs)
    encoder = Encoder(load(bert_folder), normalize=True)
    cosines = (encoder.encode(table["sentence1"].to_pylist()) * encoder.encode(table["sentence2"].to_pylist())).sum(1)
    # `evaluate` runs in bfloat16 where the processor has it.
    assert found["mine"]["value"] == pytest.approx(spearmanr(cosines, table["score"].to_pylist()).statistic, abs=0.05)
    assert found["mine"]["examples"] == 24
    shown = surefoot("evaluate", bert_folder, "--sts", pairs).stdout
    assert "pairs" in shown
    assert "spearman" in shown


def test_bad_questions(bert_folder: Path, pairs: Path, tmp_path: Path) -> None:
    refused(["evaluate", bert_folder], ["nothing to evaluate on", "--data", "--sts"])
    refused(["evaluate", bert_folder, "--sts", pairs, "--data", pairs], ["ask for one at a time"])
    refused(["evaluate", bert_folder, "--sts", pairs, "--sts", pairs], ["two sets are named `pairs`"])
    refused(["evaluate", bert_folder, "--sts", tmp_path / "none.parquet"], ["none.parquet"])
