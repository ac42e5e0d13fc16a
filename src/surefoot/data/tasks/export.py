"""Write a task's protocol out as files, so that another program can follow it to the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from surefoot.data.examples import Examples
from surefoot.data.tasks.task import Task
from surefoot.files import atomic_folder, atomic_write


def export_task(task: Task, folder: str | Path) -> list[Path]:
    """Write train.parquet, validation.parquet, test/DOMAIN.parquet and pool/DOMAIN.parquet; return their paths.

    The folder appears whole or not at all; an existing one is replaced.
    """
    parts = {"train": task.train, **({"validation": task.validation} if task.validation is not None else {})}
    parts |= {f"test/{name}": examples for name, examples in task.tests.items()}
    parts |= {f"pool/{name}": examples for name, examples in task.pools.items()}
    with atomic_folder(folder) as temporary:
        for name, examples in parts.items():
            write_examples(examples, temporary / f"{name}.parquet")
    return [Path(folder) / f"{name}.parquet" for name in parts]


def write_examples(examples: Examples, path: str | Path) -> None:
    """Write examples as a parquet file that `load_data` reads back; labels as class names, images as PNG."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {examples.modality: _cells(examples)}
    if examples.labels is not None:
        columns["label"] = [examples.classes[index] for index in examples.labels]
    for name, column in {
        "domain": "domain",
        "group": "group",
        "document": "document",
        "id": "ids",
        "weight": "weight",
    }.items():
        values = getattr(examples, column)
        if values is not None:
            columns[name] = values.tolist()
    with atomic_write(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _cells(examples: Examples) -> list[Any]:
    if examples.modality == "text":
        return list(examples.inputs)
    if examples.modality == "features":
        return list(np.asarray(examples.inputs, dtype=np.float32))
    import io

    from surefoot.data.images import decode

    cells = []
    for image in examples.inputs:
        buffer = io.BytesIO()
        decode(image).save(buffer, format="PNG")
        cells.append(buffer.getvalue())
    return cells
