"""Score a model on one labelled set."""

from __future__ import annotations

from surefoot.assess.metrics import Metrics, evaluate_logits
from surefoot.data.examples import Examples
from surefoot.errors import ModelError
from surefoot.models.model import Model
from surefoot.models.predict import Prediction, encode_inputs, predict
from surefoot.progress import Progress, Silent


def evaluate(
    model: Model, examples: Examples, *, progress: Progress | None = None, label: str = "evaluate"
) -> tuple[Prediction, Metrics]:
    """Predict and score a set whose labels are among the model's classes; sentences of one document count as one.

    Raises ModelError for a model without classes, DataError for a label that training never saw.
    """
    if not model.classes:
        raise ModelError(f"`{model.name}` has no classes: tune it first, or give the folder of a run")
    examples = examples.with_classes(model.classes)
    if examples.labels is None:
        raise ModelError(f"{examples.source}: no labels to compare with: add a `label` column")
    encoded = encode_inputs(model, examples.inputs, examples.modality, source=examples.source)
    advance = (progress or Silent()).start(label, len(examples))
    prediction = predict(model, encoded, advance=advance)
    return prediction, evaluate_logits(prediction.logits, examples.labels, clusters=examples.document)
