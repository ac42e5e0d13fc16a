"""`surefoot evaluate --sts` and `--mteb`: how good a model's vectors are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surefoot.errors import DataError, RecipeError


def evaluate_embedding(
    run: Path,
    sts: Sequence[str],
    mteb: Sequence[str],
    *,
    data: Sequence[str],
    columns: Sequence[str],
    device: str,
    json: bool,
) -> None:
    """Print the score of the model's vectors on each set and task."""
    from surefoot.assess.mteb import evaluate_task
    from surefoot.assess.similarity import evaluate_similarity, load_similarity
    from surefoot.cli.inputs import parse_columns
    from surefoot.cli.show import Bars, out, print_json
    from surefoot.models.load import load

    if data:
        raise RecipeError("--data is of a classifier's labels, --sts and --mteb of an embedding: ask for one at a time")
    sets = {}
    for each in sts:
        name, sign, source = each.partition("=")
        name, source = (name, source) if sign else (Path(each).stem, each)
        if not name or not source:
            raise DataError(f"--sts {each}: write it as NAME=FILE, such as --sts sts=sts.parquet")
        if name in sets:
            raise DataError(f"two sets are named `{name}`: give them names, as in --sts first={source}")
        sets[name] = load_similarity(source, columns=parse_columns(columns))
    model = load(str(run), device=device)
    with Bars() as bars:
        scores = {name: evaluate_similarity(model, each, progress=bars, label=name)[1] for name, each in sets.items()}
    tasks = {name: evaluate_task(model, name) for name in mteb}
    if json:
        print_json({name: each.as_json() for name, each in scores.items()} | tasks)
        return
    out(_table(scores, tasks))


def _table(scores: dict[str, Any], tasks: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table()
    for name in ("set", "examples", "metric", "score [95% interval]"):
        table.add_column(name, justify="left" if name in ("set", "metric") else "right", no_wrap=True)
    for name, each in scores.items():
        interval = f"{100 * each.value:.1f} [{100 * each.low:.1f}, {100 * each.high:.1f}]"
        table.add_row(name, f"{each.examples:,}", each.metric, interval)
    for name, found in tasks.items():
        for split, value in found["splits"].items():
            table.add_row(f"{name} ({split})", "", found["metric"], f"{100 * value:.1f}")
    return table
