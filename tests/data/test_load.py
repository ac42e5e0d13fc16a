"""Every source gives the same examples."""

import io
import json

import numpy as np
import pytest

from surefoot.data import Examples, check_training, concatenate, load_data, overlap
from surefoot.data.tasks import write_examples
from surefoot.errors import DataError

ROWS = [
    {"id": "a", "text": "a joy, really", "label": "positive", "domain": "movies", "group": 7, "weight": 1},
    {
        "id": "b",
        "text": 'two\nlines "quoted" \u2028 é',
        "label": "negative",
        "domain": "movies",
        "group": 8,
        "weight": 0.5,
    },
    {"id": "c", "text": "nul \0 inside", "label": "positive", "domain": "tweets", "group": 8, "weight": 0},
]


def write(tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    frame, path = pandas.DataFrame(ROWS), tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(ROWS))
    return path


def sources(tmp_path):
    pandas, arrow, datasets = (pytest.importorskip(name) for name in ("pandas", "pyarrow", "datasets"))
    yield "list", ROWS
    yield "DataFrame", pandas.DataFrame(ROWS, index=[5, 3, 1])
    yield "Table", arrow.Table.from_pylist(ROWS)
    yield "Dataset", datasets.Dataset.from_list([ROWS[2], *ROWS[:2]]).select([1, 2, 0])
    for suffix in (".parquet", ".csv", ".tsv", ".jsonl", ".json"):
        yield suffix, write(tmp_path, suffix)


def test_every_source_gives_the_same(tmp_path):
    prints = {}
    for name, source in sources(tmp_path):
        examples = load_data(source)
        prints[name] = examples.fingerprint()
        assert examples.inputs == [row["text"] for row in ROWS], name
        assert examples.classes == ("negative", "positive"), name
        assert examples.labels.tolist() == [1, 0, 1], name
        assert examples.labels.dtype == np.int64
        assert examples.ids.tolist() == ["a", "b", "c"], name
        assert examples.group.tolist() == ["7", "8", "8"], name
        assert examples.domain.tolist() == ["movies", "movies", "tweets"], name
        assert examples.weight.tolist() == [1, 0.5, 0], name
    assert len(prints) == 9
    assert len(set(prints.values())) == 1


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        ([1, 0, 10, 9], ("0", "1", "9", "10"), [1, 0, 3, 2]),
        (["1", "0", "10", "9"], ("0", "1", "9", "10"), [1, 0, 3, 2]),
        (["1.0", "0.0", "1e0", "0"], ("0", "1"), [1, 0, 1, 0]),
        ([1.0, 0.0, np.float32(1), "1"], ("0", "1"), [1, 0, 1, 1]),
        ([-1, 1, -1, 1], ("-1", "1"), [0, 1, 0, 1]),
        ([True, False, True, False], ("False", "True"), [1, 0, 1, 0]),
        ([" b", "a", "b ", "10"], ("10", "a", "b"), [2, 1, 2, 0]),
        (["none", "null", "NA", "none"], ("NA", "none", "null"), [1, 2, 0, 1]),
    ],
)
def test_labels_are_normalised_to_text(labels, classes, indices):
    examples = load_data([{"text": f"t{index}", "label": label} for index, label in enumerate(labels)])
    assert examples.classes == classes
    assert examples.labels.tolist() == indices


def test_columns_are_renamed_and_the_rename_wins():
    rows = [{"query": "hello", "intent": "greet", "label": 3}, {"query": "bye", "intent": "part", "label": 4}]
    examples = load_data(rows, columns={"query": "text", "intent": "label"})
    assert examples.inputs == ["hello", "bye"]
    assert examples.classes == ("greet", "part")


def test_byte_order_mark_and_blank_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufefftext,label\r\n\r\nhello,1\r\nbye,0\r\n\r\n".encode())
    assert load_data(path).inputs == ["hello", "bye"]
    lines = tmp_path / "a.jsonl"
    lines.write_bytes('\ufeff{"text": "hello", "label": 1}\r\n\r\n{"text": "bye", "label": 0}\r\n'.encode())
    assert load_data(str(lines)).inputs == ["hello", "bye"]


def test_unlabelled_data():
    rows = [{"text": "hello"}, {"text": "bye"}]
    for given in (rows, [{**row, "label": None} for row in rows]):
        examples = load_data(given, require_labels=False, classes=["x", "y"])
        assert examples.labels is None
        assert examples.classes == ("x", "y")


