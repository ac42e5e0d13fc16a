"""Bad input is met at the door: one sentence with file, row and what to do, and never another exception."""

import json
import re

import numpy as np
import pytest

from surefoot.data import load_data
from surefoot.errors import DataError

GOOD = "text,label\nfine,1\nbad,0\n"

#: file name, content (text, bytes or None for "not written"), what the message must hold
FILES = {
    "missing": ("a.csv", None, ["no such file"]),
    "empty": ("a.csv", "", ["the file is empty"]),
    "empty parquet": ("a.parquet", b"", ["the file is empty"]),
    "blank lines": ("a.csv", "\n\n", ["only blank lines"]),
    "header only": ("a.csv", "text,label\n", ["no rows", "`text`, `label`"]),
    "empty json list": ("a.json", "[]", ["no rows"]),
    "unknown ending": ("a.xlsx", GOOD, ["`.xlsx`", ".parquet"]),
    "txt": ("a.txt", GOOD, ["`.txt`"]),
    "no ending": ("data", GOOD, ["without an ending"]),
    "missing label column": ("a.csv", "text,lable\nfine,1\n", ["no column `label`", "did you mean `lable`"]),
    "missing input column": ("a.csv", "sentence,label\nfine,1\n", ["no column `text`", "among `sentence`, `label`"]),
    "semicolons": ("a.csv", "text;label\nfine;1\n", ["separated by semicolons"]),
    "two inputs": ("a.csv", "text,image,label\nfine,b.png,1\n", ["`text` and `image`"]),
    "duplicate columns": ("a.csv", "text,label,label\nfine,1,1\n", ["two columns are named `label`"]),
    "empty label": ("a.csv", "text,label\nfine,1\nbad,\n", ["row 2 (line 3), column `label`", "missing"]),
    "nan label": ("a.csv", "text,label\nfine,nan\nbad,1\n", ["row 1 (line 2), column `label`", "missing"]),
    "null label": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', ["row 2 (line 2)"]),
    "absent label key": ("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b"}\n', ["row 2 (line 3)", "missing"]),
    "nan literal": ("a.json", '[{"text": "a", "label": NaN}]', ["row 1", "label is missing"]),
    "score as text": ("a.csv", "text,label\nfine,0.37\nbad,1\n", ["row 1 (line 2)", "looks like a score"]),
    "mixed score": ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": 0.5}\n', ["row 2", "score"]),
    "infinite label": ("a.jsonl", '{"text": "a", "label": Infinity}\n', ["row 1", "looks like a score"]),
    "list label": ("a.json", '[{"text": "a", "label": ["x", "y"]}]', ["row 1", "not a class (but list)"]),
    "empty text": ("a.csv", 'text,label\n"",1\n" ",0\n', ["row 1 (line 2), column `text`", "1 more"]),
    "number text": (
        "a.json",
        '[{"text": "a", "label": 1}, {"text": 5, "label": 0}]',
        ["row 2", "5 is not text (but int)"],
    ),
    "surrogate": ("a.json", '[{"text": "\\ud83d", "label": 1}]', ["row 1", "surrogate"]),
    "long text": ("a.csv", "text,label\nfine,1\n" + "x" * 1_000_001 + ",0\n", ["row 2 (line 3)", "1 MB"]),
    "huge cell": ("a.csv", "text,label\n" + "x" * 10_000_001 + ",0\n", ["line 2", "over 10 MB"]),
    "huge line": ("a.jsonl", json.dumps({"text": "x" * 10_000_001, "label": 1}), ["line 1", "over 10 MB"]),
    "latin1": ("a.csv", "text,label\nfine,1\ncafé,0\n".encode("latin1"), ["line 3", "byte 21", "iconv"]),
    "utf-16": ("a.csv", GOOD.encode("utf-16"), ["byte 0", "iconv -f UTF-16"]),
    "latin1 jsonl": ("a.jsonl", '{"text": "é", "label": 1}'.encode("latin1"), ["not UTF-8"]),
    "duplicate ids": ("a.csv", "id,text,label\nk,fine,1\nk,bad,0\n", ["row 2 (line 3)", "`k`", "row 1"]),
    "negative weight": ("a.csv", "text,label,weight\nfine,1,1\nbad,0,-2\n", ["row 2", "`weight`", "-2.0"]),
    "nan weight": ("a.csv", "text,label,weight\nfine,1,nan\n", ["row 1", "weight is missing"]),
    "text weight": ("a.csv", "text,label,weight\nfine,1,heavy\n", ["row 1", "heavy is not a number"]),
    "zero weights": ("a.csv", "text,label,weight\nfine,1,0\nbad,0,0\n", ["every weight is zero"]),
    "missing group": ("a.csv", "text,label,group\nfine,1,g\nbad,0,\n", ["row 2", "the group is missing"]),
    "truncated parquet": ("a.parquet", b"PAR1" + b"\0" * 40, ["not a whole parquet file"]),
    "csv as parquet": ("a.parquet", GOOD, ["not a whole parquet file"]),
    "too many cells": ("a.csv", "text,label\nfine,1\nbad, really,0\n", ["row 2 (line 3)", "3 cells", "2"]),
    "too few cells": ("a.csv", 'text,label\n"two\nlines",1\nbad\n', ["row 2 (line 4)", "1 cells"]),
    "open quote": ("a.csv", 'text,label\nfine,1\n"bad,0\nworse,0\n', ["row 2 (line 3)", "quotation mark"]),
    "text after quote": ("a.csv", 'text,label\n"bad"x,0\n', ["line 2", "quotation mark"]),
    "bad json line": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b",\n', ["line 2", "not JSON"]),
    "json line not object": ("a.jsonl", '["a", 1]\n', ["row 1 (line 1)", "not an object (but list)"]),
    "bad json": ("a.json", '[{"text": "a",\n "label": }]', ["line 2, column 11", "not JSON"]),
    "deep json": ("a.json", "[" * 100_000, ["nested too deep"]),
    "json object": ("a.json", '{"text": ["a"], "label": [1]}', ["holds a JSON object"]),
    "ragged features": (
        "a.json",
        '[{"features": [1, 2], "label": 1}, {"features": [1], "label": 0}]',
        ["row 2", "1 n"],
    ),
    "nan features": ("a.json", '[{"features": [1, NaN], "label": 1}]', ["row 1", "NaN or infinity at position 2"]),
    "text features": ("a.csv", "features,label\nabc,1\n", ["row 1", "abc is not a list of numbers"]),
    "missing image file": ("a.csv", "image,label\nnone.png,1\n", ["row 1", "none.png"]),
    "image that is none": ("a.csv", "image,label\na.csv,1\n", ["row 1", "not a whole image"]),
}


