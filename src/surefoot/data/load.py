"""`load_data`: one door for every source of examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.data import check
from surefoot.data.annotations import check_answers, check_entities, check_pairs
from surefoot.data.examples import Examples, Modality
from surefoot.data.images import check_images
from surefoot.data.read import read_file, read_memory
from surefoot.data.table import Table, input_column, missing_column, rated, rename
from surefoot.errors import DataError


def load_data(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    require_labels: bool | None = None,
) -> Examples:
    """Read and check examples.

    `source`: a path to .parquet, .csv, .tsv, .jsonl or .json (a list); a pandas DataFrame, a pyarrow Table, a
    `datasets.Dataset` or a list of dicts; or part of a known task, such as "reviews/movies/test".
    Columns: one of `text`, `image` (bytes, {"bytes", "path"}, or a path relative to the file) or `features` (a list of
    numbers); `label`; and if there, `domain`, `group`, `document`, `weight`, `id`, `answer` (what should follow the
    text) and `entities` (pairs [start, end] of characters). `columns` renames: {"intent": "label"}.
    Or pairs, which train an embedding: `anchor` and `positive`, and if there, `negative` (one that is hard to tell) and
    `score` (how alike they are, a number); `sentence1` and `sentence2` are read as anchor and positive.
    `classes`: a model's classes, onto which the labels are mapped. `require_labels`: whether they must be there; by
    default they must, except with pairs.

    Raises DataError, in one sentence with file, row and column, for anything that is not as it should be.
    """
    examples = source if isinstance(source, Examples) else _load(source, columns or {}, require_labels)
    if (examples.positive is None if require_labels is None else require_labels) and examples.labels is None:
        raise DataError(f"{examples.source}: no labels; add a column `label`")
    return examples if classes is None else examples.with_classes(classes)


def _load(source: Any, columns: Mapping[str, str], require_labels: bool | None) -> Examples:
    if isinstance(source, str | os.PathLike):
        from surefoot.data.tasks import is_task, load_part

        if isinstance(source, str) and is_task(source) and not Path(source).exists():
            return load_part(source)
        table = read_file(Path(source).expanduser())
    else:
        table = read_memory(source)
    table = rated(rename(table, columns))
    role = input_column(table, columns)
    labels, names = _labels(table, role != "anchor" if require_labels is None else require_labels)
    inputs, modality = _inputs(table, role)
    has = table.columns.__contains__
    pairs: dict[str, Any] = {**check_pairs(table)} if role == "anchor" else {}
    return Examples(
        inputs=inputs,
        labels=labels,
        classes=names,
        modality=modality,
        domain=check.check_names_column(table, "domain") if has("domain") else None,
        group=check.check_names_column(table, "group") if has("group") else None,
        document=check.check_names_column(table, "document") if has("document") else None,
        ids=check.check_names_column(table, "id", unique=True) if has("id") else None,
        weight=check.check_weights(table, "weight") if has("weight") else None,
        answer=check_answers(table, "answer") if has("answer") and modality == "text" else None,
        entities=check_entities(table, "entities", inputs) if has("entities") and modality == "text" else None,
        **pairs,
        source=table.source,
    )


def _inputs(table: Table, role: str) -> tuple[Any, Modality]:
    if role in ("text", "anchor"):
        return check.check_texts(table, role), "text"
    if role == "image":
        return check_images(table, role), "image"
    return check.check_features(table, role), "features"


def _labels(table: Table, require_labels: bool) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if "label" not in table.columns:
        if require_labels:
            raise DataError(missing_column(table, "label", "it names the class of each row"))
        return None, ()
    # A test file may carry an empty label column; half a column is a mistake all the same.
    if not require_labels and all(check.is_missing(value) for value in table.columns["label"]):
        return None, ()
    return check.check_labels(table, "label")
