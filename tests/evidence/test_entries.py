"""Every registered method has an entry, whose track exists, and whose mechanism runs: on a tiny model, here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from conftest import BAD, GOOD, examples
from small_pairs import TinyFewShot, TinyPairs
from surefoot.data.examples import Examples
from surefoot.errors import AssetError
from surefoot.evidence import assembling, attacking, wording
from surefoot.evidence.classification import Classification, World
from surefoot.evidence.embedding import opened
from surefoot.evidence.entry import Arm, Entry, entries
from surefoot.evidence.quantities import READ, described
from surefoot.evidence.results import read_result
from surefoot.evidence.track import Track, load_track, track_names
from surefoot.evidence.tracks import search
from surefoot.evidence.tracks.definitions import Definitions
from surefoot.evidence.tracks.domains import DOMAINS, Domains
from surefoot.evidence.tracks.few_shot import FewShot
from surefoot.evidence.tracks.pairs import Pairs
from surefoot.evidence.tracks.sts import RECIPE, SentenceSimilarity
from surefoot.evidence.tracks.tasks import Tasks
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.registry import get, methods
from surefoot.tune import smaller
from surefoot.tune.recipe import Recipe
from tiny_models import save_gpt2, save_llama

ENTRIES = list(entries().values())
#: The first takes a minute and Cranfield; with fewer documents in tests/search/test_path.py. The second acts on logits beyond
#: ten, which the tiny model has none of. The last ones ask a language model.
APART = {
    "strategy-path",
    "objective-acls",
    "shift-paraphrase",
    "pairs-enterprise",
    "pairs-abstract_description",
    "word_vectors-disambiguated_skipgram",
    "word_vectors-scope",
}
#: What counts examples, chooses among heads, or acts on synonyms, of which the tiny vocabulary has none: both arms run,
#: and may say the same.
ALIKE = {
    "attack-auto_attack",
    "attack-pgd",
    "attack-word_substitution",
    "ensemble-adaptive_smoothing",
    "ensemble-certified_ranking",
    "ensemble-efficiently_robustify",
}
#: Analyses and benchmarks are instruments: they change no model, and are checked against closed forms. Importance
#: weights are for regressions, which no track has.
WITHOUT = {"importance", "benchmark", "analysis"}
METHODS = [(method.kind, method.name) for method in methods() if method.kind not in WITHOUT]

#: Those whose arms run here: all that have no committed result, which shows that they run for real, and of the others every
#: third, or with SUREFOOT_EVERY_ENTRY=1 all: three hundred take minutes.
MEASURED = [
    entry
    for number, entry in enumerate(each for each in ENTRIES if each.key not in APART)
    if number % 3 == 0 or os.environ.get("SUREFOOT_EVERY_ENTRY") or read_result(entry.kind, entry.name) is None
]


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
        train = examples(48, seed, group=groups, entities=_telling(examples(48, seed).inputs))
        tests = {name: examples(32, 100 + seed + number) for number, name in enumerate(("home", "away", "far"))}
        true = np.asarray(train.labels).copy()
        true[::3] = 1 - true[::3]
        return World(self.model, train, tests, "home", examples(64, 900 + seed), true_labels=true)


class TinyShifted(Tiny):
    """The same sentences with what shifts of texts look for: negations, contractions, names."""

    name: ClassVar[str] = "tiny_shifted"

    def world(self, seed: int) -> World:
        world = super().world(seed)
        more = "I do not know why Mary isn't in London, but John said: I am sure it's a good modern story!"
        home = replace(world.tests["home"], inputs=[f"{text} {more}" for text in world.tests["home"].inputs])
        return replace(world, tests={**world.tests, "home": home})


def _telling(texts: list[str]) -> np.ndarray:
    """The telling word of each sentence, as its entity."""
    found = np.empty(len(texts), dtype=object)
    for row, text in enumerate(texts):
        place = next(each for each in re.finditer(r"\w+", text) if each.group() in {*GOOD, *BAD})
        found[row] = (place.span(),)
    return found


class TinyAnswers(Tiny):
    """A two-layer GPT-2 on the same sentences, for what needs a language model."""

    name: ClassVar[str] = "tiny_answers"


class TinyImages(Tiny):
    """A convolution on dark and bright pictures, for what needs pixels."""

    name: ClassVar[str] = "tiny_images"
    recipe: ClassVar[Mapping[str, Any]] = {**Tiny.recipe, "selection": "all", "head": "random"}

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [Pixels(), nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(Model.from_module(nn.Sequential(*layers), dim=8, classes=("dark", "bright")))

    def world(self, seed: int) -> World:
        sets = []
        for number, count in enumerate((48, 32, 32, 64)):
            labels = np.arange(count) % 2
            noise = np.random.default_rng([seed, number]).uniform(0, 0.6, (count, 16, 16, 3))
            pixels = (noise + 0.3 * labels[:, None, None, None]).astype(np.float32)
            sets.append(Examples(pixels, labels, ("dark", "bright"), modality="features", source=f"tiny/{number}"))
        return World(self.model, sets[0], {"home": sets[1], "away": sets[2]}, "home", sets[3])


class TinyTasks(Tasks):
    """Four tasks of two classes on the same sentences: which kind of word they hold, and three made-up readings of it."""

    name: ClassVar[str] = "tiny_tasks"

    def __init__(self, model: Model) -> None:
        self.start = deepcopy(model)
        self.start.precision = "float32"

    def model(self) -> Model:
        return self.start

    def run(self, arm: Arm, **options: Any) -> dict[str, float]:
        few = {"steps": 10, "examples": 12}
        if arm.merge and not few.keys().isdisjoint(arm.merge):
            fewer = {key: few.get(key, value) for key, value in arm.merge.items()}
            arm = arm.model_copy(update={"merge": fewer})
        if "layers" in arm.recipe.get("selection", {}):
            arm = arm.model_copy(update={"recipe": {"selection": {**arm.recipe["selection"], "layers": 1}}})
        return super().run(arm, **options)

    def recipe(self) -> Recipe:
        return Recipe(**{**Tiny.recipe, "optimizer": {"name": "adamw", "lr": 5e-3}})

    def names(self) -> list[str]:
        return ["one", "two", "three", "four"]

    def sets(self, name: str, seed: int) -> tuple[Examples, Examples, Examples]:
        number = self.names().index(name)
        found = []
        for count, offset in ((48, 0), (24, 100), (24, 200)):
            each = examples(count, 10 * number + offset + seed)
            longer = np.array([len(text.split()) > 9 for text in each.inputs]).astype(np.int64)
            labels = np.asarray(each.labels)
            found.append(replace(each, labels=[labels, 1 - labels, longer, labels ^ longer][number]))
        return found[0], found[1], found[2]


class TinySentences(SentenceSimilarity):
    """A random two-layer BERT on the same sentences, rated at random."""

    name: ClassVar[str] = "tiny_sentences"
    pairs: ClassVar[int] = 24
    recipe: ClassVar[Mapping[str, Any]] = {**RECIPE, "optimizer": {"name": "adamw", "lr": 1e-2}}

    def __init__(self, folder: Path, causal: Path | None = None) -> None:
        self.folder, self.causal = folder, causal

    def model(self, how: Mapping[str, Any], folder: Path | str = "minilm") -> Model:
        """The Llama where SmolLM2 would be."""
        return opened({"pool": how.get("pool")}, self.causal if "model" in how else self.folder)

    def run(self, arm: Arm, **options: Any) -> dict[str, float]:
        less = {"layers": 1, "dim": 8}
        if arm.embedding is not None:
            fewer = {key: less.get(key, value) for key, value in arm.embedding.items()}
            arm = arm.model_copy(update={"embedding": fewer})
        return super().run(arm, **options)

    @cached_property
    def rated(self) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        parts = [(2012, "one.test"), (2012, "two.train"), (2013, "one.test")]
        rows = [(year, subset, float(rng.integers(6))) for year, subset in parts for _ in range(30)]
        found = pd.DataFrame(rows, columns=["year", "subset", "score"])
        return found.assign(sentence1=examples(90, 1).inputs, sentence2=examples(90, 2).inputs)

    def start(self, store: Path) -> Path:
        return self.folder

    def unlabelled(self, seed: int) -> Examples:
        return Examples(examples(256 + 128, 10 + seed).inputs, None, (), source="tiny")


class TinyDefinitions(TinySentences):
    """The same, two sentences an entry."""

    name: ClassVar[str] = "tiny_definitions"

    def unlabelled(self, seed: int) -> Examples:
        found = super().unlabelled(seed)
        labels = np.arange(len(found)) // 2
        return replace(found, labels=labels, classes=tuple(f"entry {i}" for i in range(labels.max() + 1)))


class TinyDomains(Domains):
    """Sixteen pairs of each domain, whose second sentence is drawn without looking; MiniLM itself, which knows the domains."""

    name: ClassVar[str] = "tiny_domains"

    @cached_property
    def pairs(self) -> dict[str, dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]]]:
        rows = [list(zip(examples(16, seed).inputs, examples(16, seed + 1).inputs, strict=True)) for seed in range(3)]
        return {domain: dict.fromkeys(("train", "test"), (rows[i], rows[i - 1])) for i, domain in enumerate(DOMAINS)}


class TinyStream(TinyImages):
    """The same with batch norm, and pictures in changing light away, for what adapts to streams."""

    name: ClassVar[str] = "tiny_stream"
    recipe: ClassVar[Mapping[str, Any]] = {
        **TinyImages.recipe,
        "optimizer": {"name": "adamw", "lr": 2e-2},
        "epochs": 4,
    }

    def __init__(self) -> None:
        super().__init__()
        self.model.backbone.insert(2, nn.BatchNorm2d(8))  # type: ignore[operator]

    def world(self, seed: int) -> World:
        world = super().world(seed)
        away = world.tests["away"]
        train = world.train.take([row for row in range(48) if row % 4 != 1])  # a third less of one class
        light = np.random.default_rng(seed).uniform(-0.2, 0.3, (len(away), 1, 1, 1))
        shown = replace(away, inputs=np.float32(away.inputs + light))
        return replace(world, train=train, tests={**world.tests, "away": shown})


class Pixels(nn.Module):
    """(B, H, W, C) to (B, C, H, W)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2)


