"""`surefoot conformal`: for each example the set of classes that holds the truth as often as was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Device, Json, Threads

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from surefoot.assess.conformal import SetMetrics
    from surefoot.data.examples import Examples


@command("conformal")
def conformal(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    calibrate: Annotated[
        str, typer.Option(help="Labelled data from home that nothing was trained on, some hundred.", metavar="FILE")
    ],
    data: Annotated[
        list[str],
        typer.Option(
            help="Data to answer as NAME=FILE; labels, where there are any, say how it went.", metavar="NAME=FILE"
        ),
    ],
    coverage: Annotated[float, typer.Option(help="The share of sets that are to hold the truth.")] = 0.9,
    method: Annotated[
        str,
        typer.Option(
            help="`surefoot methods --kind conformal` lists them: lac has the smallest sets, aps larger ones for hard examples, mondrian holds for every class, weighted for other inputs, adaptive follows a labelled stream."
        ),
    ] = "lac",
    option: Annotated[list[str], typer.Option(help="An option of the method: step=0.01.", metavar="NAME=VALUE")] = [],  # noqa: B006 - typer reads it
    out: Annotated[
        Path | None, typer.Option(help="Where the sets go; sets.parquet in RUN by default.", metavar="FILE")
    ] = None,
    column: Annotated[list[str], typer.Option(help="Rename a column: intent=label.", metavar="COLUMN=ROLE")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of what a randomised method draws.")] = 0,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Answer with sets of classes that hold the truth as often as you ask, whatever the model is worth.

    The promise is for data that are drawn like the calibration data. On others it is void: where labels are there, the
    table shows what became of it, by data set and by domain.

    Example: surefoot conformal runs/first --calibrate validation.parquet --data tweets=tweets.parquet --coverage 0.9
    """
    from surefoot.assess.conformal import Conformal
    from surefoot.assess.evaluate import outputs
    from surefoot.cli.inputs import named_data, parse_options, use_threads
    from surefoot.cli.show import Bars, notes, print_json
    from surefoot.cli.show import out as show
    from surefoot.errors import ModelError
    from surefoot.models.load import load
    from surefoot.report.findings import keep_finding
    from surefoot.tune.build import build
    from surefoot.tune.folder import check_run

    use_threads(threads)
    check_run(run)
    made: Conformal = build("conformal", {"name": method, "coverage": coverage, "seed": seed, **parse_options(option)})
    model = load(run, device=device)
    if not model.classes:
        raise ModelError(f"`{model.name}` has no classes: tune it first, or give the folder of a run")
    home = named_data([f"calibration={calibrate}"], option="--calibrate", columns=column, classes=model.classes)
    sets = named_data(data, option="--data", columns=column, classes=model.classes, labelled=None)
    found: dict[str, np.ndarray] = {}
    with Bars() as bars:
        known = home["calibration"]
        seen = outputs(model, known, progress=bars, label="calibration")
        made.fit(seen.logits, _labels(known), inputs=seen.features)
        for name, examples in sets.items():
            seen = outputs(model, examples, progress=bars, label=name)
            truth = None if examples.labels is None else _labels(examples)
            found[name] = made.predict(seen.logits, inputs=seen.features, labels=truth)
    place = out or run / "sets.parquet"
    _write(place, sets, found, model.classes)
    rows = {name: _rows(sets[name], each) for name, each in found.items()}
    keep_finding(run, _finding(rows, method, coverage))
    facts = {
        "method": method,
        "coverage": coverage,
        "calibration": {"data": calibrate, "examples": len(known)},
        "sets": {name: {part: each.as_json() for part, each in parts.items()} for name, parts in rows.items()},
        "sizes": {name: float(each.sum(1).mean()) for name, each in found.items()},
        "file": str(place),
    }
    if json:
        print_json(facts)
        return
    show(_table(rows, found, method, coverage))
    few = _few(len(known), coverage) if made.one_threshold else []
    notes([*few, f"sets of {sum(map(len, found.values())):,} examples are in {place}"])


