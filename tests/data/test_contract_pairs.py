"""What every registered pair maker keeps to."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from surefoot.data.load import load_data
from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.pairs.writing import write_pairs
from surefoot.data.records import Records
from surefoot.errors import DataError, MissingExtra, RecipeError
from surefoot.registry import Method, methods
from surefoot.tune.build import build

#: Those that ask a language model run in test_pairs.py.
METHODS = [each for each in methods("pairs") if not each.make.slow]
every = pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
#: Of every maker's columns; texts with what breaks naive code.
ROWS: list[dict[str, Any]] = [
    {
        "id": name,
        "title": title,
        "text": text,
        "label": label,
        "skills": skills,
        "links": others,
        "cites": others,
    }
    for name, title, text, label, skills, others in [
        ("a", "On wings", "A wing will lift a plane. It is curved.\n\nThe tail steers, e.g. at Mach 2.", "air", ["flaps"], ["b", "c"]),
        ("b", "Of ships", "Ships are made of steel. They will float!\n\nHulls were wooden once.", "sea", ["keel", "mast"], ["a", "zz"]),
        ("c", "Naïve café 🙂", "Der Fluß is wide. 北京 is a city. It was cold?\n\nCoffee is “hot”; tea isn't.", "air", ["ﬁn"], []),
        ("d", "Empty", "  ", "sea", ["x"], ["a", "b", "c", "d"]),
        ("e", "Cars", "Cars can turn. He said so. We have gone.\n\nA road is long.", "land", ["wheel"], ["a", "b"]),
    ]
]  # fmt: skip


@cache
def maker(name: str) -> PairMaker:
    made: PairMaker = build("pairs", name)
    try:
        list(made(Records(ROWS)))
    except MissingExtra as error:
        pytest.skip(str(error))
    return made


def pairs(name: str, rows: list[dict[str, Any]] = ROWS, *, seed: int = 0) -> list[Pair]:
    return list(maker(name)(Records(rows), seed=seed))


@every
def test_pairs_are_texts_in_the_columns_that_are_promised(method: Method) -> None:
    found = pairs(method.name)
    assert found
    for pair in found:
        for name in ("anchor", "positive", "negative"):
            text = getattr(pair, name)
            assert (text is not None) == (name in method.make.gives)
            assert text is None or (text.strip() == text != "")
        assert (pair.score is not None) == ("score" in method.make.gives)
        assert pair.score is None or 0 <= pair.score <= 1
        assert pair.negative not in (pair.anchor, pair.positive)


@every
def test_the_same_seed_gives_the_same_and_rows_are_left_alone(method: Method) -> None:
    before = json.dumps(ROWS)
    assert pairs(method.name, seed=3) == pairs(method.name, seed=3)
    assert json.dumps(ROWS) == before


@every
def test_a_file_gives_what_memory_gives_and_the_trainer_reads_it(method: Method, tmp_path: Path) -> None:
    """Parquet and JSONL in, parquet, JSONL and CSV out: the same pairs, which `load_data` takes for training data."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf8")
    expected = pairs(method.name, seed=1)
    for source, target in (("in.parquet", "out.jsonl"), ("in.jsonl", "out.parquet"), ("in.parquet", "out.csv")):
        path = tmp_path / target
        count, shown = write_pairs(maker(method.name), Records(tmp_path / source), path, seed=1)
        assert (count, shown) == (len(expected), expected[:3])
        read = load_data(path)
        assert list(read.inputs) == [pair.anchor for pair in expected]
        for name in set(method.make.gives) - {"anchor"}:
            assert list(getattr(read, name)) == [getattr(pair, name) for pair in expected]
    count, _ = write_pairs(maker(method.name), Records(ROWS), tmp_path / "few.parquet", seed=1, most=1)
    assert count == 1
    assert load_data(tmp_path / "few.parquet").inputs == [expected[0].anchor]


@every
def test_what_cannot_be_read_is_said_and_nothing_is_written(method: Method, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(DataError, match="column"):
        write_pairs(maker(method.name), Records([{"nothing": "here"}]), out)
    empty = [{key: ("" if key in ("text", "title") else value) for key, value in row.items()} for row in ROWS]
    with pytest.raises(DataError, match="no pairs could be made"):
        write_pairs(maker(method.name), Records(empty), out)
    with pytest.raises(DataError, match="row 1"):
        write_pairs(maker(method.name), Records([{**ROWS[0], "text": 5, "title": 5}, *ROWS[1:]]), out)
    with pytest.raises(DataError, match="known"):
        write_pairs(maker(method.name), Records(ROWS), tmp_path / "out.txt")
    assert list(tmp_path.iterdir()) == []


@every
def test_it_says_what_it_is(method: Method) -> None:
    text = inspect.getdoc(method.make) or ""
    for said in ("anchor", "Raises", "Reference"):
        assert said in text
    assert method.papers
    assert set(method.make.gives) <= {"anchor", "positive", "negative", "score"}
    with pytest.raises(RecipeError, match="unknown option"):
        build("pairs", {"name": method.name, "no_such": 1})


RANDOM = [each for each in METHODS if each.name in ("ict", "bfs", "wlp", "co_citation", "setfit")]


@pytest.mark.parametrize("method", RANDOM, ids=lambda each: each.name)
def test_another_seed_gives_other_pairs(method: Method) -> None:
    assert any(pairs(method.name, seed=seed) != pairs(method.name, seed=0) for seed in range(1, 6))


ALONE = [each for each in METHODS if each.name in ("ict", "bfs", "co_occurrence", "cannot")]


@pytest.mark.parametrize("method", ALONE, ids=lambda each: each.name)
def test_the_pairs_of_a_record_depend_on_seed_and_number_alone(method: Method) -> None:
    """Whatever the records before it hold: rows can be changed without changing what others give."""
    first = pairs(method.name, seed=4)
    changed = pairs(method.name, [{**ROWS[0], "text": "", "title": ""}, *ROWS[1:]], seed=4)
    assert changed == first[len(first) - len(changed) :]