@pytest.fixture(autouse=True, scope="module")
def _fewer_documents() -> Iterator[None]:
    """Retrieval by strategies and by word vectors runs on its own track, on few of its documents; vectors are narrow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FUNCTIONS", 10)
        patch.setattr(wording, "DOCUMENTS", 30)
        patch.setattr(attacking, "ATTACKED", 12)
        patch.setattr(assembling, "REWORDED", 4)
        patch.setattr(smaller, "NARROWEST", 8)  # the tiny vectors are narrower than that
        yield


@pytest.fixture(scope="module")
def tiny(tiny_bert: Model) -> Tiny:
    return Tiny(tiny_bert)


@pytest.fixture(scope="module")
def tiny_answers(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> TinyAnswers:
    return TinyAnswers(load(save_gpt2(tmp_path_factory.mktemp("gpt2"), bert_folder)))


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
        if isinstance(track, Classification) and not (arm.estimator or arm.prior or arm.shift or arm.reading):
            track.recipe_of(arm)
    assert entry.arm not in (entry.against, entry.without)


@pytest.mark.parametrize("entry", MEASURED, ids=lambda entry: entry.key)
def test_a_mechanism_is_measured_with_and_without(
    entry: Entry, tiny: Tiny, tiny_answers: TinyAnswers, bert_folder: Path, tmp_path_factory: Any
) -> None:
    name = entry.mechanism.quantity
    track = load_track(entry.track)
    # What plays on a track of its own plays there; everything else trains on the tiny one.
    place = _place(track, entry.arm, tiny) if isinstance(track, Classification) else track
    place = tiny_answers if _needs(entry.arm, "causal") else place
    if isinstance(track, SentenceSimilarity) and (entry.arm.recipe or entry.arm.embedding):
        causal = "model" in (entry.arm.embedding or {})
        place = TinySentences(
            bert_folder, save_llama(tmp_path_factory.mktemp("llama"), bert_folder) if causal else None
        )
    place = TinyDefinitions(bert_folder) if isinstance(track, Definitions) else place
    place = TinyDomains() if isinstance(track, Domains) else place
    place = TinyTasks(tiny.model) if isinstance(track, Tasks) else place
    place = TinyPairs(tiny.model) if isinstance(track, Pairs) else place
    place = TinyFewShot(tiny.model) if isinstance(track, FewShot) else place
    for arm in (entry.arm, entry.without):
        found = _run(place, arm, name, tmp_path_factory)
        assert math.isfinite(found[name])
        assert found["seconds"] >= 0
    first, second = (_run(place, arm, name, tmp_path_factory) for arm in (entry.arm, entry.without))
    # One arm's quantity moved: what is called its mechanism sees the method at all.
    assert first[name] != second[name] or entry.key in ALIKE


def _place(track: Track, arm: Arm, tiny: Tiny) -> Track:
    if arm.adapt is not None:
        return TinyStream()
    if arm.shift is not None and get("shift", arm.shift["name"]).make.reads == "text":
        return TinyShifted(tiny.model)
    return TinyImages() if (track.name == "images" and (arm.ensemble or arm.attack)) or _needs_pixels(arm) else tiny


def _needs(arm: Arm, need: str) -> bool:
    return any(need in get("objective", name).make.needs for name in arm.recipe.get("objectives", {}))


def _needs_pixels(arm: Arm) -> bool:
    return arm.shift is not None or any(
        "pixels" in get("objective", name).make.needs for name in arm.recipe.get("objectives", {})
    )


_known: dict[tuple[str, str, str], dict[str, float]] = {}


def _run(track: Track, arm: Arm, quantity: str, tmp_path_factory: Any) -> dict[str, float]:
    key = (track.name, arm.model_dump_json(), quantity)
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
