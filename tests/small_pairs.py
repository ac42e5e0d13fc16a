"""The tracks of pairs on a two-layer BERT and sentences with one telling word."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from conftest import examples
from surefoot.data.examples import Examples
from surefoot.data.pairs.negation import negated
from surefoot.evidence import paired
from surefoot.evidence.entry import Arm
from surefoot.evidence.reading import embed
from surefoot.evidence.tracks.few_shot import FewShot
from surefoot.evidence.tracks.pairs import Pairs
from surefoot.models.model import Model
from surefoot.tune import few_shot


class TinyPairs(Pairs):
    """Pairs of a made-up corpus; what is asked of a model is how like it finds sentences and their negations."""

    name: ClassVar[str] = "tiny_pairs"

    def __init__(self, model: Model) -> None:
        self.start = model

    def model(self) -> Model:
        return self.start

    def run(self, arm: Arm, **options: Any) -> dict[str, float]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paired, "CORPORA", dict.fromkeys(paired.CORPORA, _corpus) | {"described": _described})
            recipe = {"optimizer": {"name": "adamw", "lr": 1e-2}, "batch_size": 6, **arm.recipe} if arm.pairs else {}
            recipe = recipe if "epochs" not in recipe else arm.recipe
            recipe = (
                recipe | {"selection": "all", "max_length": 32, "epochs": recipe.get("epochs", 1)} if arm.pairs else {}
            )
            return super().run(arm.model_copy(update={"recipe": recipe}), **options)

    def asked(self, model: Model, seed: int) -> dict[str, float]:
        one = [each["text"] for each in _corpus()]
        two = [negated(each) or each for each in one]
        return {"negation_cosine": float((embed(model, one) * embed(model, two)).sum(1).mean())}


class TinyFewShot(FewShot):
    """Eight sentences of either class."""

    name: ClassVar[str] = "tiny_few_shot"

    def __init__(self, model: Model) -> None:
        self.start = model

    def model(self) -> Model:
        return self.start

    def run(self, arm: Arm, **options: Any) -> dict[str, float]:
        quick = {"epochs": 1, "optimizer": {"name": "adamw", "lr": 1e-3}}
        with pytest.MonkeyPatch.context() as patch:
            for name in ("SETFIT", "LABELS"):
                patch.setattr(few_shot, name, getattr(few_shot, name).changed(**quick))
            return super().run(arm, **options)

    def data(self, seed: int) -> tuple[Examples, dict[str, Examples]]:
        return examples(16, seed), {"home": examples(32, 100), "away": examples(32, 200)}


def _corpus() -> list[dict[str, Any]]:
    """Documents with all that makers read, each linked to the two before."""
    found = []
    for row, text in enumerate(examples(24, 7).inputs):
        named = [f"d{row - back}" for back in (1, 2) if row >= back]
        body = f"The story was {text} and long. A town is {text}."
        found.append(
            {"id": f"d{row}", "title": f"the {text}", "summary": f"a film about {text}", "text": body}
            | {"paraphrase": f"{text} was the story", "links": named, "cites": named}
        )
    return found


def _described() -> list[dict[str, Any]]:
    rows = _corpus()
    others = np.roll(np.arange(len(rows)), 5)
    return [
        {"anchor": row["text"], "positive": row["title"], "negative": rows[other]["title"]}
        for row, other in zip(rows, others, strict=True)
    ]
