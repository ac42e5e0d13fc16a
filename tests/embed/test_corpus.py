"""Files of texts: every format, every kind of bad row by its number, and folders that fill up again after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import refused, surefoot
from conftest import sentences
from surefoot.embed import Encoder
from surefoot.embed.corpus import open_corpus
from surefoot.embed.embed import embed_corpus
from surefoot.embed.shards import read_vectors
from surefoot.errors import DataError, RunError
from surefoot.models.model import Model

TEXTS = sentences(60, 11)[0]


def parquet(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    return parquet(tmp_path / "corpus.parquet", id=[f"r{i}" for i in range(60)], text=TEXTS)


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl", "txt"])
def test_every_format_reads_the_same(tmp_path: Path, ending: str) -> None:
    texts = ["one, two", 'he said "no"', "ünïcödé 漢字", "last"]
    path = tmp_path / f"corpus.{ending}"
    if ending == "parquet":
        parquet(path, text=texts)
    elif ending == "jsonl":
        path.write_text("\n\n".join(json.dumps({"text": each}) for each in texts))
    elif ending == "txt":
        path.write_text("\r\n".join(texts))
    else:
        import csv

        with path.open("w", newline="", encoding="utf8") as file:
            csv.writer(file, delimiter="," if ending == "csv" else "\t").writerows(
                [["text"], *([each] for each in texts)]
            )
    corpus = open_corpus(path)
    windows = list(corpus.windows(3))
    assert [text for each in windows for text in each.texts] == texts
    assert [key for each in windows for key in each.ids] == [0, 1, 2, 3]
    assert corpus.rows == 4


@pytest.mark.parametrize(
    ("columns", "fragments"),
    [
        ({"text": ["a", "", " ", "b"]}, ["rows 2, 3: the text is empty"]),
        ({"text": ["a", None]}, ["row 2: the text is missing"]),
        ({"text": [1, 2]}, ["rows 1, 2: the text is no string"]),
        ({"text": ["a", "b", "c"], "id": ["x", "y", "x"]}, ["rows 1 and 3, column `id`: both have the id `x`"]),
        ({"text": ["a", "b"], "id": ["x", None]}, ["row 2: the id is missing"]),
        ({"body": ["a"]}, ["no column `text` among `body`"]),
        ({"text": [""] * 12}, ["rows 1, 2, 3, 4, 5, 6, 7, 8 and 4 more"]),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, columns: dict, fragments: list[str]) -> None:
    path = parquet(tmp_path / "bad.parquet", **columns)
    with pytest.raises(DataError) as found:
        open_corpus(path)
    for fragment in fragments:
        assert fragment in str(found.value)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "txt"])
def test_rows_that_are_not_utf8(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bad.{ending}"
    if ending == "parquet":
        raw = pa.array([b"fine", b"caf\xe9", b"fine too"], pa.binary())
        strings = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
        pq.write_table(pa.table({"text": strings}), path)
    elif ending == "jsonl":
        path.write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n{"text": "fine too"}\n')
    else:
        head = b"text\n" if ending == "csv" else b""
        path.write_bytes(head + b"fine\ncaf\xe9\nfine too\n")
    with pytest.raises(DataError, match="row 2: not UTF-8"):
        open_corpus(path)
    corpus = open_corpus(path, skip_invalid=True)
    (window,) = corpus.windows(10)
    assert window.texts == ["fine", "fine too"]
    assert window.ids == [0, 2]


def test_a_first_line_that_is_not_utf8_is_skipped_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "caf\xe9"}\n{"text": "fine"}\n')
    with pytest.raises(DataError, match="row 1: not UTF-8"):
        open_corpus(path)
    (window,) = open_corpus(path, skip_invalid=True).windows(10)
    assert window.texts == ["fine"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="two columns are named `text`"):
        open_corpus(tmp_path / "twice.parquet")


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("corpus.parquet", b"PAR1 and no more", "not a whole parquet file"),
        ("corpus.csv", b"", "the file is empty"),
        ("corpus.csv", b"text\n", "no rows"),
        ("corpus.csv", b'text\n"never closed', "quotation mark"),
        ("corpus.csv", b"text,id\none\n", "1 cells where the header has 2"),
        ("corpus.jsonl", b'{"text": "a"}\n{"text"\n', "line 2: not JSON"),
        ("corpus.jsonl", b'{"text": "a"}\n[1]\n', "line 2: not an object"),
        ("corpus.jsonl", b"\xe9\n", "no row that is UTF-8"),
        ("corpus.csv", b"text,text\na,b\n", "two columns are named `text`"),
        ("corpus.csv", b"text,caf\xe9\na,b\n", "a column's name is not UTF-8"),
        ("corpus.pdf", b"%PDF", "the ending `.pdf` is not known"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, fragment: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=fragment):
        open_corpus(tmp_path / name)


def test_shards_hold_every_row_once(tiny_bert: Model, corpus_file: Path, tmp_path: Path) -> None:
    encoder = Encoder(tiny_bert)
    found = embed_corpus(encoder, open_corpus(corpus_file), tmp_path / "vectors", shard_rows=16)
    ids, vectors = read_vectors(tmp_path / "vectors")
    assert ids == [f"r{i}" for i in range(60)]
    assert found.rows == 60
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS), atol=1e-6)
    schema = pq.read_schema(tmp_path / "vectors" / "vectors-00003.parquet")
    assert schema.names == ["id", "embedding"]
    npy = embed_corpus(encoder, open_corpus(corpus_file), tmp_path / "npy", shard_rows=16, format="npy")
    assert npy.rows == 60
    again, same = read_vectors(tmp_path / "npy")
    assert again == ids
    np.testing.assert_array_equal(same, vectors)


def test_what_is_there_stays(tiny_bert: Model, corpus_file: Path, tmp_path: Path) -> None:
    """A missing shard is written again, the others are not touched, and the vectors are the same bytes."""
    folder, encoder, corpus = tmp_path / "vectors", Encoder(tiny_bert), open_corpus(corpus_file)
    embed_corpus(encoder, corpus, folder, shard_rows=16, quantization="int8")
    before = {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in folder.glob("*.parquet")}
    (folder / "vectors-00001.parquet").unlink()
    found = embed_corpus(encoder, corpus, folder, shard_rows=16, quantization="int8")
    after = {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in folder.glob("*.parquet")}
    assert found.resumed == 44
    assert {name: content for name, (content, _) in after.items()} == {name: each for name, (each, _) in before.items()}
    assert [name for name in before if before[name] != after[name]] == ["vectors-00001.parquet"]


def test_a_folder_of_something_else_is_refused(
    tiny_bert: Model, bert_folder: Path, corpus_file: Path, tmp_path: Path
) -> None:
    from surefoot.models.load import load

    folder, corpus = tmp_path / "vectors", open_corpus(corpus_file)
    embed_corpus(Encoder(tiny_bert), corpus, folder, shard_rows=16)
    with pytest.raises(RunError, match="differ in the pooling"):
        embed_corpus(Encoder(load(bert_folder, pool="cls")), corpus, folder, shard_rows=16)
    with pytest.raises(RunError, match="differ in the width"):
        embed_corpus(Encoder(tiny_bert, dim=8), corpus, folder, shard_rows=16)
    other = load(bert_folder)
    next(other.backbone.parameters()).data += 1
    with pytest.raises(RunError, match="differ in the weights"):
        embed_corpus(Encoder(other), corpus, folder, shard_rows=16)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds something other than vectors"):
        embed_corpus(Encoder(tiny_bert), corpus, tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


_EMBED = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from surefoot.embed import Encoder
from surefoot.embed.corpus import open_corpus
from surefoot.embed.embed import embed_corpus
from surefoot.models.load import load

encoder, corpus = Encoder(load(sys.argv[1])), open_corpus(sys.argv[2])
for line in sys.stdin:  # every attempt is a child that is killed, so that nothing is imported twenty times
    import os
    child = os.fork()
    if not child:
        embed_corpus(encoder, corpus, line.strip(), shard_rows=4)
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def test_twenty_kills_lose_and_repeat_no_row(bert_folder: Path, corpus_file: Path, tmp_path: Path) -> None:
    """Killed (signal 9) after ever longer, twenty times; then every row is there once, with the vectors of a whole run."""
    folder, rng = tmp_path / "vectors", np.random.default_rng(0)
    command = [sys.executable, "-c", _EMBED, str(bert_folder), str(corpus_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        counts = []
        for attempt in range(21):
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            if attempt < 20:
                before = len(list(folder.glob("*.parquet")))
                if before < 14:
                    limit = time.monotonic() + 5
                    while len(list(folder.glob("*.parquet"))) <= before - (attempt % 2) and time.monotonic() < limit:
                        time.sleep(0.0005)
                time.sleep(float(rng.random()) * 0.005)
                os.kill(child, signal.SIGKILL)
            assert process.stdout.readline() == "ended\n"
            counts.append(len(list(folder.glob("*.parquet"))))
        process.stdin.close()
    ids, vectors = read_vectors(folder)
    assert ids == [f"r{i}" for i in range(60)]
    assert counts[0] < counts[-1] == 15
    from surefoot.models.load import load

    np.testing.assert_allclose(vectors, Encoder(load(bert_folder)).encode(TEXTS), atol=1e-6)
    assert not list(folder.glob(".*"))


def test_the_command(bert_folder: Path, tmp_path: Path) -> None:
    path = parquet(tmp_path / "corpus.parquet", body=[*TEXTS, TEXTS[0], "long " * 100])
    out = tmp_path / "vectors"
    argv = ["embed", "--model", bert_folder, "--input", path, "--column", "body=text", "--output", out, "--explain"]
    result = surefoot(*argv)
    assert result.exit_code == 0, result.output
    assert "62 vectors of 32 numbers" in result.stdout
    assert "hubness" in result.stdout
    assert "1 rows repeat a text" in result.stderr
    assert "1 texts are longer than" in result.stderr
    assert TEXTS[0] in (out / "report.html").read_text("utf8")
    found = json.loads(surefoot(*argv, "--json").stdout)
    assert found["resumed"] == 62
    assert found["geometry"]["dim"] == 32
    refused([*argv, "--pooling", "cls"], ["differ in the pooling (`mean` there, `cls` asked for)"], out=out, late=True)


def test_what_cannot_be_explained_is_refused_before_it_is_embedded(bert_folder: Path, tmp_path: Path) -> None:
    few, out = parquet(tmp_path / "few.parquet", text=TEXTS[:5]), tmp_path / "vectors"
    argv: list[object] = ["embed", "--model", bert_folder, "--output", out, "--explain", "--input"]
    refused([*argv, few], ["5 vectors", "11 or more"], out=out)
    refused([*argv, parquet(tmp_path / "all.parquet", text=TEXTS), "--quantize", "int8"], ["int8 codes"], out=out)


def test_a_model_of_its_first_layers(bert_folder: Path, tmp_path: Path) -> None:
    """One layer and eight numbers of a model of two and 32, as who loads it would cut it; not with the whole model's."""
    from surefoot.models.load import load
    from surefoot.models.shallow import first_layers

    path, out = parquet(tmp_path / "corpus.parquet", text=TEXTS[:5]), tmp_path / "vectors"
    argv: list[object] = ["embed", "--model", bert_folder, "--input", path, "--output", out, "--dim", 8]
    result = surefoot(*argv, "--layers", 1)
    assert result.exit_code == 0, result.output
    expected = Encoder(first_layers(load(bert_folder), 1), dim=8).encode(TEXTS[:5])
    np.testing.assert_allclose(read_vectors(out)[1], expected, atol=1e-6)
    refused([*argv, "--layers", 3], ["layers 3", "has 2"], out=out, late=True)
    refused(argv, ["differ in the weights"], out=out, late=True)


def test_bad_commands(bert_folder: Path, tmp_path: Path) -> None:
    path, out = parquet(tmp_path / "corpus.parquet", text=["a", " "]), tmp_path / "vectors"
    argv: list[object] = ["embed", "--model", bert_folder, "--input", path, "--output", out]
    refused(argv, ["row 2: the text is empty", "--skip-invalid"], out=out)
    refused([*argv, "--dim", 33], ["dim 33: a vector of", "has 32 numbers"], out=out)
    refused([*argv, "--pooling", "echo"], ["causal"], out=out)
    refused([*argv, "--quantize", "int4"], ["unknown quantization `int4`"], out=out)
    refused([*argv, "--dtype", "half"], ["unknown dtype `half`"], out=out)
