"""Every registered method has an entry, whose track exists, and whose mechanism runs: on a tiny model, here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from conftest import examples
from surefoot.errors import AssetError
from surefoot.evidence.classification import Classification, World
from surefoot.evidence.entry import Arm, Entry, entries
from surefoot.evidence.quantities import READ, described
from surefoot.evidence.track import Track, load_track, track_names
from surefoot.evidence.tracks import search
from surefoot.models.model import Model
from surefoot.registry import methods

ENTRIES = list(entries().values())
#: Attacks are instruments: they change no model, and are checked against closed forms.
#: Takes a minute and Cranfield; with fewer documents in tests/search/test_path.py.
APART = {"strategy-path"}
METHODS = [(method.kind, method.name) for method in methods() if method.kind != "attack"]


class Tiny(Classification):
    """A two-layer BERT on sentences with one telling word; a third of the training labels are wrong."""

    name: ClassVar[str] = "tiny"
    recipe: ClassVar[Mapping[str, Any]] = {
        "selection": {"name": "top_layers", "k": 1},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "epochs": 1,
        "batch_size": 16,
        "precision": "float32",
    }
    family = tuple({"epochs": each} for each in (1, 2, 3, 4))

    def __init__(self, model: Model) -> None:
        self.model = model

    def world(self, seed: int) -> World:
        groups = np.array([f"{row % 2}" for row in range(48)])
        train = examples(48, seed, group=groups)
        tests = {name: examples(32, 100 + seed + number) for number, name in enumerate(("home", "away", "far"))}
        true = np.asarray(train.labels).copy()
        true[::3] = 1 - true[::3]
        return World(self.model, train, tests, "home", examples(64, 900 + seed), true_labels=true)


@pytest.fixture(autouse=True, scope="module")
def _fewer_documents() -> Iterator[None]:
    """Retrieval by strategies runs on its own track, on a tenth of its documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FUNCTIONS", 10)
        yield


@pytest.fixture(scope="module")
def tiny(tiny_bert: Model) -> Tiny:
    return Tiny(tiny_bert)


def test_every_method_has_its_entry() -> None:
    assert set(entries()) == set(METHODS)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_an_entry_can_run(entry: Entry) -> None:
    """Its track and quantity exist, and its arms are recipes that work."""
    assert entry.track in track_names()
    assert described(entry.mechanism.quantity)
    assert entry.claim.endswith(".")
    assert entry.settings.endswith(".")
    track = load_track(entry.track)
    for arm in (entry.arm, entry.against, entry.without):
        if isinstance(track, Classification) and not (arm.estimator or arm.prior):
            track.recipe_of(arm)
    assert entry.arm not in (entry.against, entry.without)


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each.key not in APART], ids=lambda entry: entry.key)
def test_a_mechanism_is_measured_with_and_without(entry: Entry, tiny: Tiny, tmp_path_factory: Any) -> None:
    name = entry.mechanism.quantity
    track = load_track(entry.track)
    # What plays on a track of its own plays there; everything else trains on the tiny one.
    place = tiny if isinstance(track, Classification) else track
    for arm in (entry.arm, entry.without):
        found = _run(place, arm, name, tmp_path_factory)
        assert math.isfinite(found[name])
        assert found["seconds"] >= 0
    first, second = (_run(place, arm, name, tmp_path_factory) for arm in (entry.arm, entry.without))
    # One arm's quantity moved: what is called its mechanism sees the method at all.
    assert first[name] != second[name]


_known: dict[tuple[str, str], dict[str, float]] = {}


def _run(track: Track, arm: Arm, quantity: str, tmp_path_factory: Any) -> dict[str, float]:
    key = (arm.model_dump_json(), quantity)
    if key not in _known:
        store: Path = tmp_path_factory.getbasetemp() / "family"
        asked = () if quantity in READ else (quantity,)
        try:
            _known[key] = track.run(arm, seed=0, quantities=asked, store=store)
        except AssetError as error:
            pytest.skip(str(error))
    return _known[key]


def test_the_tracks_say_what_they_are() -> None:
    for name in track_names():
        track = load_track(name)
        assert track.name == name
        assert track.summary
        assert track.metric
