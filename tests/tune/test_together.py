"""Any two objectives, any optimizer, selection and reducer that make sense together train together.

A covering array over the registry: every two objectives, and every pair of an objective, an optimizer, a selection and a
reducer, come together in one of its rows at least. What cannot be combined says so before the first step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surefoot import Recipe
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.registry import get, methods
from surefoot.tune.optimizer import Wrapper
from tiny_models import save_gpt2

OBJECTIVES = [method.name for method in methods("objective")]
OPTIMIZERS = methods("optimizer")
#: One of each in a row. A wrapper around an optimizer is two parts, so that half as many rows cover every pair.
FACTORS = {
    "wrapper": [method.name for method in OPTIMIZERS if issubclass(method.make, Wrapper)],
    "optimizer": [method.name for method in OPTIMIZERS if not issubclass(method.make, Wrapper)],
    "selection": [method.name for method in methods("selection")],
    "reducer": [method.name for method in methods("reducer")],
}
#: Objectives of a row, and drawn candidates of which the row that covers most is taken.
TOGETHER, CANDIDATES = 4, 40
KINDS = ("objective",) * TOGETHER + tuple(FACTORS)
Row = tuple[str, ...]


def pairs(row: Row) -> set[frozenset[tuple[str, str]]]:
    """What a row covers: its objectives, a wrapper, an optimizer, a selection, a reducer, two by two."""
    return {frozenset(pair) for pair in combinations(zip(KINDS, row, strict=True), 2)}


def every_pair() -> set[frozenset[tuple[str, str]]]:
    """All that has to be covered: any two parts but two of a kind of which a recipe has one."""
    names = [("objective", name) for name in OBJECTIVES]
    names += [(kind, name) for kind, each in FACTORS.items() for name in each]
    return {frozenset(pair) for pair in combinations(names, 2) if pair[0][0] != pair[1][0] or pair[0][0] == "objective"}


def covering_array(seed: int = 0) -> list[Row]:
    """Rows that cover every pair, made greedily: of some draws that hold an uncovered pair, the one that covers most."""
    rng, todo, rows = random.Random(seed), every_pair(), list[Row]()
    while todo:
        wanted = min(todo, key=sorted)
        found = max((draw(rng, wanted) for _ in range(CANDIDATES)), key=lambda row: len(pairs(row) & todo))
        rows.append(found)
        todo -= pairs(found)
    return rows


def draw(rng: random.Random, wanted: frozenset[tuple[str, str]]) -> Row:
    """A row that holds the pair."""
    fixed = [name for kind, name in sorted(wanted) if kind == "objective"]
    others = rng.sample([name for name in OBJECTIVES if name not in fixed], TOGETHER - len(fixed))
    given = dict(pair for pair in wanted if pair[0] != "objective")
    return *fixed, *others, *(given.get(kind) or rng.choice(each) for kind, each in FACTORS.items())


ROWS = covering_array()


#: One step of an attack, or layer of a decoder, shows as much as ten.
FEW = {"c_advul": {"steps": 1}, "c_advipo": {"steps": 1}, "denosent": {"layers": 1}}


def recipe_of(objectives: Sequence[str], wrapper: str, optimizer: str, selection: str, reducer: str) -> dict[str, Any]:
    spec = {"name": wrapper, "inner": {"name": optimizer, "lr": 1e-4}}
    small = {
        "top_layers": {"k": 1},
        "robust_critical": {"epochs": 1, "examples": 6},
        "routed_experts": {"domains": ["good", "bad"]},
    }.get(selection, {})
    return {
        "objectives": {name: {"weight": 0.1} | FEW.get(name, {}) for name in objectives},
        "optimizer": spec,
        "selection": {"name": selection} | small,
        "reducer": reducer,
        "epochs": 0.5,
        "batch_size": 6,
        "precision": "float32",
    }


@pytest.fixture(scope="module")
def examples() -> Examples:
    texts = ["a good film", "a bad film", "good good story", "the bad acting was bad", "good", "bad"] * 2
    groups = np.array(["short" if len(text) < 11 else "long" for text in texts])
    classes = ("negative", "positive")
    entities = np.empty(12, dtype=object)
    entities[:] = [((0, 4),)] * 12
    others = np.array(texts[1:] + texts[:1], dtype=object)
    pairs = {"positive": others, "negative": others[::-1], "score": np.linspace(0, 1, 12)}
    return Examples(texts, np.array([1, 0] * 6), classes, label_texts=classes, group=groups, entities=entities, **pairs)


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Model:
    return load(save_gpt2(tmp_path_factory.mktemp("gpt2"), bert_folder))


class Counting:
    """Progress that counts what was trained on."""

    def __init__(self) -> None:
        self.trained = 0

    def start(self, label: str, total: int) -> Any:
        def advance(count: int) -> None:
            self.trained += count if label == "custom" else 0

        return advance


def trains(parts: dict[str, Any], model: Model, examples: Examples) -> bool:
    """Whether the recipe trains, to finite weights; if not, it was refused before the first step."""
    seen, refused = Counting(), None
    try:
        run = Recipe(**parts).fit(model, examples, seed=0, progress=seen)
    except RecipeError as error:
        refused = str(error)
    if refused is not None:
        assert ":" in refused, f"it does not say what to do: {refused}"
        assert not seen.trained, f"refused after training had begun: {refused}"
        return False
    assert seen.trained
    assert all(torch.isfinite(each).all() for each in run.model.parameters())
    return True


def test_every_pair_is_in_a_row() -> None:
    assert set().union(*map(pairs, ROWS)) == every_pair()


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_they_train_together_or_say_why_not(row: Row, tiny_bert: Model, tiny_gpt2: Model, examples: Examples) -> None:
    objectives, rest = row[:TOGETHER], row[TOGETHER:]
    causal = any("causal" in get("objective", name).make.needs for name in objectives)
    model = tiny_gpt2 if causal else tiny_bert
    if trains(recipe_of(objectives, *rest), model, examples):
        return
    # One of them cannot be with another: the rest of the row is still to be seen.
    alone = [name for name in objectives if trains(recipe_of([name], *rest), model, examples)]
    together = [pair for pair in combinations(alone, 2) if trains(recipe_of(pair, *rest), model, examples)]
    assert together or len(alone) < 2, "each trains alone, and no two together"
