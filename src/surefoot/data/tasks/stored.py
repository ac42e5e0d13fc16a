"""Tasks whose data cannot be fetched from a package index: parquet files in the folder named by `SUREFOOT_DATA`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from surefoot.data.examples import Examples
from surefoot.data.load import load_data
from surefoot.errors import DataError


def stored(name: str) -> Path:
    """Where NAME.parquet lies. Raises DataError if `SUREFOOT_DATA` is unset or lacks the file."""
    folder = os.environ.get("SUREFOOT_DATA")
    if not folder:
        raise DataError(f"the task `{name}` needs {name}.parquet: set SUREFOOT_DATA to the folder that holds it")
    path = Path(folder).expanduser() / f"{name}.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such file; set SUREFOOT_DATA to the folder that holds {name}.parquet")
    return path


def split_of(name: str, split: str, *, columns: Mapping[str, str] | None = None, **equal: Any) -> Examples:
    """The rows of one split for which every column in `equal` has the given value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = stored(name)
    filters = [("split", "==", split), *((column, "==", value) for column, value in equal.items())]
    try:
        table = pq.read_table(path, filters=filters)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: cannot be read as the task's data ({reason}); copy or write it again") from None
    return replace(load_data(table, columns=columns), source=f"{name}/{split}")
