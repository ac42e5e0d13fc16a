"""The whole search on a two-layer BERT: the same bytes after a kill, an answer when stopped, any number of classes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_search import examples, search
from torch import nn

import surefoot
from command_line import one_thread
from surefoot.data.examples import Examples
from surefoot.errors import DataError, RecipeError
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.search.clock import Clock
from surefoot.search.journal import Entry

#: A search in another process that dies while it is told of a trial, as by a power cut.
KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from small_search import search
from command_line import one_thread
def die(entries, clock):
    if len(entries) == {at}:
        os._exit(9)
with one_thread():
    search({model!r}, {out!r}, after=die)
"""


@pytest.fixture(autouse=True)
def _quiet():  # type: ignore[no-untyped-def]
    with one_thread():
        yield


def shipped(folder: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in sorted((folder / "model").rglob("*"))
        if each.is_file() and each.suffix == ".safetensors"
    }


def test_a_killed_search_ends_with_the_same_bytes(bert_folder: Path, tmp_path: Path) -> None:
    whole = search(str(bert_folder), tmp_path / "whole" / "run")
    for at in (1, 7):
        out = tmp_path / f"killed-{at}" / "run"
        code = KILLED.format(tests=str(Path(__file__).parent), at=at, model=str(bert_folder), out=str(out))
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        died = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert died.returncode == 9, died.stderr
        assert (out / "model" / "model.safetensors").is_file(), "there is a model from the first trial on"
        again = search(str(bert_folder), out)
        assert [entry.value for entry in again.trials] == [entry.value for entry in whole.trials]
        assert again.answer.as_json() == whole.answer.as_json()
        assert shipped(out) == shipped(tmp_path / "whole" / "run")


def test_the_baselines_come_first_and_nothing_is_worse_by_the_rule(bert_folder: Path) -> None:
    found = search(str(bert_folder))
    assert [entry.attrs["name"] for entry in found.trials[:6]] == [
        "linear_probe",
        "lp_ft",
        "wise_ft",
        "zero_head",
        "lp_ft",
        "fine_tune",
    ]
    assert all(entry.params == {} for entry in found.trials[:6])
    assert all("lr" in entry.params for entry in found.trials[6:] if entry.state != "failed")
    scores = found.answer.choice.scores
    assert scores[found.answer.choice.name] == min(scores.values())
    assert set(found.answer.nested["versus"]) == {"linear_probe", "lp_ft", "wise_ft"}
    assert set(found.corrected) == {"short"}


def test_an_interrupt_gives_an_answer(bert_folder: Path, tmp_path: Path) -> None:
    def stop(entries: list[Entry], clock: Clock) -> None:
        if len(entries) == 4:
            raise KeyboardInterrupt

    found = search(str(bert_folder), tmp_path / "run", after=stop)
    assert len(found.trials) == 4
    assert any("stopped after 4 trials" in note for note in found.notes)
    assert load(tmp_path / "run").classes == ("bad", "good")
    more = search(str(bert_folder), tmp_path / "run")
    assert len(more.trials) == 8


def test_a_time_limit_gives_an_answer(bert_folder: Path) -> None:
    found = search(str(bert_folder), trials=None, time_limit=0.5)
    assert len(found.trials) >= 3
    assert found.answer.targets["short"].forecast.value > 0


def test_more_classes_features_and_a_model_without_layers() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 6)) * 2

    def points(count: int, seed: int, *, shift: float = 0.0) -> Examples:
        draw = np.random.default_rng(seed)
        labels = draw.integers(0, 4, count)
        inputs = (centres[labels] + draw.standard_normal((count, 6)) + shift).astype(np.float32)
        return Examples(inputs, labels, tuple("abcd"), modality="features", source=f"points {seed}")

    torch.manual_seed(0)
    model = Model.from_module(nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh()), dim=16)
    found = surefoot.tune(
        model,
        points(120, 1),
        judge={"near": points(40, 2, shift=0.3)},
        tests={"far": points(80, 3, shift=0.6)},
        trials=6,
        epochs=1,
    )
    assert any("one judge" in note for note in found.notes)
    assert found.metrics["far"].accuracy.value > 0.5


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"starts": ("flyp",), "bank": ("nonsense",)}, RecipeError, "nonsense"),
        ({"trials": 2}, RecipeError, "trials"),
        ({"time_limit": "5x"}, RecipeError, "5x"),
        ({"rule": "luck"}, RecipeError, "rule"),
    ],
)
def test_bad_options_are_refused(bert_folder: Path, changes: dict[str, object], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        search(str(bert_folder), **changes)


def test_bad_data_is_refused_before_anything_is_written(bert_folder: Path, tmp_path: Path) -> None:
    model, out = load(str(bert_folder)), tmp_path / "run"
    with pytest.raises(DataError, match="judge"):
        surefoot.tune(model, examples(90, 3), judge={}, out=out)
    with pytest.raises(DataError, match="20"):
        surefoot.tune(model, examples(90, 3), judge={"shop": examples(10, 4)}, out=out)
    with pytest.raises(DataError, match="label"):
        surefoot.tune(model, examples(90, 3), judge={"shop": examples(40, 4, labelled=False)}, out=out)
    assert not out.exists()