def _few(examples: int, coverage: float) -> list[str]:
    """How far a promise from few examples may be off."""
    from surefoot.assess.conformal import coverage_range

    if examples >= FEW:
        return []
    low, high = coverage_range(examples, coverage)
    return [
        f"{examples} calibration examples are few: the promise holds on average over such draws, and of one draw's sets between {100 * low:.0f} and {100 * high:.0f}% hold the truth"
    ]


#: Calibration examples below which the user is told how far the promise may be off: with 200, by 5 points or less.
FEW = 200
#: The row that is all of a data set.
ALL = "all"


def _labels(examples: Examples) -> Any:
    import numpy as np

    return np.asarray(examples.labels)


def _rows(examples: Examples, sets: np.ndarray) -> dict[str, SetMetrics]:
    """Metrics of the whole and of each domain; nothing where there are no labels."""
    import numpy as np

    from surefoot.assess.conformal import set_metrics

    if examples.labels is None:
        return {}
    labels, documents = _labels(examples), examples.document
    found = {ALL: set_metrics(sets, labels, documents=documents)}
    names = [] if examples.domain is None else [str(each) for each in np.unique(examples.domain)]
    for name in names if len(names) > 1 else []:
        mask = np.asarray(examples.domain == name)
        found[name] = set_metrics(sets[mask], labels[mask], documents=None if documents is None else documents[mask])
    return found


def _write(path: Path, data: Mapping[str, Examples], sets: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> None:
    """A row an example: data set, row, id, the classes of its set, and the label and whether it is there, if known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from surefoot.files import atomic_write

    parts = []
    for name, each in sets.items():
        examples = data[name]
        labels = examples.labels
        truth = [None] * len(each) if labels is None else [classes[label] for label in labels]
        held = [None] * len(each) if labels is None else each[range(len(each)), labels].tolist()
        columns = {
            "data_set": pa.array([name] * len(each), pa.string()),
            "row": pa.array(range(len(each)), pa.int64()),
            "id": pa.array(
                [None] * len(each) if examples.ids is None else [str(one) for one in examples.ids], pa.string()
            ),
            "labels": pa.array([[classes[c] for c in row.nonzero()[0]] for row in each], pa.list_(pa.string())),
            "label": pa.array(truth, pa.string()),
            "covered": pa.array(held, pa.bool_()),
        }
        parts.append(pa.table(columns))
    with atomic_write(path) as partial:
        pq.write_table(pa.concat_tables(parts), partial)


COLUMNS = ("data set", "examples", "coverage [95%]", "classes a set", "of one class", "empty", "worst class")


def _cells(each: SetMetrics) -> list[str]:
    from surefoot.cli.show import interval

    worst = "-" if each.worst_class is None else f"{100 * each.worst_class:.1f}"
    return [
        f"{each.examples:,}",
        interval(each.coverage),
        f"{each.size:.2f}",
        f"{100 * each.single:.1f}",
        f"{100 * each.empty:.1f}",
        worst,
    ]


def _table(
    rows: Mapping[str, Mapping[str, SetMetrics]], found: Mapping[str, np.ndarray], method: str, coverage: float
) -> Table:
    from rich.table import Table

    title = f"sets by {method}, {100 * coverage:g}% asked for"
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "data set" else "right", no_wrap=True)
    for name, parts in rows.items():
        if not parts:
            table.add_row(name, f"{len(found[name]):,}", "no labels", f"{found[name].sum(1).mean():.2f}", "", "", "")
        for part, each in parts.items():
            table.add_row(name if part == ALL else f"  {part}", *_cells(each))
    table.caption = "The promise holds for data drawn like the calibration data, and for no others."
    return table


def _finding(rows: Mapping[str, Mapping[str, SetMetrics]], method: str, coverage: float) -> Any:
    from surefoot.report.findings import Finding

    cells = [
        [name if part == ALL else f"{name}: {part}", *_cells(each)]
        for name, parts in rows.items()
        for part, each in parts.items()
    ]
    words = (
        f"Sets of classes by {method}, made to hold the truth in {100 * coverage:g}% of cases on data drawn like the "
        "calibration data; on others what they hold is measured here, not promised. Shares in percent."
    )
    return Finding("conformal", "Prediction sets", words, COLUMNS, cells)
