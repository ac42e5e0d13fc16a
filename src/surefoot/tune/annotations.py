"""What the data say of their texts beside the class, as tokens: names of classes, answers, entities, pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from surefoot.data.examples import Examples
from surefoot.embed.modules import check_no_modules
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.models.processor import TextProcessor
from surefoot.tune.answers import Answers
from surefoot.tune.entities import Entities
from surefoot.tune.pairs import Pairs

if TYPE_CHECKING:
    from surefoot.models.processor import Encoded

NEEDED = {
    "label_texts": "the labels as texts",
    "answers": "answers",
    "entities": "entities",
    "pairs": "pairs",
    "texts": "texts",
}


def annotate(
    needs: frozenset[str], model: Model, train: Examples, encoded: Encoded, *, max_length: int | None = None
) -> dict[str, Any]:
    """The fields `label_inputs`, `answers`, `entities`, `pairs` and `texts` of a Context, each where an objective needs it.

    max_length: tokens read of a pair's texts. Raises RecipeError for a model that does not read text, or data without
    entities or pairs.
    """
    found: dict[str, Any] = {}
    for need, what in NEEDED.items():
        if need in needs and not isinstance(model.processor, TextProcessor):
            raise RecipeError(f"an objective needs {what}, and this model does not read text: leave it out")
    if "label_texts" in needs:
        found["label_inputs"] = _label_inputs(model, train)
    if "answers" in needs:
        found["answers"] = Answers.of(model, train)
    if "entities" in needs:
        found["entities"] = Entities.of(model, train, encoded)
    if "pairs" in needs:
        check_no_modules(model)
        found["pairs"] = Pairs.of(model, train, max_length=max_length)
    if "texts" in needs:
        found["texts"] = [str(text) for text in train.inputs]
    return found


def _label_inputs(model: Model, train: Examples) -> dict[str, Tensor]:
    texts = train.label_texts or train.classes
    encoded = model.processor.encode(list(texts))
    return {name: value.to(model.device) for name, value in encoded.collate(np.arange(len(texts))).items()}
