"""Reading what the command line names: data sets as `NAME=FILE` or `FILE`, and threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from surefoot.data.examples import Examples
from surefoot.data.load import load_data
from surefoot.data.tasks import is_task
from surefoot.errors import DataError


def named_data(
    values: Sequence[str], *, option: str = "--test", columns: Sequence[str] = (), classes: Sequence[str] | None = None
) -> dict[str, Examples]:
    """`tweets=tweets.parquet` or `tweets.parquet` (named after the file) to labelled examples."""
    found: dict[str, Examples] = {}
    for value in values:
        name, sign, source = value.partition("=")
        if not sign:
            # A part of a task has no file name: `reviews/tweets/test` is called what it is called.
            name, source = (value if is_task(value) and not Path(value).exists() else Path(value).stem), value
        if not name or not source:
            raise DataError(f"{option} {value}: write it as NAME=FILE, such as {option} tweets=tweets.parquet")
        if name in found:
            raise DataError(f"two test sets are named `{name}`: give them names, as in {option} first={source}")
        found[name] = load_data(source, columns=parse_columns(columns), classes=classes)
    return found


def parse_columns(values: Sequence[str]) -> dict[str, str] | None:
    """`intent=label` renames the column `intent` to `label`."""
    pairs = dict(value.partition("=")[::2] for value in values)
    wrong = [value for value in values if not all(value.partition("=")[::2])]
    if wrong:
        raise DataError(f"--column {wrong[0]}: write it as COLUMN=ROLE, such as --column intent=label")
    return pairs or None


def use_threads(count: int | None) -> None:
    """Set torch's threads: results are the same bytes only for the same count."""
    if count is not None:
        import torch

        torch.set_num_threads(count)