def check_message(error: DataError, *parts: str) -> None:
    message = str(error)
    assert "\n" not in message
    assert len(message) < 500
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("case", FILES)
def test_bad_file(tmp_path, case):
    name, content, parts = FILES[case]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        load_data(path)
    check_message(caught.value, str(path), *parts)


def test_folder_and_nearest_name(tmp_path):
    (tmp_path / "train.csv").write_text(GOOD)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path)
    check_message(caught.value, str(tmp_path), "is a folder")
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "trian.csv")
    check_message(caught.value, "did you mean `train.csv`?")
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "no" / "train.csv")
    check_message(caught.value, "does not exist either")


def test_parquet_cut_short(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"text": ["a", "b"] * 500, "label": [0, 1] * 500}).to_parquet(path)
    raw = bytearray(path.read_bytes())
    for damaged in (raw[: len(raw) // 2], raw[:20] + b"\xff" * 20 + raw[40:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            load_data(path)
        check_message(caught.value, str(path), "not a whole parquet file")


def test_truncated_image():
    image_module = pytest.importorskip("PIL.Image")
    import io

    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    image_module.fromarray(noise).save(buffer, format="JPEG")
    whole = buffer.getvalue()
    with pytest.raises(DataError) as caught:
        load_data([{"image": whole, "label": 0}, {"image": whole[: len(whole) // 2], "label": 1}])
    check_message(caught.value, "list, row 2, column `image`: not a whole image")


def test_bad_frames():
    pandas = pytest.importorskip("pandas")
    cases = [
        (pandas.DataFrame({"text": ["a", "b"], "label": [1.0, np.nan]}), "row 2, column `label`"),
        (pandas.DataFrame({"text": ["a", pandas.NA], "label": [1, 0]}), "row 2, column `text`"),
        (pandas.DataFrame({"text": ["a", "b"], "label": pandas.array([1, None], dtype="Int64")}), "row 2"),
        (pandas.DataFrame([["a", "b", 1]], columns=["text", "text", "label"]), "two columns are named `text`"),
        (pandas.DataFrame({"text": [], "label": []}), "no rows"),
        (pandas.DataFrame({"text": ["a"], "label": [0.37]}), "0.37 looks like a score"),
    ]
    for frame, part in cases:
        with pytest.raises(DataError) as caught:
            load_data(frame)
        check_message(caught.value, "DataFrame", part)


def test_bad_sources():
    datasets, arrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"], "label": [1]})})
    twice = arrow.table([["a"], ["b"]], names=["text", "text"])
    cases = [
        ([], "no rows"),
        (["a"], "row 1: not an object (but str)"),
        (3, "from int"),
        (splits, "train"),
        (twice, "two columns"),
    ]
    for source, part in cases:
        with pytest.raises(DataError) as caught:
            load_data(source)
        check_message(caught.value, part)
    for name in ("x" * 5000, "text\0.csv"):
        with pytest.raises(DataError) as caught:
            load_data(name)
        assert "\n" not in str(caught.value)


def test_bad_renames():
    rows = [{"text": "a", "intent": "x"}]
    cases = [
        ({"intnet": "label"}, "did you mean `intent`"),
        ({"intent": "labels"}, "did you mean `label`"),
        ({"text": "label", "intent": "label"}, "two columns are named `label`"),
    ]
    for columns, part in cases:
        with pytest.raises(DataError) as caught:
            load_data(rows, columns=columns)
        check_message(caught.value, part)


def test_label_unseen_in_training(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("text,label\nfine,positive\nbad,negativ\n")
    with pytest.raises(DataError) as caught:
        load_data(path, classes=["negative", "positive"])
    check_message(caught.value, str(path), "row 2", "`negativ` was not seen in training", "did you mean `negative`")


def test_half_a_label_column_is_a_mistake_even_where_labels_may_be_absent():
    with pytest.raises(DataError, match="row 2"):
        load_data([{"text": "a", "label": 1}, {"text": "b"}], require_labels=False)


def test_unlabelled_test_set_and_unknown_task_part():
    with pytest.raises(DataError, match="no column `label`"):
        load_data([{"text": "a"}])
    with pytest.raises(DataError, match=re.escape("did you mean")):
        load_data("digits/trian")