def test_hub_labels_keep_their_names_and_withheld_ones_are_missing():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    examples = load_data(datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features))
    assert [examples.classes[index] for index in examples.labels] == ["yes", "no"]
    withheld = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [-1, -1]}, features=features)
    assert load_data(withheld, require_labels=False).labels is None


def test_classes_of_a_model():
    examples = load_data([{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}], classes=["maybe", "yes", "no"])
    assert examples.labels.tolist() == [1, 2]
    assert examples.classes == ("maybe", "yes", "no")


def test_take_only_domain_and_concatenate():
    examples = load_data(ROWS)
    tweets = examples.only_domain("tweets")
    assert tweets.ids.tolist() == ["c"]
    both = concatenate([tweets, examples.take([0])])
    assert both.ids.tolist() == ["c", "a"]
    assert both.fingerprint() == examples.take(np.array([2, 0])).fingerprint()
    assert both.fingerprint() != examples.take([0, 2]).fingerprint()
    assert len(examples.take(np.array([], dtype=int))) == 0
    with pytest.raises(DataError, match="did you mean `tweets`"):
        examples.only_domain("tweet")


def test_overlap_counts_identical_inputs():
    a, b = load_data(ROWS), load_data([{"text": ROWS[0]["text"], "label": "x"}, {"text": "new", "label": "y"}])
    assert overlap(a, b) == 1
    assert overlap(b, a) == 1


def test_features(tmp_path):
    rows = [{"features": [0.5, 1.0], "label": 1}, {"features": [0.0, -1.0], "label": 0}]
    examples = load_data(rows)
    assert examples.modality == "features"
    assert examples.inputs.dtype == np.float32
    assert examples.inputs.tolist() == [[0.5, 1.0], [0.0, -1.0]]
    path = tmp_path / "a.csv"
    path.write_text('features,label\n"[0.5, 1.0]",1\n"[0, -1]",0\n')
    assert load_data(path).fingerprint() == examples.fingerprint()
    write_examples(examples, tmp_path / "a.parquet")
    assert load_data(tmp_path / "a.parquet").fingerprint() == examples.fingerprint()


def test_images_from_bytes_hub_cells_and_paths(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    images, cells = [], []
    for shade in (10, 200):
        image = image_module.fromarray(np.full((4, 6, 3), shade, dtype=np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        (tmp_path / f"{shade}.png").write_bytes(buffer.getvalue())
        images.append(image)
        cells.append(buffer.getvalue())
    kinds = {
        "bytes": cells,
        "hub": [{"bytes": cell, "path": None} for cell in cells],
        "image": images,
        "array": [np.asarray(image) for image in images],
    }
    loaded = [load_data([{"image": c, "label": i} for i, c in enumerate(kind)]) for kind in kinds.values()]
    table = tmp_path / "a.csv"
    table.write_text("image,label\n10.png,0\n200.png,1\n")
    loaded.append(load_data(table))
    assert {examples.modality for examples in loaded} == {"image"}
    assert len({examples.fingerprint() for examples in loaded}) == 1
    assert loaded[-1].inputs[1].size == (6, 4)
    assert loaded[-1].inputs[1].mode == "RGB"
    assert np.asarray(loaded[-1].take([1]).inputs[0]).max() == 200
    write_examples(loaded[-1], tmp_path / "a.parquet")
    assert load_data(tmp_path / "a.parquet").fingerprint() == loaded[0].fingerprint()


def test_hub_images(tmp_path):
    datasets, image_module = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    image_module.new("L", (3, 3), 7).save(tmp_path / "a.png")
    data = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")] * 2, "label": [0, 1]})
    examples = load_data(data.cast_column("image", datasets.Image()))
    assert np.asarray(examples.inputs[0]).tolist() == np.full((3, 3, 3), 7).tolist()


def test_training_check_and_examples_pass_through():
    examples = load_data(ROWS)
    check_training(examples)
    assert load_data(examples) is examples
    with pytest.raises(DataError, match="every row has the class `positive`"):
        check_training(examples.take([0, 2]))
    with pytest.raises(DataError, match="needs labels"):
        check_training(Examples(inputs=["a"], labels=None, classes=()))


def test_large_csv_is_quick_and_leaves_the_csv_module_as_it_was(tmp_path):
    import csv

    before = csv.field_size_limit()
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"sentence {n},{n % 2}\n" for n in range(20_000)) + "x" * 900_000 + ",1\n")
    assert len(load_data(path)) == 20_001
    assert csv.field_size_limit() == before
