"""`intents`: which of ten services a query is for, with intents never seen in training; and queries out of scope."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from surefoot import load, load_task
from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import split_of, stored
from surefoot.evidence.classification import Classification, World

TRAIN_SIZE, TEST_SIZE, OUTSIDE = 500, 400, 400


class Intents(Classification):
    """MiniLM, LP-FT of the two top layers on 500 queries of CLINC150, two epochs."""

    name = "intents"
    summary = "services of CLINC150 (MiniLM): 90 intents seen, 60 others away, 400 queries out of scope"
    recipe: ClassVar[Mapping[str, Any]] = {"selection": {"name": "top_layers", "k": 2}, "epochs": 2, "max_length": 32}

    def check(self) -> None:
        stored("clinc150")

    def world(self, seed: int) -> World:
        task = load_task("clinc150_domains", seed=seed, train_size=TRAIN_SIZE, test_size=TEST_SIZE)
        assert task.validation is not None
        outside = load_task("clinc150", seed=seed).pools["out_of_scope"]
        return World(
            load("minilm", max_length=32),
            _with_entities(task.train),
            task.tests,
            task.home,
            task.validation,
            outside=replace(outside.take(range(OUTSIDE)), classes=task.train.classes, label_texts=None),
        )

    def unlabelled(self, world: World) -> list[str]:
        """All training queries, of the 60 other intents too: their labels are what is rare."""
        return list(split_of("clinc150", "train", columns={"domain": "label"}, in_scope=True).inputs)


def _with_entities(train: Examples) -> Examples:
    """With the words that a query shares with the name of its intent as entities ("transfer" and "money"), for what
    needs some: two in three queries have one, and no other label of a token is to be had."""
    whole = split_of("clinc150", "train", columns={"domain": "label", "intent": "group"}, in_scope=True)
    assert whole.group is not None
    intents = dict(zip(whole.inputs, whole.group, strict=True))
    entities = np.empty(len(train), dtype=object)
    for row, text in enumerate(train.inputs):
        names = {word for word in str(intents[text]).split("_") if len(word) > 2}
        entities[row] = tuple(each.span() for each in re.finditer(r"\w+", text) if each.group().lower() in names)
    return replace(train, entities=entities)


TRACK = Intents()
